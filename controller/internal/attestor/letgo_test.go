package attestor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// deletedBeforeSeal deletes an incident after its release, while the statement about that is under way.
func deletedBeforeSeal(t *testing.T, config *rest.Config) {
	for name, check := range map[string]func(*testing.T, *scene, *v1alpha1.EventResponse){
		"stored, in two modes": func(t *testing.T, s *scene, unfreeze *v1alpha1.EventResponse) {
			s.inBothModes().notary.unable = map[v1alpha1.SigningMode]error{keyless: errors.New("away")}
			s.tries(unfreeze)
			if s.bundle(unfreeze).Status.Object == nil {
				t.Fatalf("not stored: %+v", s.bundle(unfreeze).Status)
			}
			s.remove(s.incident)
			s.notary.unable = nil
			s.sealedBeside(unfreeze, "", ".fulcio-keyless")
		},
		"signed twice": func(_ *testing.T, s *scene, unfreeze *v1alpha1.EventResponse) {
			s.inBothModes().notary.unable = map[v1alpha1.SigningMode]error{keyless: errors.New("away")}
			s.tries(unfreeze)
			s.notary.unable, s.notary.published = nil, errors.New("away")
			s.tries(unfreeze)
			s.remove(s.incident)
			s.notary.published = nil
			s.sealedBeside(unfreeze, "", ".fulcio-keyless")
		},
		"the answer to the put is lost": func(t *testing.T, s *scene, unfreeze *v1alpha1.EventResponse) {
			// The bundle object, the read-back, the signature, the log and its stage come before the put.
			s.effects.at, s.effects.after = s.effects.count+5, true
			stored := len(s.store.Objects())
			s.world.step(unfreeze)
			if s.bundle(unfreeze).Status.Object != nil || len(s.store.Objects()) != stored+1 {
				t.Fatalf("the answer is not lost: %+v", s.bundle(unfreeze).Status)
			}
			s.remove(s.incident)
			s.sealedBeside(unfreeze, "")
		},
		"made again, with its digest open": func(t *testing.T, s *scene, unfreeze *v1alpha1.EventResponse) {
			stored := s.run(unfreeze)
			s.remove(stored)
			s.clock.SetTime(s.clock.Now().Add(time.Minute))
			there := s.stages.Store
			s.stages.Store = func(context.Context, string) (worm.Store, error) { return unreachable{away{s.store}}, nil }
			s.expectFailure(unfreeze, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreUnreachable)
			s.remove(s.incident)
			s.stages.Store = there
			s.sealedBeside(unfreeze, "")
			if digest := s.bundle(unfreeze).Status.StatementDigest; digest != stored.Status.StatementDigest {
				t.Errorf("stored is the statement %s, taken %s", stored.Status.StatementDigest, digest)
			}
		},
		"signed by a key that is away for a while": func(_ *testing.T, s *scene, unfreeze *v1alpha1.EventResponse) {
			s.signedOnly(unfreeze)
			s.remove(s.incident)
			s.notary.distrusted = s.notary.signed
			s.expectFailure(unfreeze, v1alpha1.ConditionLogged, v1alpha1.ReasonKeyNotTrusted)
			s.notary.distrusted = 0
			s.sealedBeside(unfreeze, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWorld(t, config).playShort()
			check(t, s, s.free())
		})
	}
}

// sealedBeside demands that a response's bundles are stored once each, with the incident's evidence, and as firmly.
func (s *scene) sealedBeside(response *v1alpha1.EventResponse, modes ...string) {
	s.t.Helper()
	s.run(response)
	first, to := strings.TrimSuffix(s.bundleKey(response), ".sigstore.json"), s.incident.Spec.Snapshot.Destination
	wanted := map[string]int{}
	for _, mode := range modes {
		wanted[first+mode+".sigstore.json"] = 0
	}
	for _, object := range s.store.Objects() {
		if _, ok := wanted[object.Key]; ok {
			wanted[object.Key]++
			if object.Lock.Mode != string(to.LockMode) || object.Lock.RetainUntil.Unix() != to.RetainUntil.Unix() {
				s.t.Errorf("stored %+v", object)
			}
		} else if strings.Contains(object.Key, v1alpha1.BundleName(string(response.UID))) || strings.Contains(object.Key, string(response.UID)) {
			s.t.Errorf("stored elsewhere: %s", object.Key)
		}
	}
	for key, count := range wanted {
		if count != 1 {
			s.t.Errorf("%s is stored %d times", key, count)
		}
	}
}
