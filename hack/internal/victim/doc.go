// Package victim makes the images that suspect pods run: a web server on a real Debian, and busybox.
package victim
