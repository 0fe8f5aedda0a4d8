package main

import (
	"testing"

	"ugallu.io/forensics/internal/rootstest"
)

func TestPublicServersAreTrustedWithoutCertificatesInTheImage(t *testing.T) { rootstest.Public(t) }
