// Command cluster makes the local cluster that the tests and the demo run on.
package main

import (
	"context"
	"fmt"
	"os"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/kubernetes"
)

func main() {
	dir, err := kubernetes.Envtest(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(dir)
	for _, p := range []asset.Program{kubernetes.Kind(), kubernetes.Containerd(), kubernetes.Node(), kubernetes.CoreDNS()} {
		if _, err := p.Build(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
