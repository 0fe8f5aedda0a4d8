package attestor

import (
	"context"
	"fmt"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

const (
	bundleSuffix = ".sigstore.json"
	// eventsPrefix of the bundles that belong to no incident.
	eventsPrefix = "attestations/"
	// leastRetention of a bundle that is sealed after its incident's retention has ended: the store accepts no past
	// date.
	leastRetention = 24 * time.Hour
	hoursPerDay    = 24
	// headStart of an event over the incident that it may open: the event's bundle must not go before the evidence.
	headStart = 24 * time.Hour
)

// place is where a bundle is stored, and how firmly.
type place struct {
	bucket string
	key    string
	lock   worm.Lock
	// least is how long a bundle that is stored there already must be kept.
	least time.Time
}

// keeps refuses a bundle, stored under the key before, that the store may let go too early. The store's answer is what
// counts, not what was asked of it.
func (p place) keeps(stored worm.Object) error {
	weaker := stored.Lock.Mode != p.lock.Mode && stored.Lock.Mode != string(v1alpha1.LockCompliance)
	if !weaker && !stored.Lock.RetainUntil.Before(p.least) {
		return nil
	}
	err := fmt.Errorf("%s version %s was stored before and is kept in mode %q until %s, which must be %s until %s at least: "+
		"extend the retention of this version in the store; it is looked at again until then",
		stored.Key, stored.VersionID, stored.Lock.Mode, stored.Lock.RetainUntil.UTC().Format(time.RFC3339), p.lock.Mode,
		p.least.UTC().Format(time.RFC3339))
	return failure(v1alpha1.ReasonStoreNotLocked, err)
}

// placeOf derives the one place of a bundle: beside its incident's evidence, with the same lock, or by the uid of its
// event where it belongs to no incident.
func placeOf(ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle, now time.Time) (place, error) {
	if bundle.Spec.Countersigns != nil {
		return placeBeside(ctx, reader, bundle, now)
	}
	if ofNoIncident(bundle) {
		return placeOfEvent(ctx, reader, bundle, now)
	}
	to, err := destinationOf(ctx, reader, bundle)
	if err != nil {
		return place{}, err
	}
	return place{
		bucket: to.Bucket,
		key:    bundleKey(to.Prefix, bundle),
		lock:   lockUntil(to.LockMode, to.RetainUntil.Time, now),
		least:  to.RetainUntil.Truncate(time.Second),
	}, nil
}

// placeFailure is a ConfigInvalid, where the error has no reason of its own.
func placeFailure(err error) error { return reasoned(err, v1alpha1.ReasonConfigInvalid) }

func ofNoIncident(bundle *v1alpha1.AttestationBundle) bool {
	return bundle.Spec.IncidentUID == "" && bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedIncident
}

// fixDestination records where a bundle goes before it is signed. From then on its incident may be deleted.
func (r *Reconciler) fixDestination(ctx context.Context, bundle *v1alpha1.AttestationBundle) error {
	if bundle.Status.Destination != nil || ofNoIncident(bundle) {
		return nil
	}
	incident, err := r.namingIncident(ctx, bundle.Spec.IncidentUID)
	if err != nil {
		return err
	}
	bundle.Status.Destination = bundleDestination(incident)
	return nil
}

// destinationOf a bundle as it is on record; before it is signed, and of what an earlier version signed, as its incident
// has it.
func destinationOf(
	ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle,
) (*v1alpha1.BundleDestination, error) {
	if bundle.Status.Destination != nil {
		return bundle.Status.Destination, nil
	}
	incident, err := incidentOf(ctx, reader, bundle.Spec.IncidentUID)
	if err != nil {
		return nil, err
	}
	if incident == nil {
		gone := fmt.Errorf("the incident with uid %s is gone, and with it where bundle %s is to be stored", bundle.Spec.IncidentUID, bundle.Name)
		return nil, failure(v1alpha1.ReasonSubjectGone, gone)
	}
	return bundleDestination(incident), nil
}

func bundleDestination(incident *v1alpha1.Incident) *v1alpha1.BundleDestination {
	to := incident.Spec.Snapshot.Destination
	return &v1alpha1.BundleDestination{Bucket: to.Bucket, Prefix: to.Prefix, LockMode: to.LockMode, RetainUntil: to.RetainUntil}
}

// placeOfEvent is that of the bundle of an event that belongs to no incident.
func placeOfEvent(ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle, now time.Time) (place, error) {
	config, err := destination.Config(ctx, reader)
	if err != nil {
		return place{}, err
	}
	wanted, err := evidenceConfig(ctx, reader)
	if err != nil {
		return place{}, err
	}
	mode := config.Spec.ObjectLock
	if wanted.ObjectLock == v1alpha1.LockCompliance {
		mode = wanted.ObjectLock
	}
	days := max(ptr.Deref(wanted.RetainDays, 0), config.Spec.RetainDays)
	retention := time.Duration(days) * hoursPerDay * time.Hour
	return place{
		bucket: config.Spec.Bucket,
		key:    eventsPrefix + bundle.Spec.AttestedFor.UID + bundleSuffix,
		lock:   lockUntil(mode, now.Add(retention+headStart), now),
		// One that was stored before has used up some of its head start. The date that a person is told must not move on.
		least: bundle.CreationTimestamp.Add(retention),
	}, nil
}

// placeBeside is that of a bundle that countersigns another one.
func placeBeside(ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle, now time.Time) (place, error) {
	first, err := firstOf(ctx, reader, bundle)
	if err != nil {
		return place{}, err
	}
	if first.Status.Object == nil {
		return place{}, &waiting{message: "waits until bundle " + first.Name + ", which it countersigns, is stored", after: recordPoll}
	}
	to, err := placeOf(ctx, reader, first, now)
	if err != nil {
		return place{}, err
	}
	to.key = evidence.CountersignatureKey(to.key, string(bundle.Spec.Countersigns.Mode))
	return to, nil
}

// bundleKey of an incident's bundle: that over a custody record lies beside the record.
func bundleKey(prefix string, bundle *v1alpha1.AttestationBundle) string {
	if record := bundle.Status.Record; record != nil {
		return evidence.CustodyBundleKey(record.Key)
	}
	return prefix + "/bundles/" + bundle.Name + bundleSuffix
}

// evidenceConfig is how an incident that opens now keeps its evidence; empty where that is left to the store's own.
func evidenceConfig(ctx context.Context, reader client.Reader) (v1alpha1.EvidenceConfig, error) {
	var config v1alpha1.ForensicsConfig
	err := reader.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &config)
	if client.IgnoreNotFound(err) != nil {
		return v1alpha1.EvidenceConfig{}, fmt.Errorf("read ForensicsConfig %s: %w", v1alpha1.SingletonName, err)
	}
	return config.Spec.Evidence, nil
}

func lockUntil(mode v1alpha1.LockMode, until, now time.Time) worm.Lock {
	if until.Before(now.Add(time.Minute)) {
		until = now.Add(leastRetention)
	}
	return worm.Lock{Mode: string(mode), RetainUntil: until}
}

// incidentOf finds an incident by uid; nil when the uid is empty or the incident is gone.
func incidentOf(ctx context.Context, reader client.Reader, uid string) (*v1alpha1.Incident, error) {
	if uid == "" {
		return nil, nil
	}
	var incidents v1alpha1.IncidentList
	if err := reader.List(ctx, &incidents); err != nil {
		return nil, fmt.Errorf("list incidents: %w", err)
	}
	for i := range incidents.Items {
		if string(incidents.Items[i].UID) == uid {
			return &incidents.Items[i], nil
		}
	}
	return nil, nil
}
