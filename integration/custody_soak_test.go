//go:build integration && soak

package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/integration/internal/byhand"
)

const (
	attestorName = "ugallu-attestor"
	bundleStatus = "attestationbundles/status"
	// settled is how long an answer that a server gave before it went may take until it is recorded.
	settled = 3 * time.Second
	// repeatTime bounds the first try after an outage: the attestor waits 30 s at most between two.
	repeatTime = 90 * time.Second
)

// absence is a server that is away, and what a bundle cannot be without it.
type absence struct {
	server string
	mode   byhand.Mode
	// condition is not met by any bundle while the server is away; reason is what those that wait for it say.
	condition, reason string
}

// TestCustodyServersAway stops one server after the other for a minute, each in the middle of a capture. Nothing is marked
// that the server is needed for; in the end all is sealed once, and verifies.
func TestCustodyServersAway(t *testing.T) {
	absences := []absence{
		{"rekor", byhand.Key, v1alpha1.ConditionLogged, v1alpha1.ReasonLogUnavailable},
		{"tsa", byhand.Key, v1alpha1.ConditionLogged, v1alpha1.ReasonLogUnavailable},
		{"transit", byhand.Key, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable},
		{"fulcio", byhand.Keyless, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable},
		{storeService, byhand.Key, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable},
	}
	for _, away := range absences {
		t.Run(away.server, away.endure)
	}
}

func (a absence) endure(t *testing.T) {
	if a.mode == byhand.Keyless {
		keyless(t)
	}
	s := suite.beginCapture(t, 400_000_000)
	back := suite.stop(t, a.server)
	gone := time.Now()
	if snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]; snapshot.Status.CompletedAt != nil {
		t.Fatal("the capture ended before the server was stopped")
	}
	time.Sleep(settled)
	ended := suite.watchMarks(t, a.condition)
	waiting := suite.addEvent(t)
	suite.awaitReason(t, waiting, a.condition, a.reason)
	if a.server != storeService {
		suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
		if err := suite.release(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Until(gone.Add(outage)))
	for _, early := range ended() {
		t.Errorf("while %s was away: %s", a.server, early)
	}
	demandUnattested(t, s, waiting)
	back()
	checkAllSealed(t, s, a.mode, waiting)
}

// beginCapture stages an incident and returns in the middle of its capture. Random bytes do not compress: with enough of
// them it takes longer than a server takes to end.
func (c *cluster) beginCapture(t *testing.T, ballast int) *scene {
	t.Helper()
	s := c.stage(t, idle("only"))
	c.strikeAfter(t, s)
	c.exec(t, s, victimName, "only", "sh", "-c", fmt.Sprintf("head -c %d /dev/urandom > /ballast", ballast))
	c.detect(t, s)
	c.awaitResponse(t, s, v1alpha1.StepSnapshot, started)
	return s
}

// addEvent creates an event that opens no incident; its bundle is made all the same.
func (c *cluster) addEvent(t *testing.T) v1alpha1.SecurityEvent {
	t.Helper()
	event := harmless("soak-" + strings.ToLower(rand.Text()[:12]))
	if err := c.Create(t.Context(), &event); err != nil {
		t.Fatalf("create an event: %v", err)
	}
	return event
}

// awaitReason waits until the event's bundle says why it does not meet a condition.
func (c *cluster) awaitReason(t *testing.T, event v1alpha1.SecurityEvent, condition, reason string) {
	t.Helper()
	err := eventually(t.Context(), captureTime, func(ctx context.Context) (bool, string, error) {
		var bundle v1alpha1.AttestationBundle
		err := client.IgnoreNotFound(c.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(event.UID))}, &bundle))
		found := meta.FindStatusCondition(bundle.Status.Conditions, condition)
		met := found != nil && found.Status == metav1.ConditionFalse && found.Reason == reason
		return met, describe(bundle.Status.Conditions), err
	})
	if err != nil {
		t.Fatalf("the bundle of event %s does not say %s=False %s: %v", event.Name, condition, reason, err)
	}
}

// watchMarks notes every bundle that comes to meet a condition, or to be sealed without it, from now until the function
// that it returns is called.
func (c *cluster) watchMarks(t *testing.T, condition string) (ended func() []string) {
	t.Helper()
	var bundles v1alpha1.AttestationBundleList
	if err := c.List(t.Context(), &bundles); err != nil {
		t.Fatal(err)
	}
	before := map[string]bool{}
	for _, bundle := range bundles.Items {
		before[bundle.Name] = isTrue(bundle.Status.Conditions, condition)
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: bundles.ResourceVersion}}
	watched, err := c.Watch(t.Context(), &v1alpha1.AttestationBundleList{}, from)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan []string, 1)
	go func() {
		var marked []string
		for {
			select {
			case <-stop:
				done <- marked
				return
			case change, open := <-watched.ResultChan():
				if !open {
					done <- append(marked, "the watch over the bundles ended")
					return
				}
				bundle, is := change.Object.(*v1alpha1.AttestationBundle)
				if !is || before[bundle.Name] {
					continue
				}
				if isTrue(bundle.Status.Conditions, condition) || isTrue(bundle.Status.Conditions, v1alpha1.ConditionSealed) {
					marked = append(marked, fmt.Sprintf("bundle %s of %s is %s", bundle.Name, bundle.Spec.AttestedFor.Name, bundle.Status.Phase))
				}
			}
		}
	}()
	return func() []string {
		close(stop)
		defer watched.Stop()
		return <-done
	}
}

// demandUnattested demands that neither the event nor the incident says Attested.
func demandUnattested(t *testing.T, s *scene, waiting v1alpha1.SecurityEvent) {
	t.Helper()
	var incident v1alpha1.Incident
	suite.look(t, client.ObjectKey{Name: s.incident}, &incident)
	suite.look(t, client.ObjectKey{Name: waiting.Name}, &waiting)
	if waiting.Status.Phase == v1alpha1.EventAttested || isTrue(incident.Status.Conditions, v1alpha1.ConditionAttested) || len(incident.Status.Custody) > 0 {
		t.Errorf("too early: event %s is %q, the incident has %d custody records and\n%s", waiting.Name, waiting.Status.Phase,
			len(incident.Status.Custody), describe(incident.Status.Conditions))
	}
}

// checkAllSealed waits for the end of the incident and demands that each of its objects, and the other event, has one
// bundle, sealed, of which the store has one version; and that the whole incident verifies.
func checkAllSealed(t *testing.T, s *scene, mode byhand.Mode, other v1alpha1.SecurityEvent) {
	t.Helper()
	incident := suite.await(t, s, v1alpha1.ConditionUploaded, 4*captureTime)
	if !isTrue(incident.Status.Conditions, v1alpha1.ConditionReleased) {
		if err := suite.release(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	suite.await(t, s, v1alpha1.ConditionAttested, 2*captureTime)
	record := custody(t, s)
	checkOnce(t, s, steps)
	var bundles v1alpha1.AttestationBundleList
	if err := suite.List(t.Context(), &bundles, client.MatchingFields{"spec.incidentUID": string(incident.UID)}); err != nil {
		t.Fatal(err)
	}
	// Four steps, the Completed event and two custody records.
	if len(bundles.Items) != len(steps)+3 {
		t.Errorf("the incident has %d bundles, want %d\n%s", len(bundles.Items), len(steps)+3, suite.account(t.Context(), s))
	}
	prefix, store := v1alpha1.EvidencePrefix(s.incident), suite.analyst(t)
	for below, want := range map[string]int{"/bundles/": len(steps) + 1, "/custody-": 4} {
		if stored := store.versions(t, "ugallu-forensics", prefix+below); len(stored) != want {
			t.Errorf("the store has %d versions below %s%s, want %d: %+v", len(stored), prefix, below, want, stored)
		}
	}
	about := []string{string(s.event.UID), string(other.UID)}
	for _, bundle := range bundles.Items {
		if bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedIncident {
			about = append(about, bundle.Spec.AttestedFor.UID)
		}
	}
	for _, uid := range about {
		sealed, _ := suite.sealed(t, uid)
		stored := store.versions(t, "ugallu-forensics", sealed.Status.Object.Key)
		if len(stored) != 1 || stored[0].VersionID != sealed.Status.Object.VersionID {
			t.Errorf("bundle %s is version %s, the store has %+v", sealed.Name, sealed.Status.Object.VersionID, stored)
		}
	}
	p := newPlugin(t)
	p.demand(t, 0, append([]string{"verify", record, "--endpoint", p.endpoint}, p.signers(mode)...)...)
}

// boundary is a point between two stages of a bundle at which the attestor is killed.
type boundary struct {
	name string
	absence
	// unrecorded: what the server did is done, and the bundle does not say so. Otherwise the server was not asked yet.
	unrecorded bool
}

// TestCustodyAttestorKilledAtEachStage holds a bundle at each boundary of its stages, in the middle of a capture, and kills
// the attestor there: before the next server acts, which is away for that time, and after it acted and before that is
// recorded, for which the attestor may not write the bundle's status for that time.
func TestCustodyAttestorKilledAtEachStage(t *testing.T) {
	signing := absence{"transit", byhand.Key, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable}
	logging := absence{"rekor", byhand.Key, v1alpha1.ConditionLogged, v1alpha1.ReasonLogUnavailable}
	sealing := absence{storeService, byhand.Key, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable}
	boundaries := []boundary{
		{"before it is signed", signing, false},
		{"signed, not recorded", signing, true},
		{"recorded as signed, before it is logged", logging, false},
		{"logged, not recorded", logging, true},
		{"recorded as logged, before it is stored", sealing, false},
		{"stored, not recorded", sealing, true},
	}
	for _, at := range boundaries {
		t.Run(at.name, at.kill)
	}
}

func (at boundary) kill(t *testing.T) {
	s := suite.beginCapture(t, 50_000_000)
	back := suite.stop(t, at.server)
	waiting := suite.addEvent(t)
	suite.awaitReason(t, waiting, at.condition, at.reason)
	if at.unrecorded {
		restore := suite.mute(t)
		back()
		suite.awaitUnrecorded(t, at, waiting, time.Now())
		suite.killAttestor(t)
		demandHeld(t, waiting, at.condition)
		restore()
	} else {
		suite.killAttestor(t)
		demandHeld(t, waiting, at.condition)
		back()
	}
	checkAllSealed(t, s, at.mode, waiting)
}

// demandHeld demands that the event's bundle is where it was to be held.
func demandHeld(t *testing.T, waiting v1alpha1.SecurityEvent, condition string) {
	t.Helper()
	var bundle v1alpha1.AttestationBundle
	suite.look(t, client.ObjectKey{Name: v1alpha1.BundleName(string(waiting.UID))}, &bundle)
	if isTrue(bundle.Status.Conditions, condition) {
		t.Errorf("the attestor was killed too late: bundle %s is\n%s", bundle.Name, describe(bundle.Status.Conditions))
	}
}

// TestCustodyAttestorKilledWhileLogging kills the attestor as soon as a step's bundle says Signed: its envelope is on the
// way to the log, or there already.
func TestCustodyAttestorKilledWhileLogging(t *testing.T) {
	for _, step := range []v1alpha1.Step{v1alpha1.StepSnapshot, v1alpha1.StepUpload} {
		t.Run(string(step), func(t *testing.T) {
			s := suite.beginCapture(t, 50_000_000)
			response := suite.awaitResponse(t, s, step, completed)
			err := eventually(t.Context(), captureTime, func(ctx context.Context) (bool, string, error) {
				var bundle v1alpha1.AttestationBundle
				key := client.ObjectKey{Name: v1alpha1.BundleName(string(response.UID))}
				err := client.IgnoreNotFound(suite.Get(ctx, key, &bundle))
				return isTrue(bundle.Status.Conditions, v1alpha1.ConditionSigned), describe(bundle.Status.Conditions), err
			})
			if err != nil {
				t.Fatal(err)
			}
			suite.killAttestor(t)
			checkAllSealed(t, s, byhand.Key, suite.addEvent(t))
		})
	}
}

// mute takes the attestor the right to write the status of bundles, and returns what gives it back.
func (c *cluster) mute(t *testing.T) (restore func()) {
	t.Helper()
	var role rbacv1.ClusterRole
	c.look(t, client.ObjectKey{Name: attestorName}, &role)
	set := func(ctx context.Context, rules []rbacv1.PolicyRule, answer string) error {
		var now rbacv1.ClusterRole
		if err := c.Get(ctx, client.ObjectKey{Name: attestorName}, &now); err != nil {
			return fmt.Errorf("get the attestor's role: %w", err)
		}
		now.Rules = rules
		if err := c.Update(ctx, &now); err != nil {
			return fmt.Errorf("change the attestor's role: %w", err)
		}
		return c.awaitMay(ctx, answer)
	}
	without := role.DeepCopy().Rules
	for i := range without {
		without[i].Resources = slices.DeleteFunc(without[i].Resources, func(resource string) bool { return resource == bundleStatus })
	}
	restored := false
	restore = func() {
		if restored {
			return
		}
		if err := set(context.WithoutCancel(t.Context()), role.Rules, "yes"); err != nil {
			t.Errorf("give the attestor its right back: %v", err)
			return
		}
		restored = true
	}
	t.Cleanup(restore)
	if err := set(t.Context(), without, "no"); err != nil {
		t.Fatal(err)
	}
	return restore
}

// awaitMay waits until the API server answers whether the attestor may write the status of bundles.
func (c *cluster) awaitMay(ctx context.Context, answer string) error {
	return eventually(ctx, 30*time.Second, func(ctx context.Context) (bool, string, error) {
		out, err := c.run(ctx, "auth", "can-i", "patch", "attestationbundles.security.ugallu.io", "--subresource=status",
			"--as=system:serviceaccount:"+v1alpha1.NamespaceSystem+":"+attestorName)
		said := strings.TrimSpace(out)
		if said != "yes" && said != "no" {
			return false, said, err
		}
		return said == answer, said, nil // "no" is an exit code of 1 as well
	})
}

// awaitUnrecorded waits until the server did its part for the event's bundle and the attestor could not write that down:
// its log says so, and for the store the object is there.
func (c *cluster) awaitUnrecorded(t *testing.T, at boundary, waiting v1alpha1.SecurityEvent, since time.Time) {
	t.Helper()
	from := since.Add(time.Second).UTC().Format(time.RFC3339) // whole seconds
	refused := "patch status of bundle " + v1alpha1.BundleName(string(waiting.UID))
	err := eventually(t.Context(), repeatTime, func(ctx context.Context) (bool, string, error) {
		if at.server == storeService {
			return len(c.analyst(t).versions(t, "ugallu-forensics", "attestations/"+string(waiting.UID))) == 1, "not stored", nil
		}
		out, err := c.run(ctx, "-n", v1alpha1.NamespaceSystem, "logs", "deployment/"+attestorName, "--since-time="+from)
		return strings.Contains(out, refused), "the log of the attestor does not say: " + refused, err
	})
	if err != nil {
		t.Fatalf("%s: %v", at.name, err)
	}
}

// killAttestor ends the attestor's process with SIGKILL and has its pod made anew.
func (c *cluster) killAttestor(t *testing.T) {
	t.Helper()
	err := eventually(t.Context(), time.Minute, func(ctx context.Context) (bool, string, error) {
		pods, err := c.attestors(ctx)
		if err != nil || len(pods) != 1 {
			return false, fmt.Sprintf("%d attestors", len(pods)), err
		}
		// Between the look and the act the container may have got a new id.
		if err := killAndReplace(ctx, pods[0]); err != nil {
			return false, err.Error(), nil //nolint:nilerr // the next look finds the new id
		}
		return true, "", nil
	})
	if err != nil {
		t.Fatalf("kill the attestor: %v", err)
	}
}

// attestors are the attestor's pods that run.
func (c *cluster) attestors(ctx context.Context) ([]corev1.Pod, error) {
	var pods corev1.PodList
	labels := client.MatchingLabels{"app.kubernetes.io/name": attestorName}
	if err := c.List(ctx, &pods, client.InNamespace(v1alpha1.NamespaceSystem), labels); err != nil {
		return nil, fmt.Errorf("list the attestor's pods: %w", err)
	}
	return slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil || !ready(pod) }), nil
}
