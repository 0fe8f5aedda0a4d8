package status

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// padding between columns.
const padding = 2

// Write writes views for people.
func Write(out io.Writer, views []View, now time.Time) error {
	var text strings.Builder
	for i := range views {
		if i > 0 {
			text.WriteByte('\n')
		}
		if err := views[i].write(&text, now); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

func (v *View) write(text *strings.Builder, now time.Time) error {
	fmt.Fprintf(text, "incident %s: %s, pod %s/%s (%s) on %s\n", v.Incident, v.State, v.Pod.Namespace, v.Pod.Name, v.Pod.UID, v.Pod.NodeName)
	var rows strings.Builder
	for i := range v.Steps {
		step := &v.Steps[i]
		fmt.Fprintf(&rows, "  %s\t%s\t%s\t%s\n", step.Step, phase(step.Phase), bundle(step.Bundle), step.detail(now))
	}
	for _, condition := range v.Conditions {
		fmt.Fprintf(&rows, "  %s\t%s\t%s\t%s\n", condition.Type, condition.Status, condition.Reason, message(condition))
	}
	table := tabwriter.NewWriter(text, 0, 0, padding, ' ', 0)
	_, err := io.WriteString(table, rows.String())
	if err := errors.Join(err, table.Flush()); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	if v.UnfreezeAt != nil && v.State != v1alpha1.IncidentReleased {
		fmt.Fprintf(text, "  goes free without an acknowledgement at %s, in %s\n",
			v.UnfreezeAt.UTC().Format(time.RFC3339), v.UnfreezeAt.Sub(now).Round(time.Second))
	}
	for _, url := range append([]string{v.Manifest}, v.Custody...) {
		if url != "" {
			fmt.Fprintf(text, "  %s\n", url)
		}
	}
	return nil
}

func (s *Step) detail(now time.Time) string {
	var parts []string
	switch {
	case s.StartedAt != nil && s.CompletedAt != nil:
		parts = append(parts, "took "+s.CompletedAt.Sub(*s.StartedAt).Round(time.Millisecond).String())
	case s.StartedAt != nil:
		parts = append(parts, "for "+now.Sub(*s.StartedAt).Round(time.Second).String())
	}
	if s.Artifacts > 0 {
		parts = append(parts, fmt.Sprintf("%d artifacts", s.Artifacts))
	}
	if s.Gaps > 0 {
		parts = append(parts, fmt.Sprintf("%d gaps", s.Gaps))
	}
	if p := s.Progress; p != nil && s.CompletedAt == nil {
		parts = append(parts, fmt.Sprintf("%s: %d files, %d bytes read, %d stored", p.CurrentArtifact, p.Files, p.BytesRead, p.BytesStored))
	}
	return strings.Join(parts, ", ")
}

func phase(phase v1alpha1.ResponsePhase) string {
	if phase == "" {
		return string(v1alpha1.ResponsePending)
	}
	return string(phase)
}

func bundle(phase v1alpha1.BundlePhase) string {
	if phase == "" {
		return "unsigned"
	}
	return string(phase)
}

// message is the first line of a condition's.
func message(condition metav1.Condition) string {
	line, _, _ := strings.Cut(condition.Message, "\n")
	return line
}
