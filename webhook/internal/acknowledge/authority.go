package acknowledge

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=forensicsconfigs;incidents,verbs=get

// authority reads who may acknowledge and how many must.
type authority struct {
	reader client.Reader
}

// refuse says why the user may not acknowledge, naming those who may; empty is that he may.
func (a authority) refuse(ctx context.Context, user string) (string, error) {
	var config v1alpha1.ForensicsConfig
	err := a.reader.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &config)
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("%s may not acknowledge: there is no ForensicsConfig %q that says who may; create it first",
			user, v1alpha1.SingletonName), nil
	}
	if err != nil {
		return "", fmt.Errorf("read ForensicsConfig %s: %w", v1alpha1.SingletonName, err)
	}
	accounts := authorized(&config)
	isUser := func(account string) bool { return serviceAccountPrefix+account == user }
	if slices.ContainsFunc(accounts, isUser) {
		return "", nil
	}
	who := "nobody"
	if len(accounts) > 0 {
		who = strings.Join(accounts, ", ")
	}
	return fmt.Sprintf("%s may not acknowledge incidents; ForensicsConfig %s spec.cleanup.acknowledgeAuthorizedSAs names who may: %s",
		user, v1alpha1.SingletonName, who), nil
}

// authorized accounts, namespace:name each. A list that is set and empty authorises nobody.
func authorized(config *v1alpha1.ForensicsConfig) []string {
	if config.Spec.Cleanup.AcknowledgeAuthorizedSAs == nil {
		return []string{v1alpha1.NamespaceSystem + ":ugallu-responder"}
	}
	return config.Spec.Cleanup.AcknowledgeAuthorizedSAs
}

// required is the number of acknowledgements that the event's incident was opened with: a later change of the
// configuration does not alter a running incident. A refusal says why there is none.
func (a authority) required(ctx context.Context, event *v1alpha1.SecurityEvent) (count int, refusal string, err error) {
	if event.Spec.Trigger == nil {
		return 0, "spec.trigger: the event names no trigger, so that its incident cannot be found", nil
	}
	name := v1alpha1.IncidentName(event.Spec.Trigger.UID)
	var incident v1alpha1.Incident
	err = a.reader.Get(ctx, client.ObjectKey{Name: name}, &incident)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, "", fmt.Errorf("read incident %s: %w", name, err)
	}
	if err != nil || string(incident.UID) != event.Spec.Incident.UID {
		//nolint:nilerr // not found is the answer, with its reason
		return 0, fmt.Sprintf("spec.incident: there is no incident %s with uid %s, nothing is left to release",
			name, event.Spec.Incident.UID), nil
	}
	return int(max(1, incident.Spec.RequiredAcknowledgements)), "", nil
}
