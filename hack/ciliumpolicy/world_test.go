package ciliumpolicy

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/identity/identitymanager"
	ipcache "github.com/cilium/cilium/pkg/ipcache/types"
	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	k8sutils "github.com/cilium/cilium/pkg/k8s/utils"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/labelsfilter"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/types"
	policyutils "github.com/cilium/cilium/pkg/policy/utils"
	testidentity "github.com/cilium/cilium/pkg/testutils/identity"
	testpolicy "github.com/cilium/cilium/pkg/testutils/policy"
	"github.com/cilium/cilium/pkg/u8proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	namespace = "sandbox"
	cluster   = "default"
)

// golden is what the controller applies: the test of controller/internal/policy keeps it in step with the code.
func golden(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "controller", "internal", "policy", "testdata", "deny-all-cilium.json"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// world is the policy half of one Cilium agent, which knows every kind of peer.
type world struct {
	t          *testing.T
	logger     *slog.Logger
	repository *policy.Repository
	identities identitymanager.IDManager
	victim     *identity.Identity
	peers      map[string]*identity.Identity
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, logger: slog.New(slog.DiscardHandler)}
	if err := labelsfilter.ParseLabelPrefixCfg(w.logger, nil, nil, ""); err != nil {
		t.Fatal(err)
	}
	w.victim = w.pod(1000, namespace, map[string]string{"app": "victim", "ugallu.io/frozen": "3f0c9d1e-0000-4000-8000-000000000001"})
	w.peers = map[string]*identity.Identity{
		"pod of the namespace":       w.pod(1001, namespace, map[string]string{"app": "neighbour"}),
		"pod of another namespace":   w.pod(1002, "elsewhere", map[string]string{"app": "neighbour"}),
		"another frozen pod":         w.pod(1003, namespace, map[string]string{"ugallu.io/frozen": "3f0c9d1e-0000-4000-8000-000000000002"}),
		"pod of another cluster":     w.pod(2<<16|1004, namespace, map[string]string{"app": "neighbour"}),
		"address outside":            w.local(1, identity.IdentityScopeLocal, "cidr:203.0.113.7/32", "reserved:world"),
		"API server outside":         w.local(2, identity.IdentityScopeLocal, "cidr:203.0.113.8/32", "reserved:kube-apiserver", "reserved:world"),
		"node with labels":           w.local(1, identity.IdentityScopeRemoteNode, "node:zone=a", "reserved:remote-node"),
		"host that runs API servers": identity.NewIdentity(identity.ReservedIdentityHost, parse("reserved:host", "reserved:kube-apiserver")),
	}
	for number, lbls := range identity.ListReservedIdentities() {
		if number != identity.ReservedIdentityHost {
			w.peers[number.String()] = identity.NewIdentityFromLabelArray(number, lbls)
		}
	}
	known := identity.IdentityMap{w.victim.ID: w.victim.LabelArray}
	for _, peer := range w.peers {
		known[peer.ID] = peer.LabelArray
	}
	w.identities = identitymanager.NewIDManager(w.logger)
	w.repository = policy.NewPolicyRepository(w.logger, known, nil, nil, w.identities, testpolicy.NewPolicyMetricsNoop())
	w.repository.GetSelectorCache().SetLocalIdentityNotifier(testidentity.NewDummyIdentityNotifier())
	w.repository.GetSubjectSelectorCache().UpdateIdentities(known, nil, &sync.WaitGroup{})
	return w
}

// pod is the identity that Cilium gives to a pod: only labels that its filter lets through are part of it.
func (w *world) pod(number identity.NumericIdentity, namespace string, podLabels map[string]string) *identity.Identity {
	of := &metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"kubernetes.io/metadata.name": namespace}}
	identityLabels, _ := labelsfilter.Filter(labels.Map2Labels(k8sutils.SanitizePodLabels(podLabels, of, "default", cluster), labels.LabelSourceK8s))
	return identity.NewIdentity(number, identityLabels)
}

func (w *world) local(number, scope identity.NumericIdentity, lbls ...string) *identity.Identity {
	return identity.NewIdentity(scope|number, parse(lbls...))
}

func parse(lbls ...string) labels.Labels { return labels.NewLabelsFromModel(lbls) }

// decode is strict: a field that Cilium does not know would say nothing.
func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// apply does what the agent does with a CiliumNetworkPolicy, or with a CiliumClusterwideNetworkPolicy, which has no namespace.
func (w *world) apply(text []byte) error {
	w.t.Helper()
	var object ciliumv2.CiliumNetworkPolicy
	decode(w.t, text, &object)
	rules, err := object.Parse(w.logger, cluster)
	if err != nil {
		return err
	}
	w.replace(ipcache.ResourceKindCNP, &object, policyutils.RulesToPolicyEntries(rules))
	return nil
}

func (w *world) replace(kind ipcache.ResourceKind, object metav1.Object, entries types.PolicyEntries) {
	w.repository.ReplaceByResource(entries, ipcache.NewResourceID(kind, object.GetNamespace(), object.GetName()))
}

// port of a flow. Where Cilium's key needs a port and the protocol has none, it is the type of the message.
type port struct {
	protocol u8proto.U8proto
	number   uint16
}

func ports() []port {
	return []port{{u8proto.TCP, 443}, {u8proto.TCP, 6443}, {u8proto.UDP, 53}, {u8proto.SCTP, 9}, {u8proto.ICMP, 8}, {u8proto.ICMPv6, 128}}
}

// allowed lists what Cilium lets through between the victim and its peers, as "in from" and "out to".
func (w *world) allowed() map[string]bool {
	w.t.Helper()
	passes := map[string]bool{}
	for name, peer := range w.peers {
		for _, port := range ports() {
			in := w.verdict(types.Flow{From: peer, To: w.victim, Proto: port.protocol, Dport: port.number}).Ingress
			out := w.verdict(types.Flow{From: w.victim, To: peer, Proto: port.protocol, Dport: port.number}).Egress
			passes["in from "+name] = passes["in from "+name] || in != types.DecisionDenied
			passes["out to "+name] = passes["out to "+name] || out != types.DecisionDenied
		}
	}
	for flow, passing := range passes {
		if !passing {
			delete(passes, flow)
		}
	}
	return passes
}

// entries is the victim's policy map as the kernel gets it.
func (w *world) entries() map[policy.Key]policy.MapStateEntry {
	w.t.Helper()
	selected, _, err := w.repository.ComputeSelectorPolicy(w.victim)
	if err != nil {
		w.t.Fatal(err)
	}
	distilled := selected.DistillPolicy(w.logger, endpoint{}, nil)
	entries := maps.Collect(distilled.Entries())
	if err := distilled.Ready(); err != nil {
		w.t.Fatal(err)
	}
	distilled.Detach(w.logger)
	selected.Supersede()
	return entries
}

// endpoint is the victim's as far as its policy asks for one: a pod without named ports.
type endpoint struct{}

func (endpoint) GetID() uint64                                      { return 1 }
func (endpoint) GetIngressNamedPort(string, u8proto.U8proto) uint16 { return 0 }
func (endpoint) PolicyDebug(string, ...any)                         {}
func (endpoint) IsHost() bool                                       { return false }
func (endpoint) PreviousMapStateSizes() policy.MapStateSizes        { return policy.MapStateSizes{} }

func (endpoint) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool {
	done := make(chan bool)
	close(done)
	return done
}

func (w *world) verdict(flow types.Flow) types.LookupResult {
	w.t.Helper()
	verdict, _, _, err := policy.LookupFlow(w.logger, w.repository, w.identities, flow)
	if err != nil {
		w.t.Fatal(err)
	}
	return verdict
}
