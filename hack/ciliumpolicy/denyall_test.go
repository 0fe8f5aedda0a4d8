package ciliumpolicy

import (
	"maps"
	"slices"
	"testing"

	"github.com/cilium/cilium/pkg/identity"
	ipcache "github.com/cilium/cilium/pkg/ipcache/types"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// allowances are policies that let traffic through to, or from, every pod of the namespace.
func allowances() map[string]string {
	spec := func(rules string) string {
		return `{"metadata":{"name":"allow","namespace":"sandbox"},"spec":{"endpointSelector":{},` + rules + `}}`
	}
	return map[string]string{
		"every entity": spec(`"ingress":[{"fromEntities":["all"]}],"egress":[{"toEntities":["all"]}]`),
		"one port of every entity": spec(`"ingress":[{"fromEntities":["all"],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}]}]}],
			"egress":[{"toEntities":["all"],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}]}]}]`),
		"each entity by name": spec(`"ingress":[{"fromEntities":["world","host","remote-node","kube-apiserver","cluster","health"]}],
			"egress":[{"toEntities":["world","host","remote-node","kube-apiserver","cluster","health"]}]`),
		"every endpoint": spec(`"ingress":[{"fromEndpoints":[{}]}],"egress":[{"toEndpoints":[{}]}]`),
		"every address":  spec(`"ingress":[{"fromCIDR":["0.0.0.0/0","::/0"]}],"egress":[{"toCIDR":["0.0.0.0/0","::/0"]}]`),
		"one address":    spec(`"ingress":[{"fromCIDR":["203.0.113.7/32"]}],"egress":[{"toCIDR":["203.0.113.7/32"]}]`),
		"in every namespace": `{"metadata":{"name":"allow"},"spec":{"endpointSelector":{},
			"ingress":[{"fromEntities":["all"]}],"egress":[{"toEntities":["all"]}]}}`,
		"without a default": `{"metadata":{"name":"allow"},"spec":{"endpointSelector":{},"enableDefaultDeny":{"ingress":false,"egress":false},
			"ingress":[{"fromEntities":["all"]}],"egress":[{"toEntities":["all"]}]}}`,
	}
}

func TestWithoutOurPolicyEverythingPasses(t *testing.T) {
	w := newWorld(t)
	if passes := w.allowed(); len(passes) != 2*len(w.peers) {
		t.Errorf("of %d peers only %v", len(w.peers), slices.Sorted(maps.Keys(passes)))
	}
}

func TestOurPolicyDeniesEveryPeerBothWays(t *testing.T) {
	w := newWorld(t)
	if err := w.apply(golden(t)); err != nil {
		t.Fatal(err)
	}
	for name := range w.allowed() {
		t.Errorf("%s: passes", name)
	}
	onlyDenies(t, w.entries())
	for _, bystander := range []string{"pod of the namespace", "pod of another namespace"} {
		flow := types.Flow{From: w.peers[bystander], To: w.peers["world"], Proto: 6, Dport: 443}
		if w.verdict(flow).Egress != types.DecisionAllowed {
			t.Errorf("%s: cut off as well", bystander)
		}
	}
}

func TestNoAllowanceOverridesOurPolicy(t *testing.T) {
	for name, allowance := range allowances() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := w.apply([]byte(allowance)); err != nil {
				t.Fatal(err)
			}
			if len(w.allowed()) == 0 {
				t.Fatal("the allowance allows nothing: it proves nothing")
			}
			if err := w.apply(golden(t)); err != nil {
				t.Fatal(err)
			}
			for name := range w.allowed() {
				t.Errorf("%s: passes", name)
			}
			onlyDenies(t, w.entries())
		})
	}
}

// onlyDenies is the same for peers that the test does not know: whatever identity Cilium gives to one, the kernel finds
// it under itself, its aggregate or 0, and nothing there but a denial of every protocol and port.
func onlyDenies(t *testing.T, entries map[policy.Key]policy.MapStateEntry) {
	t.Helper()
	for key, entry := range entries {
		if !entry.IsDeny() || entry.Precedence != types.MaxDenyPrecedence || key.Nexthdr != 0 || key.DestPort != 0 {
			t.Errorf("the kernel gets %v: %v", key, entry)
		}
	}
	for _, whole := range []identity.NumericIdentity{
		identity.IdentityUnknown, identity.ReservedIdentityAggregateCluster, identity.ReservedIdentityAggregateClusterMesh,
		identity.ReservedIdentityAggregateWorld, identity.ReservedIdentityAggregateRemoteNode,
	} {
		for _, key := range []policy.Key{policy.IngressKey().WithIdentity(whole), policy.EgressKey().WithIdentity(whole)} {
			if _, denied := entries[key]; !denied {
				t.Errorf("the kernel gets nothing for %v", key)
			}
		}
	}
}

// TestOnlyTheAdminTierOverridesOurPolicy pins what no CiliumNetworkPolicy can help: who may write a ClusterNetworkPolicy
// decides before every other policy.
func TestOnlyTheAdminTierOverridesOurPolicy(t *testing.T) {
	for tier, overrides := range map[types.Tier]bool{types.Admin: true, types.Normal: false, types.Baseline: false} {
		w := newWorld(t)
		if err := w.apply(golden(t)); err != nil {
			t.Fatal(err)
		}
		// The form that Cilium gives to a ClusterNetworkPolicy that accepts everything.
		accept := func(ingress bool) *types.PolicyEntry {
			return &types.PolicyEntry{
				Tier: tier, Verdict: types.Allow, Ingress: ingress, L3: types.WildcardSelectors,
				Subject: types.NewLabelSelectorFromLabels(w.victim.LabelArray...),
			}
		}
		w.replace(ipcache.ResourceKindKCNP, &metav1.ObjectMeta{Name: "accept"}, types.PolicyEntries{accept(true), accept(false)})
		want := 0
		if overrides {
			want = 2 * len(w.peers)
		}
		if passes := w.allowed(); len(passes) != want {
			t.Errorf("tier %v: %v pass", tier, slices.Sorted(maps.Keys(passes)))
		}
	}
}

// TestEmptyListsDenyNothing is why the policy has deny rules: what denies in a Kubernetes NetworkPolicy is refused here.
func TestEmptyListsDenyNothing(t *testing.T) {
	w := newWorld(t)
	err := w.apply([]byte(`{"metadata":{"name":"empty","namespace":"sandbox"},"spec":{
		"endpointSelector":{"matchExpressions":[{"key":"ugallu.io/frozen","operator":"Exists"}]},"ingress":[],"egress":[]}}`))
	if err == nil {
		t.Error("accepted")
	}
	if passes := w.allowed(); len(passes) != 2*len(w.peers) {
		t.Errorf("only %v pass", slices.Sorted(maps.Keys(passes)))
	}
}

// TestOneEmptyRuleYieldsToAnAllowance is why it is not a policy that allows nothing, which denies only by default.
func TestOneEmptyRuleYieldsToAnAllowance(t *testing.T) {
	w := newWorld(t)
	err := w.apply([]byte(`{"metadata":{"name":"default","namespace":"sandbox"},"spec":{
		"endpointSelector":{"matchExpressions":[{"key":"ugallu.io/frozen","operator":"Exists"}]},"ingress":[{}],"egress":[{}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if passes := w.allowed(); len(passes) != 0 {
		t.Errorf("%v pass", slices.Sorted(maps.Keys(passes)))
	}
	if err := w.apply([]byte(allowances()["every entity"])); err != nil {
		t.Fatal(err)
	}
	if passes := w.allowed(); len(passes) != 2*len(w.peers) {
		t.Errorf("only %v pass", slices.Sorted(maps.Keys(passes)))
	}
}
