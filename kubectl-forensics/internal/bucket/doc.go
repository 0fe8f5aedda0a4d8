// Package bucket reads stored evidence from an S3 bucket with an analyst's credentials.
package bucket
