// Package manifests embeds the custom resource definitions, so that tests install what is shipped.
package manifests
