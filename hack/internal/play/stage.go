package play

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/hack/internal/step"
)

// config is the recipe's.
const config = `apiVersion: security.ugallu.io/v1alpha1
kind: ForensicsConfig
metadata: { name: default }
spec:
  trigger:
    classes: [Detection, Anomaly]
    minSeverities: [high, critical]
    requireAttested: true
    namespaceAllowlist: []
  whitelistedTypes:
    - PrivilegedPodChange
    - HostPathMount
    - ExecIntoPod
    - HoneypotTriggered
    - CrossTenantSecretAccess
    - CrossTenantExec
  cleanup:
    autoUnfreezeAfter: 4h
  evidence:
    bucket: ugallu-forensics
    objectLock: COMPLIANCE
    retainDays: 365
`

// plantedFile and plantedText are what an intruder left, and what must be found in the archive.
const (
	plantedFile = "usr/share/nginx/.hidden/implant.sh"
	plantedText = "#!/bin/sh\n# planted by the demonstration\n"
)

func (p *Play) configure(ctx context.Context) (string, error) {
	if err := p.apply(ctx, config); err != nil {
		return "", err
	}
	var found v1alpha1.ForensicsConfig
	err := step.Wait(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		if err := p.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &found); err != nil {
			return false, err
		}
		return found.Status.FreezeBackend != "" && found.Status.ObservedGeneration == found.Generation, nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for the configuration to be taken: %w", err)
	}
	deployments := []client.ObjectKey{
		{Namespace: v1alpha1.NamespaceSystem, Name: "ugallu-forensics"},
		{Namespace: v1alpha1.NamespacePrivileged, Name: "ugallu-forensics-snapshot"},
	}
	for _, key := range deployments {
		var deployment appsv1.Deployment
		if err := p.Get(ctx, key, &deployment); err != nil {
			return "", fmt.Errorf("get deployment %s: %w", key, err)
		}
		p.screen.note("deployment %s: %d of %d ready", key, deployment.Status.ReadyReplicas, deployment.Status.Replicas)
	}
	return fmt.Sprintf("freeze backend %s", found.Status.FreezeBackend), nil
}

// stage starts from nothing: what an earlier play left is released and removed first.
func (p *Play) stage(ctx context.Context) (string, error) {
	if err := p.clear(ctx); err != nil {
		return "", err
	}
	lines := [][]string{
		{"create", "namespace", sandbox},
		{"-n", sandbox, "run", suspect, "--image=nginx", "--image-pull-policy=IfNotPresent", "--restart=Never"},
		{"-n", sandbox, "run", receiver, "--image=busybox", "--image-pull-policy=IfNotPresent", "--restart=Never", "--", "sleep", "100000"},
		{"-n", sandbox, "wait", "pod/" + suspect, "pod/" + receiver, "--for=condition=Ready", "--timeout=80s"},
	}
	for _, line := range lines {
		p.screen.note("$ kubectl %s", strings.Join(line, " "))
		if _, err := p.kubectl(ctx, line...); err != nil {
			return "", err
		}
	}
	plant := fmt.Sprintf("mkdir -p $(dirname /%s) && printf '%%s' '%s' > /%s", plantedFile, plantedText, plantedFile)
	if _, err := p.kubectl(ctx, "-n", sandbox, "exec", suspect, "--", "sh", "-c", plant); err != nil {
		return "", err
	}
	if err := p.Get(ctx, client.ObjectKey{Namespace: sandbox, Name: suspect}, &p.pod); err != nil {
		return "", fmt.Errorf("get the suspect: %w", err)
	}
	return fmt.Sprintf("%s/%s on %s, with an implant at /%s", sandbox, suspect, p.pod.Spec.NodeName, plantedFile), nil
}

// clear releases and removes what a play that was cut short left behind.
func (p *Play) clear(ctx context.Context) error {
	var open v1alpha1.IncidentList
	if err := p.List(ctx, &open, client.MatchingLabels{v1alpha1.LabelOpen: "true"}); err != nil {
		return fmt.Errorf("list open incidents: %w", err)
	}
	for _, incident := range open.Items {
		if incident.Spec.Pod.Namespace != sandbox {
			continue
		}
		p.screen.note("an earlier play left incident %s: releasing it", incident.Name)
		p.incident = incident
		if _, err := p.authorised(ctx); err != nil {
			return fmt.Errorf("release incident %s of an earlier play: %w", incident.Name, err)
		}
	}
	p.incident = v1alpha1.Incident{}
	_, err := p.kubectl(ctx, "delete", "namespace", sandbox, "--ignore-not-found", "--timeout=80s")
	return err
}
