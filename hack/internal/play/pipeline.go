package play

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// glance is how often the live view looks at the objects.
const glance = 100 * time.Millisecond

func (p *Play) detect(ctx context.Context) (string, error) {
	p.event = v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "synth-"},
		Spec: v1alpha1.SecurityEventSpec{
			Type: "HoneypotTriggered", Class: v1alpha1.ClassDetection, Severity: v1alpha1.SeverityCritical,
			Source:      v1alpha1.EventSource{Operator: "ugallu-forensics-recipe", Cluster: "sandbox"},
			Subject:     v1alpha1.EventSubject{Kind: "Pod", Namespace: sandbox, Name: suspect},
			Description: "synthetic detection for the recipe",
		},
	}
	p.emitted = time.Now()
	if err := p.Create(ctx, &p.event); err != nil {
		return "", fmt.Errorf("create the event: %w", err)
	}
	return fmt.Sprintf("SecurityEvent %s: %s, %s, on %s/%s", p.event.Name, p.event.Spec.Type, p.event.Spec.Severity, sandbox, suspect), nil
}

// pipeline shows what happens until every response of the capture is sealed.
func (p *Play) pipeline(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, captureTime)
	defer cancel()
	name := v1alpha1.IncidentName(string(p.event.UID))
	shown := map[string]bool{}
	for {
		lines, err := p.glance(ctx, name)
		if err != nil {
			return "", fmt.Errorf("look at incident %s: %w", name, err)
		}
		for _, line := range lines {
			if !shown[line] {
				shown[line] = true
				p.screen.note("+%6.2f s  %s", time.Since(p.emitted).Seconds(), line)
			}
		}
		if meta.IsStatusConditionTrue(p.incident.Status.Conditions, v1alpha1.ConditionAttested) {
			return fmt.Sprintf("incident %s: contained, captured, stored and sealed %s after the event", name, seconds(time.Since(p.emitted))), nil
		}
		if failed := meta.FindStatusCondition(p.incident.Status.Conditions, v1alpha1.ConditionFailed); failed != nil && failed.Status == metav1.ConditionTrue {
			return "", fmt.Errorf("the incident failed: %s: %s", failed.Reason, failed.Message)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("incident %s is not sealed within %s; last seen:\n%s", name, captureTime, strings.Join(lines, "\n"))
		case <-time.After(glance):
		}
	}
}

// glance tells, one line each, what is true of the incident now. A line that was not there before is news.
func (p *Play) glance(ctx context.Context, name string) ([]string, error) {
	var event v1alpha1.SecurityEvent
	if err := p.Get(ctx, client.ObjectKeyFromObject(&p.event), &event); err != nil {
		return nil, err
	}
	var lines []string
	if event.Status.Phase == v1alpha1.EventAttested {
		lines = append(lines, "event attested, bundle "+event.Status.BundleRef.Name)
	}
	for _, condition := range event.Status.Conditions {
		lines = append(lines, conditionLine("event", condition))
	}
	err := p.Get(ctx, client.ObjectKey{Name: name}, &p.incident)
	if apierrors.IsNotFound(err) {
		return lines, nil
	}
	if err != nil {
		return nil, err
	}
	lines = append(lines, "incident "+name+" opened")
	responses, err := p.responses(ctx)
	if err != nil {
		return nil, err
	}
	for _, response := range responses {
		lines = append(lines, responseLines(response)...)
	}
	for _, condition := range p.incident.Status.Conditions {
		if condition.Status != metav1.ConditionUnknown {
			lines = append(lines, conditionLine("incident", condition))
		}
	}
	sealed, err := p.sealed(ctx)
	if err != nil {
		return nil, err
	}
	for _, bundle := range sealed {
		about := bundle.Spec.AttestedFor.Name
		if of := bundle.Spec.Countersigns; of != nil {
			about += " in " + string(of.Mode)
		}
		lines = append(lines, fmt.Sprintf("sealed: %s, log index %d", about, *bundle.Status.LogIndex))
	}
	return lines, nil
}

func conditionLine(of string, condition metav1.Condition) string {
	if condition.Status == metav1.ConditionTrue {
		return of + " " + condition.Type
	}
	return fmt.Sprintf("%s not %s: %s", of, condition.Type, condition.Reason)
}

func responseLines(response v1alpha1.EventResponse) []string {
	step := response.Labels[v1alpha1.LabelStep]
	executor := "the controller"
	if response.Spec.NodeName != "" {
		executor = response.Spec.NodeName
	}
	lines := []string{fmt.Sprintf("%s ordered, for %s", step, executor)}
	if progress := response.Status.Progress; progress != nil && response.Status.CompletedAt == nil {
		lines = append(lines, fmt.Sprintf("%s: %s, %d files, %.1f MB stored", step, progress.CurrentArtifact, progress.Files, float64(progress.BytesStored)/1e6))
	}
	if containment := response.Status.Containment; containment != nil && containment.ContainedAt != nil {
		lines = append(lines, fmt.Sprintf("%s: contained %s, %d hooks, %d containers by %s", step, containment.Level,
			len(containment.Hooks), len(containment.Containers), containment.FreezeMethod))
	}
	if response.Status.CompletedAt != nil {
		lines = append(lines, fmt.Sprintf("%s %s in %s", step, response.Status.Phase,
			millis(response.Status.CompletedAt.Sub(response.Status.StartedAt.Time))))
	}
	for _, gap := range response.Status.Gaps {
		lines = append(lines, fmt.Sprintf("%s: gap %s ×%d: %s", step, gap.Reason, gap.Count, gap.Message))
	}
	return lines
}

// responses of the incident in the order they were made.
func (p *Play) responses(ctx context.Context) ([]v1alpha1.EventResponse, error) {
	var found []v1alpha1.EventResponse
	for _, step := range []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot, v1alpha1.StepUpload, v1alpha1.StepUnfreeze} {
		response, err := p.response(ctx, step)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, response)
	}
	return found, nil
}

func (p *Play) response(ctx context.Context, step v1alpha1.Step) (v1alpha1.EventResponse, error) {
	var response v1alpha1.EventResponse
	name := v1alpha1.ResponseName(p.incident.Name, step, 1)
	if err := p.Get(ctx, client.ObjectKey{Name: name}, &response); err != nil {
		return response, fmt.Errorf("get response %s: %w", name, err)
	}
	return response, nil
}

// sealed bundles of the incident.
func (p *Play) sealed(ctx context.Context) ([]v1alpha1.AttestationBundle, error) {
	var list v1alpha1.AttestationBundleList
	if err := p.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelIncidentUID: string(p.incident.UID)}); err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	var found []v1alpha1.AttestationBundle
	for _, bundle := range list.Items {
		if bundle.Status.Phase == v1alpha1.BundleSealed {
			found = append(found, bundle)
		}
	}
	return found, nil
}
