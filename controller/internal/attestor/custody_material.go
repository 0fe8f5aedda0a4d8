package attestor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

// material gathers what a record of the incident is made of. What is not there is left out: the record names it.
func (r *Reconciler) material(ctx context.Context, incident *v1alpha1.Incident) (*custody.Material, error) {
	m := &custody.Material{Incident: incident}
	names := []string{
		v1alpha1.BundleName(incident.Spec.Trigger.UID),
		v1alpha1.CustodyBundleName(string(incident.UID), evidence.CustodyCaptured),
	}
	if ending := incident.Status.CompletionEvent; ending != nil {
		names = append(names, v1alpha1.BundleName(ending.UID))
	}
	for _, ref := range incident.Status.Responses {
		names = append(names, v1alpha1.BundleName(ref.UID))
		response, err := r.response(ctx, ref)
		if gone, ok := errors.AsType[*stageError](err); ok && gone.final {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.Responses = append(m.Responses, *response)
	}
	for _, name := range names {
		var bundle v1alpha1.AttestationBundle
		if found, err := r.find(ctx, name, &bundle); err != nil {
			return nil, err
		} else if found {
			m.Bundles = append(m.Bundles, bundle)
		}
		for _, mode := range further(&bundle) {
			var countersignature v1alpha1.AttestationBundle
			if found, err := r.find(ctx, v1alpha1.CountersignatureName(name, mode), &countersignature); err != nil {
				return nil, err
			} else if found {
				m.Bundles = append(m.Bundles, countersignature)
			}
		}
	}
	return m, nil
}

func (r *Reconciler) find(ctx context.Context, name string, object client.Object) (bool, error) {
	err := r.Client.Get(ctx, client.ObjectKey{Name: name}, object)
	if err == nil || apierrors.IsNotFound(err) {
		return err == nil, nil
	}
	return false, fmt.Errorf("read %s: %w", name, err)
}

// archiveTrust stores what the attestor trusts now beside the incident's evidence, under the digest of all of it.
func (r *Reconciler) archiveTrust(
	ctx context.Context, store worm.Store, incident *v1alpha1.Incident,
) ([]evidence.CustodyObject, error) {
	entries, err := r.Trust(ctx)
	if err != nil {
		return nil, failure(v1alpha1.ReasonConfigInvalid, err)
	}
	whole, err := evidence.Canonical(entries)
	if err != nil {
		return nil, err
	}
	to, digest := incident.Spec.Snapshot.Destination, evidence.Digest(whole)
	objects := make([]evidence.CustodyObject, 0, len(entries))
	for _, entry := range slices.Sorted(maps.Keys(entries)) {
		put, err := r.putOnce(ctx, store, to, evidence.TrustKey(to.Prefix, digest, entry), []byte(entries[entry]))
		if err != nil {
			return nil, storeFailure(err)
		}
		objects = append(objects, evidence.CustodyObject{Role: evidence.RoleTrust, StoredVersion: evidence.StoredVersion{
			Key: put.Key, VersionID: put.VersionID, Size: put.Size, SHA256: put.SHA256, RetainUntil: put.Lock.RetainUntil.UTC(),
		}})
	}
	return objects, nil
}

// TrustMaterial is everything in the trust ConfigMap that Trust is made of, by entry.
func (c *Configuration) TrustMaterial(ctx context.Context) (map[string]string, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, err
	}
	var stored corev1.ConfigMap
	name := client.ObjectKey{Namespace: config.Namespace, Name: config.Spec.TrustedRootConfigMap}
	if err := c.Direct.Get(ctx, name, &stored); err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	if _, err := attest.ParseTrust(stored.Data); err != nil {
		return nil, fmt.Errorf("load ConfigMap %s: %w", name, err)
	}
	entries := map[string]string{}
	for entry, content := range stored.Data {
		if entry == attest.TrustedRootEntry || strings.HasSuffix(entry, attest.KeySuffix) || strings.HasSuffix(entry, attest.IdentitySuffix) {
			entries[entry] = content
		}
	}
	return entries, nil
}

// putOnce stores an object whose key its content gives, or finds it stored, and checks that the store keeps it as long as
// the incident's evidence.
func (r *Reconciler) putOnce(
	ctx context.Context, store worm.Store, to v1alpha1.Destination, key string, data []byte,
) (worm.Object, error) {
	at := place{
		bucket: to.Bucket, key: key, lock: lockUntil(to.LockMode, to.RetainUntil.Time, r.Clock.Now()),
		least: to.RetainUntil.UTC().Truncate(time.Second),
	}
	object, err := store.Put(ctx, key, bytes.NewReader(data), at.lock)
	if errors.Is(err, worm.ErrExists) {
		object, err = findEqual(ctx, store, at, data)
		object.Lock.RetainUntil = at.least
		return object, err
	}
	if err != nil {
		return worm.Object{}, err
	}
	object.Lock.RetainUntil = at.least
	return object, checkStored(ctx, store, object, at.lock.Mode)
}

// findEqual finds the version in a place that a crash lost the answer for. Somebody who can tell the key beforehand may have
// put something else there, or have it kept for less.
func findEqual(ctx context.Context, store worm.Reader, at place, data []byte) (worm.Object, error) {
	object, err := store.Stat(ctx, at.key, "")
	if err != nil {
		return worm.Object{}, err
	}
	if object.Size != int64(len(data)) {
		return worm.Object{}, holdsAnother(at.key)
	}
	stored, err := readAtMost(ctx, store, at.key, object.VersionID, len(data))
	if err != nil {
		return worm.Object{}, err
	}
	if !bytes.Equal(stored, data) {
		return worm.Object{}, holdsAnother(at.key)
	}
	object.SHA256 = evidence.Digest(stored)
	return object, at.keeps(object)
}

func holdsAnother(key string) error {
	return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%s holds another object: find out who put it there; then hide it behind a delete "+
		"marker in the store, and the attestor's own is stored", key))
}

// readAtMost reads one version into memory. A larger one is nothing that this attestor stored.
func readAtMost(ctx context.Context, store worm.Reader, key, versionID string, most int) (data []byte, err error) {
	body, err := store.Open(ctx, key, versionID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	data, err = io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if len(data) > most {
		return nil, failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("read %s: larger than %d bytes", key, most))
	}
	return data, nil
}
