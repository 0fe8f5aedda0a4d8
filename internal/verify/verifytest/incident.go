package verifytest

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Names of what every incident is made of.
const (
	Bucket       = "evidence"
	TriggerUID   = "b1a1c0de-0000-4000-8000-000000000001"
	IncidentUID  = "b1a1c0de-0000-4000-8000-000000000002"
	PodUID       = "b1a1c0de-0000-4000-8000-000000000003"
	RootArtifact = "web/rootfs.tar.zst"

	agent    = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-nodeagent"
	readBack = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-snapshot"
	node     = "node-1"
)

// Change alters what is said before it is signed; each may be nil.
type Change struct {
	// Signer of the statement about the object of this name; of a custody record custody-1 and custody-2.
	Signer func(name string) Signature
	// Countersigner of the same statement; nothing is countersigned where it is nil, or gives nobody.
	Countersigner func(name string) Signature
	Event         func(*v1alpha1.SecurityEvent)
	Response      func(*v1alpha1.EventResponse)
	Predicate     func(*evidence.EventResponsePredicate)
	Manifest      func(*evidence.Manifest)
	Record        func(*evidence.Custody)
	Incident      func(*evidence.IncidentPredicate)
	// Archive to be stored in place of the usual one.
	Archive *Archive
	// Failed has the capture fail before anything is ordered: of the records there is the first alone.
	Failed bool
	// MoreArchives is how many further artifacts hold the same archive, each in objects of its own.
	MoreArchives int
}

// Incident is a whole incident in a store: sealed, released, with a custody record of each kind.
type Incident struct {
	*Store
	// Name of the incident, and the prefix of its keys.
	Name, Prefix string
	// ManifestKey, and the keys of the records.
	ManifestKey, Captured, Released string
	Archive                         Archive
	Authority                       *Authority

	t        testing.TB
	put      Put
	change   Change
	begun    time.Time
	lock     worm.Lock
	listed   []evidence.CustodyStatement
	objects  []evidence.CustodyObject
	payloads map[types.UID]string
}

// NewIncident makes an incident of its own trigger.
func NewIncident(t testing.TB, authority *Authority, change Change) *Incident {
	t.Helper()
	return NewIncidentOf(t, authority, TriggerUID, change)
}

// NewIncidentOf makes the incident that a trigger with this uid opens.
func NewIncidentOf(t testing.TB, authority *Authority, trigger string, change Change) *Incident {
	t.Helper()
	store := NewStore(t)
	i := newIncident(t, authority, store.Put, trigger, change)
	i.Store = store
	return i
}

// Put stores an object and returns what was stored.
type Put func(key string, data []byte, lock worm.Lock) worm.Object

// NewIncidentIn makes an incident in a store of the caller's; its own Store is nil.
func NewIncidentIn(t testing.TB, authority *Authority, put Put) *Incident {
	t.Helper()
	return newIncident(t, authority, put, TriggerUID, Change{})
}

func newIncident(t testing.TB, authority *Authority, put Put, trigger string, change Change) *Incident {
	t.Helper()
	name := v1alpha1.IncidentName(trigger)
	i := &Incident{
		Name: name, Prefix: v1alpha1.EvidencePrefix(name), Archive: authority.archive, Authority: authority,
		t: t, put: put, change: change, begun: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		lock:     worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Date(2036, 3, 1, 0, 0, 0, 0, time.UTC)},
		payloads: map[types.UID]string{},
	}
	if change.Archive != nil {
		i.Archive = *change.Archive
	}
	i.event(i.trigger(trigger))
	if change.Failed {
		i.event(i.failed(trigger))
		i.Captured = i.record(evidence.CustodyCaptured, nil).Key
		return i
	}
	freeze := i.freeze()
	i.response(freeze, nil)
	snapshot := i.snapshot()
	i.response(snapshot, freeze)
	upload := i.upload(freeze, snapshot)
	i.response(upload, snapshot)
	i.event(i.completed(trigger, upload))
	captured := i.record(evidence.CustodyCaptured, nil)
	i.Captured = captured.Key
	i.response(i.unfreeze(), upload)
	i.Released = i.record(evidence.CustodyReleased, &captured).Key
	return i
}

func (i *Incident) at(seconds int) *metav1.MicroTime {
	at := metav1.NewMicroTime(i.begun.Add(time.Duration(seconds) * time.Second))
	return &at
}

func (i *Incident) pod() evidence.Pod {
	return evidence.Pod{Namespace: "shop", Name: "web", UID: PodUID, Node: node}
}
