package incident

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// custodyStep notes the custody records whose statements are sealed. The attestor makes them; nothing waits for them.
type custodyStep struct {
	client client.Client
}

func (c *custodyStep) run(ctx context.Context, s *scene) (progress, error) {
	if s.incident.Status.CompletionEvent == nil {
		return finished(), nil
	}
	for _, number := range []int32{evidence.CustodyCaptured, evidence.CustodyReleased} {
		known := slices.ContainsFunc(s.incident.Status.Custody, func(o v1alpha1.StoredObject) bool { return o.Index == number })
		if known {
			continue
		}
		record, err := c.sealed(ctx, string(s.incident.UID), number)
		if err != nil || record == nil {
			return finished(), err
		}
		s.incident.Status.Custody = append(s.incident.Status.Custody, *record)
	}
	return finished(), nil
}

// sealed is the record of this number, nil until the statement over it is sealed.
func (c *custodyStep) sealed(ctx context.Context, incidentUID string, number int32) (*v1alpha1.StoredObject, error) {
	var bundle v1alpha1.AttestationBundle
	err := c.client.Get(ctx, client.ObjectKey{Name: v1alpha1.CustodyBundleName(incidentUID, number)}, &bundle)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the bundle of custody record %d: %w", number, err)
	}
	if !meta.IsStatusConditionTrue(bundle.Status.Conditions, v1alpha1.ConditionSealed) {
		return nil, nil
	}
	return bundle.Status.Record, nil
}
