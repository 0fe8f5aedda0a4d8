// Package nodeimage finds or builds the image of the cluster's nodes.
package nodeimage
