package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// Names of the recipe, and what the play adds to it: a pod that counts what the suspect sends.
const (
	sandbox   = "forensics-sandbox"
	suspect   = "forensics-victim"
	receiver  = "receiver"
	bystander = "default"
	responder = "ugallu-responder"
)

// captureTime bounds the way from the event to the manifest and all seals; a healthy cluster takes seconds.
const captureTime = 3 * time.Minute

// Play is one run of the recipe.
type Play struct {
	*Cluster
	screen screen
	folder string

	pod      corev1.Pod
	sink     string
	event    v1alpha1.SecurityEvent
	incident v1alpha1.Incident
	emitted  time.Time
	store    *store
}

// Run plays the recipe and writes it to out. It returns the URL of the incident's evidence, or an error when any claim
// does not hold.
func Run(ctx context.Context, cluster *Cluster, out io.Writer) (stored string, err error) {
	folder, err := os.MkdirTemp("", "forensics-demo-")
	if err != nil {
		return "", fmt.Errorf("make a work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	p := &Play{Cluster: cluster, screen: screen{out: out}, folder: folder}
	defer func() {
		if p.store != nil {
			err = errors.Join(err, p.store.close())
		}
	}()
	for _, a := range p.acts(ctx) {
		if err := p.screen.play(a); err != nil {
			return "", err
		}
	}
	return p.stored(), p.screen.table()
}

// stored is where the evidence of the incident lies, as a URL that kubectl-forensics takes.
func (p *Play) stored() string {
	return "s3://" + p.incident.Spec.Snapshot.Destination.Bucket + "/" + v1alpha1.EvidencePrefix(p.incident.Name) + "/"
}

// acts in the recipe's order.
func (p *Play) acts(ctx context.Context) []act {
	scenes := []struct {
		title string
		run   func(context.Context) (string, error)
	}{
		{"The system is installed and configured", p.configure},
		{"A suspect pod runs in a sandbox", p.stage},
		{"Before: the suspect talks freely", p.before},
		{"A detection is reported", p.detect},
		{"The pipeline runs", p.pipeline},
		{"After: not one byte leaves", p.after},
		{"The frozen pod is guarded", p.guarded},
		{"The evidence is in write-once storage", p.fetch},
		{"The archive is intact, and the planted file is in it", p.archive},
		{"The bundles verify offline", p.bundles},
		{"An unauthorised account cannot release", p.unauthorised},
		{"The authorised account releases", p.authorised},
		{"The pod runs again", p.again},
		{"The release is sealed as well", p.sealedRelease},
	}
	acts := make([]act, 0, len(scenes))
	for _, s := range scenes {
		acts = append(acts, act{title: s.title, run: func() (string, error) { return s.run(ctx) }})
	}
	return acts
}
