package attestor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

const account = "system:serviceaccount:ugallu-system:ugallu-attestor"

// errCrash stands for the end of the process at an effect.
var errCrash = errors.New("crash")

func newScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// world is a cluster, a log, a signer and a store, with the attestor's reconcilers driven by hand.
type world struct {
	t         testing.TB
	base      client.WithWatch
	store     *worm.Memory
	notary    *notary
	clock     *testclock.FakePassiveClock
	effects   *effects
	announcer *attestor.Announcer
	stages    *attestor.Reconciler
	// modes that the configuration lists.
	modes []v1alpha1.SigningMode
	// starts of the process; what is trusted changes with each.
	starts int
}

func newWorld(t testing.TB, config *rest.Config) *world {
	t.Helper()
	base, err := client.NewWithWatch(config, client.Options{Scheme: newScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, base: base, store: worm.NewMemory(), notary: &notary{logged: map[string]int64{}},
		clock: testclock.NewFakePassiveClock(time.Now()), effects: &effects{at: -1},
		modes: []v1alpha1.SigningMode{v1alpha1.SigningOpenBaoTransit},
	}
	w.ensureConfig()
	w.restart()
	return w
}

// restart replaces the reconcilers: nothing but the API server, the log and the store remembers.
func (w *world) restart() {
	w.starts++
	c := interceptor.NewClient(w.base, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return w.effects.do(func() error { return c.Create(ctx, object, options...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			return w.effects.do(func() error { return c.SubResource(sub).Patch(ctx, object, patch, options...) })
		},
	})
	w.announcer = &attestor.Announcer{Client: c}
	w.stages = &attestor.Reconciler{
		Client: c, Live: w.base, Clock: w.clock, Account: account,
		Modes: func(context.Context) ([]v1alpha1.SigningMode, error) { return w.modes, nil },
		Notary: func(_ context.Context, mode v1alpha1.SigningMode) (attestor.Notary, error) {
			return &crashing{w.notary, mode, w.effects}, nil
		},
		Store: func(context.Context, string) (worm.Store, error) { return &crashingStore{w.store, w.effects}, nil },
		Trust: func(context.Context) (map[string]string, error) { return w.trust(), nil },
	}
}

// effects counts what leaves a trace outside the process and ends the process at one of them.
type effects struct {
	count int
	// at is the effect to crash at; after it has happened, or instead of it.
	at    int
	after bool
}

func (e *effects) do(effect func() error) error {
	here := e.count == e.at
	e.count++
	if here && !e.after {
		return errCrash
	}
	if err := effect(); err != nil {
		return err
	}
	if here {
		return errCrash
	}
	return nil
}

// notary is a Notary inside the process. Like the real one it never signs twice alike and never logs a signature twice.
type notary struct {
	mutex  sync.Mutex
	signed int
	logged map[string]int64
	fail   error
	// published is what the log answers.
	published error
	// distrusted is the number of the last signature that is not trusted any more.
	distrusted int
	// forgetEntries: the log is not the one that is trusted.
	forgetEntries bool
	// expired is how many signatures in a row come too late for their certificate.
	expired int
	// unable is why no signature comes of a mode.
	unable map[v1alpha1.SigningMode]error
}

// certified is the key id of signatures in the mode fulcio-keyless.
const certified = "certified"

type forged struct {
	Envelope attest.Envelope `json:"dsseEnvelope"`
	Index    int64           `json:"index"`
}

func (n *notary) sign(mode v1alpha1.SigningMode, statement []byte) ([]byte, string, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if err := errors.Join(n.fail, n.unable[mode]); err != nil {
		return nil, "", err
	}
	n.signed++
	id := "id"
	if mode == v1alpha1.SigningFulcioKeyless {
		id = certified
	}
	envelope, err := json.Marshal(attest.Envelope{
		PayloadType: "application/vnd.in-toto+json", Payload: statement,
		Signatures: []attest.EnvelopeSignature{{KeyID: id, Sig: fmt.Append(nil, n.signed)}},
	})
	return envelope, "key", err
}

func (n *notary) Publish(_ context.Context, envelope []byte) ([]byte, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.fail != nil {
		return nil, n.fail
	}
	if n.published != nil {
		return nil, n.published
	}
	if n.expired > 0 {
		n.expired--
		return nil, attest.ErrExpired
	}
	parsed, err := attest.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	signature := string(parsed.Signatures[0].Sig)
	if n.former(signature) {
		return nil, attest.ErrUnknownKey
	}
	if _, known := n.logged[signature]; known {
		return nil, attest.ErrDuplicate
	}
	index := int64(len(n.logged))
	n.logged[signature] = index
	return json.Marshal(forged{Envelope: parsed, Index: index})
}

// former is whether a signature is by a key that is not trusted any more.
func (n *notary) former(signature string) bool {
	number, err := strconv.Atoi(signature)
	return err == nil && number <= n.distrusted
}

func (n *notary) Verify(bundle []byte) (attest.Verified, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if n.forgetEntries {
		return attest.Verified{}, errors.New("not in a log that is trusted")
	}
	var parsed forged
	if err := json.Unmarshal(bundle, &parsed); err != nil {
		return attest.Verified{}, err
	}
	if len(parsed.Envelope.Signatures) != 1 {
		return attest.Verified{}, errors.New("not a bundle")
	}
	signature := string(parsed.Envelope.Signatures[0].Sig)
	if n.former(signature) {
		return attest.Verified{}, attest.ErrUnknownKey
	}
	if index, known := n.logged[signature]; !known || index != parsed.Index {
		return attest.Verified{}, errors.New("not in the log")
	}
	verified := attest.Verified{
		Payload: parsed.Envelope.Payload, Signer: "key", LogIndex: parsed.Index, Timestamp: time.Unix(1700000000, 0).UTC(),
	}
	if parsed.Envelope.Signatures[0].KeyID == certified {
		verified.Signer, verified.Issuer = "identity", "https://issuer"
	}
	return verified, nil
}

type crashing struct {
	*notary
	mode    v1alpha1.SigningMode
	effects *effects
}

func (c *crashing) Sign(_ context.Context, statement []byte) ([]byte, string, error) {
	return c.sign(c.mode, statement)
}

func (c *crashing) Publish(ctx context.Context, envelope []byte) (bundle []byte, err error) {
	err = c.effects.do(func() error {
		bundle, err = c.notary.Publish(ctx, envelope)
		return err
	})
	return bundle, err
}

type crashingStore struct {
	*worm.Memory
	effects *effects
}

func (c *crashingStore) Put(ctx context.Context, key string, body io.Reader, lock worm.Lock) (object worm.Object, err error) {
	err = c.effects.do(func() error {
		object, err = c.Memory.Put(ctx, key, body, lock)
		return err
	})
	return object, err
}

// run drives an object's bundle until it is sealed and published, restarting after every crash.
func (w *world) run(object client.Object) *v1alpha1.AttestationBundle {
	w.t.Helper()
	for range 20 {
		if w.step(object) {
			return w.bundle(object)
		}
	}
	w.t.Fatalf("bundle of %s does not settle: %+v", object.GetName(), w.bundle(object).Status)
	return nil
}

// step is one reconcile of everything; true when there is nothing left to do.
func (w *world) step(object client.Object) bool {
	w.t.Helper()
	err, result := w.announce(object), ctrl.Result{}
	if err == nil {
		result, err = w.drive(v1alpha1.BundleName(string(object.GetUID())))
	}
	if errors.Is(err, errCrash) {
		w.restart()
		return false
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return result.RequeueAfter == 0
}

// drive reconciles the first bundle of a statement, what countersigns it, and the first one again, as the watches do.
func (w *world) drive(name string) (ctrl.Result, error) {
	request := ctrl.Request{NamespacedName: client.ObjectKey{Name: name}}
	result, err := w.stages.Reconcile(w.t.Context(), request)
	beside := ctrl.Request{NamespacedName: client.ObjectKey{Name: w.beside(name)}}
	if err != nil || result.RequeueAfter == 0 || w.base.Get(w.t.Context(), beside.NamespacedName, &v1alpha1.AttestationBundle{}) != nil {
		return result, err
	}
	if result, err = w.stages.Reconcile(w.t.Context(), beside); err != nil || result.RequeueAfter > 0 {
		return result, err
	}
	return w.stages.Reconcile(w.t.Context(), request)
}

// beside is the name of the bundle that countersigns another in the mode fulcio-keyless.
func (w *world) beside(name string) string {
	return v1alpha1.CountersignatureName(name, v1alpha1.SigningFulcioKeyless)
}

func (w *world) announce(object client.Object) (err error) {
	request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(object)}
	if _, ok := object.(*v1alpha1.SecurityEvent); ok {
		_, err = w.announcer.ReconcileEvent(w.t.Context(), request)
	} else {
		_, err = w.announcer.ReconcileResponse(w.t.Context(), request)
	}
	return err
}

func (w *world) bundle(object client.Object) *v1alpha1.AttestationBundle {
	w.t.Helper()
	var bundle v1alpha1.AttestationBundle
	w.get(client.ObjectKey{Name: v1alpha1.BundleName(string(object.GetUID()))}, &bundle)
	return &bundle
}

func (w *world) get(key client.ObjectKey, object client.Object) {
	w.t.Helper()
	if err := w.base.Get(w.t.Context(), key, object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(object client.Object) {
	w.t.Helper()
	if err := w.base.Create(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ensureConfig() {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NamespaceSystem}}
	config := &v1alpha1.WORMConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName},
		Spec: v1alpha1.WORMConfigSpec{
			Endpoint: "https://worm.example", Bucket: "evidence", ObjectLock: v1alpha1.LockGovernance, RetainDays: 30,
		},
	}
	for _, object := range []client.Object{namespace, config} {
		if err := w.base.Create(w.t.Context(), object); client.IgnoreAlreadyExists(err) != nil {
			w.t.Fatal(err)
		}
	}
}
