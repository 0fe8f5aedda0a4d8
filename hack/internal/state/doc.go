// Package state names the folders that the development cluster keeps outside the checkout.
package state
