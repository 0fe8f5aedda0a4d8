package attestor

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

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
)

// place is where a bundle is stored, and how firmly.
type place struct {
	bucket string
	key    string
	lock   worm.Lock
}

// placeOf derives the one place of a bundle: beside its incident's evidence, with the same lock, or by the uid of its
// event where there is no incident.
func placeOf(ctx context.Context, reader client.Reader, bundle *v1alpha1.AttestationBundle, now time.Time) (place, error) {
	incident, err := incidentOf(ctx, reader, bundle.Spec.IncidentUID)
	if err != nil {
		return place{}, err
	}
	if incident != nil {
		to := incident.Spec.Snapshot.Destination
		return place{
			bucket: to.Bucket,
			key:    to.Prefix + "/bundles/" + bundle.Name + bundleSuffix,
			lock:   lockUntil(to.LockMode, to.RetainUntil.Time, now),
		}, nil
	}
	config, err := destination.Config(ctx, reader)
	if err != nil {
		return place{}, err
	}
	retention := time.Duration(config.Spec.RetainDays) * hoursPerDay * time.Hour
	return place{
		bucket: config.Spec.Bucket,
		key:    eventsPrefix + bundle.Spec.AttestedFor.UID + bundleSuffix,
		lock:   lockUntil(config.Spec.ObjectLock, now.Add(retention), now),
	}, nil
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
