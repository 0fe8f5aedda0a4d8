package frozen

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=get

// Guard answers for pods and their subresources.
type Guard struct {
	reader     client.Reader
	controller string
}

// New returns a guard. The reader must read the API server itself: exec and eviction requests carry no labels, and a
// cache could still show the pod as free. The controller's account alone may label, annotate and delete frozen pods.
func New(reader client.Reader, controller string) *Guard {
	return &Guard{reader: reader, controller: controller}
}

// Handle allows or denies; it changes nothing.
func (g *Guard) Handle(ctx context.Context, req admission.Request) admission.Response {
	var refusal string
	var err error
	if carriesPod(req) {
		refusal, err = g.judge(req)
	} else {
		refusal, err = g.judgeByName(ctx, req)
	}
	switch {
	case err != nil:
		return admission.Errored(http.StatusInternalServerError, err)
	case refusal != "":
		return admission.Denied(refusal)
	default:
		return admission.Allowed("")
	}
}

// carriesPod is whether the request's object is the pod: it is for the pod itself and for the subresources that
// update it, and is not for evictions and connections.
func carriesPod(req admission.Request) bool {
	return req.Operation != admissionv1.Connect && req.SubResource != "eviction"
}

func (g *Guard) judgeByName(ctx context.Context, req admission.Request) (string, error) {
	var found metav1.PartialObjectMetadata
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	key := client.ObjectKey{Namespace: req.Namespace, Name: req.Name}
	err := g.reader.Get(ctx, key, &found)
	if apierrors.IsNotFound(err) {
		return "", nil // the API server answers that better than we could
	}
	if err != nil {
		return "", fmt.Errorf("look up pod %s: %w", key, err)
	}
	held := &pod{ObjectMeta: found.ObjectMeta}
	if incident, frozen := held.incident(); frozen {
		return refuse(held, incident, req.SubResource), nil
	}
	return "", nil
}

func (g *Guard) judge(req admission.Request) (string, error) {
	before, err := parse(req.OldObject.Raw)
	if err != nil {
		return "", err
	}
	after, err := parse(req.Object.Raw)
	if err != nil {
		return "", err
	}
	user := req.UserInfo.Username
	switch {
	case req.Operation == admissionv1.Delete && before != nil:
		return g.judgeDelete(before, user), nil
	case req.Operation == admissionv1.Create && after != nil:
		return g.judgeCreate(after, user), nil
	case req.Operation == admissionv1.Update && before != nil && after != nil:
		return g.judgeUpdate(before, after, req), nil
	default:
		return "", fmt.Errorf("judge %s of pod %s/%s: the request lacks the object", req.Operation, req.Namespace, req.Name)
	}
}

func (g *Guard) judgeDelete(p *pod, user string) string {
	incident, frozen := p.incident()
	if !frozen || user == g.controller {
		return ""
	}
	// The kubelet's delete is the end of one that was admitted before: it removes what is already dead.
	if p.DeletionTimestamp != nil && p.nodeName() != "" && user == "system:node:"+p.nodeName() {
		return ""
	}
	return refuse(p, incident, "delete")
}

func (g *Guard) judgeCreate(p *pod, user string) string {
	if _, frozen := p.incident(); !frozen || user == g.controller {
		return ""
	}
	return refuseLabel(user)
}

func (g *Guard) judgeUpdate(before, after *pod, req admission.Request) string {
	incident, frozen := before.incident()
	_, freezes := after.incident()
	byController := req.UserInfo.Username == g.controller
	if !frozen {
		if freezes && !byController {
			return refuseLabel(req.UserInfo.Username)
		}
		return ""
	}
	if req.SubResource != "" && req.SubResource != "status" {
		return refuse(before, incident, req.SubResource)
	}
	changed := changes(before, after)
	if byController {
		changed = slices.DeleteFunc(changed, func(part string) bool { return part != partSpec })
	}
	// Network plugins clear their annotations through the status when the sandbox of a deleted pod is torn down.
	if req.SubResource == "status" && before.DeletionTimestamp != nil {
		changed = slices.DeleteFunc(changed, func(part string) bool { return part == partAnnotations })
	}
	if len(changed) == 0 {
		return ""
	}
	return refuse(before, incident, "update of "+strings.Join(changed, ", "))
}

func refuse(p *pod, incident, act string) string {
	return fmt.Sprintf("pod %s/%s is frozen as evidence of incident %s: %s is refused until the incident is released. "+
		"To release it, an authorised account acknowledges it: find its event with "+
		"`kubectl get securityevents -l %s=%s` and annotate that event with %s=true",
		p.Namespace, p.Name, incident, act, v1alpha1.LabelIncidentUID, incident, v1alpha1.AnnotationAcknowledged)
}

func refuseLabel(user string) string {
	return fmt.Sprintf("metadata.labels[%s]: %s may not set this label: the forensics controller alone freezes pods, "+
		"create a SecurityEvent about the pod instead", v1alpha1.LabelFrozen, user)
}
