package manifests_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	detector = "system:serviceaccount:falco:falco"
	outsider = "system:serviceaccount:sandbox:default"
)

// bindsOperators shows who may name which source, before and after somebody says so.
func bindsOperators(t *testing.T, s server) {
	s.allow(t, "create", "securityevents")
	create := func(by client.Client, operator, class string) error {
		event := object("SecurityEvent", "", with(with(eventSpec(), "source.operator", operator), "class", class))
		event.SetGenerateName("operator-")
		return by.Create(t.Context(), event)
	}
	byOutsider := func() error { return create(s.as(t, outsider, nil), "falco", "Detection") }
	awaitAnswer(t, byOutsider, "")

	named := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: "ugallu-operators"},
		Data: map[string]string{
			"falco": detector + "\n" + attestorAccount + "\n", "tetragon": detector + "2 someone", "crlf": detector + "\r\nsomeone\r\n",
		},
	}
	if err := s.client.Create(t.Context(), named); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, byOutsider, outsider+" may not speak for falco")
	tests := map[string]struct {
		account, operator, class string
		says                     string
	}{
		"its own":                         {detector, "falco", "Detection", ""},
		"its own, the second of two":      {attestorAccount, "falco", "Anomaly", ""},
		"its own, of a file of Windows":   {detector, "crlf", "Detection", ""},
		"of what no key can name":         {detector, "falco/1", "Detection", "may not speak for falco/1"},
		"another's":                       {outsider, "falco", "Detection", outsider + " may not speak for falco"},
		"another's, of the name's start":  {detector, "tetragon", "Detection", "may not speak for tetragon"},
		"of nobody":                       {detector, "unheard-of", "Detection", "may not speak for unheard-of"},
		"another's, of every class there": {outsider, "falco", "Compliance", "may not speak for falco"},
		"as the cluster's administrator":  {"kubernetes-admin", "falco", "Detection", "may not speak for falco"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			allowedOrSays(t, create(s.as(t, tt.account, nil), tt.operator, tt.class), tt.says)
		})
	}
	if err := s.client.Delete(t.Context(), named); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, byOutsider, "")
}

// allow gives everybody a verb on a resource of ours, so that only admission is in the way.
func (s server) allow(t *testing.T, verb, resource string) {
	t.Helper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "test-" + verb + "-" + resource},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"security.ugallu.io"}, Resources: []string{resource}, Verbs: []string{verb}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-" + verb + "-" + resource},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:authenticated"}},
	}
	for _, o := range []client.Object{role, binding} {
		if err := s.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitAnswer waits until the API server has seen a new role, or a change of a policy's parameter: until it refuses with this
// text, or allows where the text is empty.
func awaitAnswer(t *testing.T, try func() error, says string) {
	t.Helper()
	var err error
	for range 600 {
		err = try()
		if says == "" && err == nil || says != "" && apierrors.IsInvalid(err) && strings.Contains(err.Error(), says) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("not answered with %q within a minute: %v", says, err)
}

// dropsForgedStatus shows that nobody can claim a seal: not with the event, and not afterwards.
func dropsForgedStatus(t *testing.T, s server) {
	claim := fields{"phase": "Attested", "statementDigest": hex, "bundleRef": fields{"name": "ab", "uid": "1"}}
	event := object("SecurityEvent", "", eventSpec())
	event.SetGenerateName("claimed-")
	event.Object["status"] = claim
	if err := s.as(t, outsider, nil).Create(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(event), event); err != nil {
		t.Fatal(err)
	}
	if status, there := event.Object["status"]; there {
		t.Errorf("the API server kept status %v", status)
	}
	for _, account := range []string{outsider, readbackAccount, agent, system + "ugallu-responder", system + "ugallu-webhook"} {
		if err := patchStatus(t, s.as(t, account, nil), event, claim); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", account, err)
		}
	}
	bundle := object("AttestationBundle", "forged", bundleSpec())
	if err := s.as(t, outsider, nil).Create(t.Context(), bundle); !apierrors.IsForbidden(err) {
		t.Errorf("a bundle of an outsider: %v", err)
	}
}
