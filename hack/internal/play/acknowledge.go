package play

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/hack/internal/step"
)

// guarded tries what an intruder or a hasty administrator would, as the cluster's administrator.
func (p *Play) guarded(ctx context.Context) (string, error) {
	attempts := [][]string{
		{"-n", sandbox, "label", "pod", suspect, v1alpha1.LabelFrozen + "-"},
		{"-n", sandbox, "exec", suspect, "--", "true"},
		{"-n", sandbox, "delete", "pod", suspect, "--wait=false"},
	}
	for _, attempt := range attempts {
		line := "kubectl " + strings.Join(attempt, " ")
		_, err := p.kubectl(ctx, attempt...)
		if err == nil {
			return "", fmt.Errorf("%s was allowed", line)
		}
		said := err.Error()
		if !strings.Contains(said, p.incident.Name) && !strings.Contains(said, string(p.incident.UID)) {
			return "", fmt.Errorf("%s was refused without naming the incident: %w", line, err)
		}
		p.screen.note("$ %s → refused, incident named", line)
	}
	return "label removal, exec and deletion are refused to the administrator", nil
}

// acknowledge annotates the completion event with the credentials of a service account.
func (p *Play) acknowledge(ctx context.Context, namespace, account string) error {
	if p.incident.Status.CompletionEvent == nil {
		return errors.New("the incident has no outcome event to acknowledge")
	}
	kubeconfig, err := p.account(ctx, p.folder, namespace, account)
	if err != nil {
		return err
	}
	_, err = p.kubectlWith(ctx, kubeconfig, nil, "-n", "ugallu-system", "annotate", "securityevent",
		p.incident.Status.CompletionEvent.Name, v1alpha1.AnnotationAcknowledged+"=true")
	return err
}

// unauthorised tries as the administrator, who has every right but this one, and as some service account.
func (p *Play) unauthorised(ctx context.Context) (string, error) {
	if err := p.acknowledge(ctx, sandbox, bystander); err == nil {
		return "", fmt.Errorf("the account %s:%s was allowed to acknowledge", sandbox, bystander)
	}
	p.screen.note("as %s:%s → refused", sandbox, bystander)
	_, err := p.kubectl(ctx, "-n", "ugallu-system", "annotate", "securityevent", p.incident.Status.CompletionEvent.Name,
		v1alpha1.AnnotationAcknowledged+"=true")
	if err == nil {
		return "", errors.New("the cluster's administrator was allowed to acknowledge")
	}
	if !strings.Contains(err.Error(), v1alpha1.NamespaceSystem+":"+responder) {
		return "", fmt.Errorf("the refusal does not say who may: %w", err)
	}
	p.screen.note("as the administrator → refused: %s", lastLine(err.Error()))
	return "refused, and told who may: " + v1alpha1.NamespaceSystem + ":" + responder, nil
}

// authorised acknowledges as the recipe does, and waits for the release.
func (p *Play) authorised(ctx context.Context) (string, error) {
	if err := p.acknowledge(ctx, v1alpha1.NamespaceSystem, responder); err != nil {
		return "", err
	}
	start := time.Now()
	err := step.Wait(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		if err := p.Get(ctx, client.ObjectKey{Name: p.incident.Name}, &p.incident); err != nil {
			return false, err
		}
		return meta.IsStatusConditionTrue(p.incident.Status.Conditions, v1alpha1.ConditionReleased), nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for the release of incident %s, which is %s: %w", p.incident.Name, p.incident.Status.State, err)
	}
	return "released " + seconds(time.Since(start)) + " after the acknowledgement", nil
}

// sealedRelease waits for the seal of the last response; the release itself never waits for a signature.
func (p *Play) sealedRelease(ctx context.Context) (string, error) {
	unfreeze, err := p.response(ctx, v1alpha1.StepUnfreeze)
	if err != nil {
		return "", err
	}
	var bundle v1alpha1.AttestationBundle
	err = step.Wait(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		err := p.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(unfreeze.UID))}, &bundle)
		return bundle.Status.Phase == v1alpha1.BundleSealed, client.IgnoreNotFound(err)
	})
	if err != nil {
		return "", fmt.Errorf("wait for the seal of %s, which is %q: %w", unfreeze.Name, bundle.Status.Phase, err)
	}
	trust, err := p.trust(ctx)
	if err != nil {
		return "", err
	}
	if err := p.verify(ctx, trust, string(unfreeze.UID)); err != nil {
		return "", err
	}
	acknowledged := unfreeze.Spec.Action.PodUnfreeze.Acknowledgements
	if len(acknowledged) != 1 {
		return "", fmt.Errorf("the release order names %d acknowledgements", len(acknowledged))
	}
	return "the signed order names " + acknowledged[0].Username, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
