package manifests_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	system     = "system:serviceaccount:ugallu-system:"
	privileged = "system:serviceaccount:ugallu-system-privileged:"
	agent      = privileged + "ugallu-forensics-nodeagent"
	forensics  = system + "ugallu-forensics"
)

func TestInstall(t *testing.T) {
	s := startServer(t)
	s.installDefinitions(t)
	objects := render(t, "overlays/demo")
	// Once the webhook is asked for it, none can be made here.
	forensic := s.made(t, "SecurityEvent", with(with(eventSpec(), "class", "Forensic"), "incident.uid", "incident-1"))
	t.Run("is accepted as rendered", func(t *testing.T) { s.create(t, objects) })
	t.Run("can be applied on top", func(t *testing.T) { s.apply(t, objects) })
	s.awaitPolicies(t)
	t.Run("makes pods that their namespaces admit", func(t *testing.T) { admitsPods(t, s) })
	t.Run("gives the agent capabilities, not privilege", func(t *testing.T) { limitsAgent(t, s) })
	t.Run("gives each account what it needs and no more", func(t *testing.T) { authorizes(t, s) })
	t.Run("lets an agent speak for its own node only", func(t *testing.T) { bindsAgents(t, s) })
	t.Run("lets an agent report in its own name only", func(t *testing.T) { limitsReporters(t, s) })
	t.Run("lets the read-back workload observe only", func(t *testing.T) { limitsReadBack(t, s) })
	t.Run("lets nobody delete the chain of custody", func(t *testing.T) { keepsChain(t, s) })
	t.Run("lets nobody else make the chain of custody", func(t *testing.T) { keepsChainOurs(t, s) })
	t.Run("lets nobody else write what a Forensic event records", func(t *testing.T) { keepsForensicStatus(t, s, forensic) })
	t.Run("lets nobody else say which incident holds a pod", func(t *testing.T) { keepsOpen(t, s) })
	t.Run("lets nobody change what an order is found by", func(t *testing.T) { keepsOrderLabels(t, s) })
	t.Run("lets what is staged be taken away", func(t *testing.T) { dropsWhatIsStaged(t, s) })
	t.Run("lets a source be named by its own account only", func(t *testing.T) { bindsOperators(t, s) })
	t.Run("lets nobody claim a seal", func(t *testing.T) { dropsForgedStatus(t, s) })
}

// create refuses unknown fields. The definitions are there already.
func (s server) create(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range objects {
		err := s.client.Create(t.Context(), o.DeepCopy(), client.FieldValidation("Strict"))
		if err != nil && (o.GetKind() != "CustomResourceDefinition" || !apierrors.IsAlreadyExists(err)) {
			t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

func (s server) apply(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range objects {
		applied := client.ApplyConfigurationFromUnstructured(o.DeepCopy())
		if err := s.client.Apply(t.Context(), applied, client.FieldOwner("test"), client.ForceOwnership); err != nil {
			t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// awaitPolicies returns once the API server enforces every policy that was made before: it reads new ones now and then, all of
// them at once, and in the order in which they were made.
func (s server) awaitPolicies(t *testing.T) {
	t.Helper()
	const name, says = "last-of-all", "policies are in force"
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				ResourceNames: []string{name},
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "false", Message: says}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	if err := errors.Join(s.client.Create(t.Context(), policy), s.client.Create(t.Context(), binding)); err != nil {
		t.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		asked := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: name}}
		err := s.client.Create(ctx, asked, client.DryRunAll)
		if err != nil && !strings.Contains(err.Error(), says) {
			return false, err
		}
		return err != nil, nil
	})
	if err != nil {
		t.Fatalf("the policies are not enforced: %v", err)
	}
}

func admitsPods(t *testing.T, s server) {
	var deployments appsv1.DeploymentList
	if err := s.client.List(t.Context(), &deployments); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range deployments.Items {
		names = append(names, d.Namespace+"/"+d.Name)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, GenerateName: d.Name}, Spec: d.Spec.Template.Spec}
		pod.Spec.PriorityClassName = "" // the scheduler's classes are not part of a bare API server
		// The stricter of the two namespaces, for all.
		if err := s.client.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
	slices.Sort(names)
	want := []string{
		"ugallu-system-privileged/ugallu-forensics-snapshot",
		"ugallu-system/ugallu-attestor", "ugallu-system/ugallu-forensics", "ugallu-system/ugallu-webhook",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func limitsAgent(t *testing.T, s server) {
	var set appsv1.DaemonSet
	name := client.ObjectKey{Namespace: v1alpha1.NamespacePrivileged, Name: "ugallu-forensics-nodeagent"}
	if err := s.client.Get(t.Context(), name, &set); err != nil {
		t.Fatal(err)
	}
	spec := set.Spec.Template.Spec
	got := spec.Containers[0].SecurityContext
	want := &corev1.Capabilities{
		Drop: []corev1.Capability{"ALL"},
		Add:  []corev1.Capability{"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_CHROOT", "SYS_NICE", "DAC_READ_SEARCH", "FOWNER"},
	}
	if diff := cmp.Diff(want, got.Capabilities); diff != "" {
		t.Error(diff)
	}
	if got.Privileged != nil && *got.Privileged || *got.AllowPrivilegeEscalation || !*got.ReadOnlyRootFilesystem || spec.HostNetwork || !spec.HostPID {
		t.Errorf("security context %+v", got)
	}
	profile := spec.SecurityContext.AppArmorProfile
	if profile == nil || profile.Type != corev1.AppArmorProfileTypeUnconfined {
		t.Errorf("AppArmor profile %+v: a runtime's own denies mounts, pins and to read other processes", profile)
	}
}

type question struct {
	account, verb, group, resource, sub, namespace, name string
	allowed                                              bool
}

func questions() []question {
	const ours = "security.ugallu.io"
	attestor, webhook, responder := system+"ugallu-attestor", system+"ugallu-webhook", system+"ugallu-responder"
	readback := privileged + "ugallu-forensics-snapshot"
	return []question{
		{forensics, "create", ours, "incidents", "", "", "", true},
		{forensics, "create", ours, "securityevents", "", "", "", true},
		{forensics, "patch", "", "pods", "", "sandbox", "victim", true},
		{forensics, "create", "networking.k8s.io", "networkpolicies", "", "sandbox", "", true},
		{forensics, "get", "", "secrets", "", "ugallu-system", "ugallu-acknowledgement-key", true},
		{forensics, "update", "coordination.k8s.io", "leases", "", "ugallu-system", "ugallu-config-incident-trigger", true},
		{forensics, "get", "", "configmaps", "", "ugallu-system", "ugallu-trusted-root", true},
		{forensics, "get", "", "secrets", "", "ugallu-system", "ugallu-transit-token", false},
		{forensics, "get", "", "secrets", "", "sandbox", "any", false},
		{forensics, "watch", "apiextensions.k8s.io", "customresourcedefinitions", "", "", "", true},
		{forensics, "patch", "apiextensions.k8s.io", "customresourcedefinitions", "", "", "ciliumnetworkpolicies.cilium.io", false},
		{forensics, "list", "cilium.io", "ciliumclusterwidenetworkpolicies", "", "", "", true},
		{forensics, "create", "cilium.io", "ciliumclusterwidenetworkpolicies", "", "", "", false},
		{forensics, "list", "policy.networking.k8s.io", "clusternetworkpolicies", "", "", "", true},
		{forensics, "get", "", "namespaces", "", "", "sandbox", true},
		{forensics, "list", "", "namespaces", "", "", "", false},
		{forensics, "create", "", "pods", "exec", "sandbox", "victim", false},
		{forensics, "get", "", "serviceaccounts", "", "sandbox", "default", true},
		{forensics, "list", "", "serviceaccounts", "", "sandbox", "", false},
		{forensics, "create", "", "serviceaccounts", "token", "sandbox", "default", false},
		{forensics, "get", "", "nodes", "", "", "worker", true},
		{forensics, "list", "", "nodes", "", "", "", false},
		{forensics, "list", "", "events", "", "sandbox", "", true},
		{forensics, "watch", "", "events", "", "sandbox", "", false},
		{forensics, "get", "apps", "deployments", "", "sandbox", "victim", true},
		{forensics, "list", "apps", "deployments", "", "sandbox", "", false},
		{forensics, "patch", "apps", "deployments", "", "sandbox", "victim", false},
		{forensics, "get", "batch", "cronjobs", "", "sandbox", "victim", true},
		{forensics, "get", "", "configmaps", "", "sandbox", "any", false},
		{forensics, "list", "rbac.authorization.k8s.io", "rolebindings", "", "", "", true},
		{forensics, "list", "rbac.authorization.k8s.io", "clusterrolebindings", "", "", "", true},
		{forensics, "get", "rbac.authorization.k8s.io", "clusterroles", "", "", "view", true},
		{forensics, "list", "rbac.authorization.k8s.io", "clusterroles", "", "", "", false},
		{forensics, "create", "rbac.authorization.k8s.io", "rolebindings", "", "sandbox", "", false},
		{forensics, "delete", ours, "securityevents", "", "", "", false},
		{forensics, "patch", ours, "securityevents", "", "", "", false},
		{forensics, "create", ours, "attestationbundles", "", "", "", false},

		{attestor, "create", ours, "attestationbundles", "", "", "", true},
		{attestor, "patch", ours, "securityevents", "status", "", "", true},
		{attestor, "create", ours, "securityevents", "", "", "", false},
		{attestor, "patch", ours, "eventresponses", "status", "", "", false},
		{attestor, "get", "", "pods", "", "sandbox", "victim", false},
		{attestor, "get", "", "secrets", "", "ugallu-system", "ugallu-acknowledgement-key", false},

		{readback, "patch", ours, "attestationbundles", "status", "", "", true},
		{readback, "create", ours, "attestationbundles", "", "", "", false},
		{readback, "patch", ours, "securityevents", "status", "", "", false},
		{readback, "get", "", "secrets", "", "ugallu-system-privileged", "any", false},

		{webhook, "get", "", "pods", "", "sandbox", "victim", true},
		{webhook, "get", ours, "forensicsconfigs", "", "", "default", true},
		{webhook, "update", "", "secrets", "", "ugallu-system", "ugallu-webhook-certificate", true},
		{webhook, "list", "", "secrets", "", "ugallu-system", "", false},
		{webhook, "get", "", "secrets", "", "ugallu-system", "ugallu-transit-token", false},
		{webhook, "update", "", "secrets", "", "ugallu-system", "ugallu-acknowledgement-key", false},
		{webhook, "patch", "", "pods", "", "sandbox", "victim", false},
		{webhook, "update", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "", "another", false},

		{agent, "list", ours, "eventresponses", "", "", "", true},
		{agent, "watch", ours, "incidents", "", "", "", true},
		{agent, "patch", ours, "eventresponses", "status", "", "", true},
		{agent, "get", ours, "wormconfigs", "", "ugallu-system", "default", true},
		{agent, "get", "", "pods", "", "sandbox", "victim", true},
		{agent, "get", ours, "forensicsconfigs", "", "", "default", true},
		{agent, "get", ours, "forensicsconfigs", "", "", "another", false},
		{agent, "list", ours, "forensicsconfigs", "", "", "", false},
		{agent, "list", "", "pods", "", "", "", false},
		{agent, "patch", "", "pods", "", "sandbox", "victim", false},
		{agent, "create", ours, "eventresponses", "", "", "", false},
		{agent, "patch", ours, "incidents", "status", "", "", false},
		{agent, "get", "", "secrets", "", "ugallu-system-privileged", "ugallu-forensics-nodeagent-worm", false},

		{responder, "patch", ours, "securityevents", "", "", "", true},
		{responder, "get", ours, "incidents", "", "", "", true},
		{responder, "patch", ours, "securityevents", "status", "", "", false},
		{responder, "create", ours, "securityevents", "", "", "", false},
		{responder, "get", "", "pods", "", "sandbox", "victim", false},
	}
}

func authorizes(t *testing.T, s server) {
	for _, q := range questions() {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: q.account,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: q.verb, Group: q.group, Resource: q.resource, Subresource: q.sub, Namespace: q.namespace, Name: q.name,
			},
		}}
		if err := s.client.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed != q.allowed {
			t.Errorf("%+v: allowed %t", q, review.Status.Allowed)
		}
	}
}

func bindsAgents(t *testing.T, s server) {
	tests := map[string]struct {
		ordered string // node, empty is the controller
		token   []string
		allowed bool
	}{
		"own node":             {"worker", []string{"worker"}, true},
		"another node":         {"worker", []string{"other"}, false},
		"the controller":       {"", []string{"worker"}, false},
		"a token of no node":   {"worker", nil, false},
		"controller, no node":  {"", nil, false},
		"a node of no letters": {"", []string{""}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := responseSpec("PodFreeze", "podFreeze")
			if tt.ordered == "" {
				spec = with(spec, "nodeName", nil)
			}
			response := object("EventResponse", "x", spec)
			response.SetName("")
			response.SetGenerateName("er-")
			if err := s.writer(t, "EventResponse").Create(t.Context(), response); err != nil {
				t.Fatal(err)
			}
			config := rest.CopyConfig(s.config)
			config.Impersonate = rest.ImpersonationConfig{UserName: agent, Groups: []string{"system:authenticated"}}
			if tt.token != nil {
				config.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": tt.token}
			}
			patch := client.RawPatch(types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`))
			err := newClient(t, config).Status().Patch(t.Context(), response, patch)
			if tt.allowed != (err == nil) || err != nil && !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
				t.Errorf("allowed %t: %v", err == nil, err)
			}
		})
	}
}
