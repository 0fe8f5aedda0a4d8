// Package stamp makes and checks the code by which the controller knows that the webhook admitted an acknowledgement.
package stamp
