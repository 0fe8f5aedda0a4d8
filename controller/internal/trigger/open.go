package trigger

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
)

// What applies where neither configuration says anything; the schema's defaults are the same.
const (
	defaultBucket     = "ugallu-forensics"
	defaultRetainDays = 365
	defaultUnfreeze   = 4 * time.Hour
	defaultMaxEntries = 5_000_000
	defaultDuration   = 30 * time.Minute
	defaultMaxBytes   = "100Gi"
)

// open creates the event's incident. One that exists is success: the name is derived from the event's uid.
func (r *Reconciler) open(
	ctx context.Context, event *v1alpha1.SecurityEvent, pod v1alpha1.PodRef, config *v1alpha1.ForensicsConfig,
) error {
	var store v1alpha1.WORMConfig
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}, &store)
	// Containment does not wait for a store: without one the upload fails later, and says so.
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read WORMConfig: %w", err)
	}
	incident, err := opening{event: event, pod: pod, config: config, store: store.Spec, now: r.Clock.Now()}.incident()
	if err != nil {
		return err
	}
	err = r.Client.Create(ctx, incident)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open incident %s for event %s: %w", incident.Name, event.Name, err)
	}
	opened.Inc()
	log.FromContext(ctx).Info("incident opened", "incident", incident.Name, "pod", pod.Namespace+"/"+pod.Name, "node", pod.NodeName)
	return nil
}

// opening is what an incident is made of.
type opening struct {
	event  *v1alpha1.SecurityEvent
	pod    v1alpha1.PodRef
	config *v1alpha1.ForensicsConfig
	store  v1alpha1.WORMConfigSpec
	now    time.Time
}

// incident copies everything that applies, so that later changes of the configuration cannot alter it.
func (o opening) incident() (*v1alpha1.Incident, error) {
	event, pod, config := o.event, o.pod, o.config
	canonical, err := evidence.Canonical(event.Spec)
	if err != nil {
		return nil, fmt.Errorf("digest event %s: %w", event.Name, err)
	}
	name := v1alpha1.IncidentName(string(event.UID))
	spec, cleanup := config.Spec, config.Spec.Cleanup
	return &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: pod.UID},
		},
		Spec: v1alpha1.IncidentSpec{
			Trigger: v1alpha1.Trigger{
				Ref:  v1alpha1.Ref{Name: event.Name, UID: string(event.UID)},
				Type: event.Spec.Type, Severity: event.Spec.Severity, SpecSHA256: evidence.Digest(canonical),
			},
			Pod:        pod,
			SubjectUID: subjectUID(event),
			Freeze: v1alpha1.PodFreezeAction{
				Processes: cmp.Or(spec.Freeze.Processes, v1alpha1.FreezeUntilReleased),
				Memory:    cmp.Or(spec.Freeze.Memory, v1alpha1.MemoryAuto),
			},
			Snapshot:                 snapshot(spec.Snapshot, where(name, spec.Evidence, o.store, o.now)),
			AutoUnfreezeAfter:        ptr.Deref(cleanup.AutoUnfreezeAfter, metav1.Duration{Duration: defaultUnfreeze}),
			OnFailure:                cmp.Or(cleanup.OnFailure, v1alpha1.OnFailureHold),
			Disposition:              cmp.Or(cleanup.Disposition, v1alpha1.DispositionResume),
			RequiredAcknowledgements: ptr.Deref(cleanup.RequiredAcknowledgements, 1),
			DryRun:                   spec.DryRun,
			ConfigGeneration:         config.Generation,
		},
	}, nil
}

// snapshot never asks for less redaction than the configuration does: names that nobody can compare with redact every
// value.
func snapshot(config v1alpha1.SnapshotConfig, to v1alpha1.Destination) v1alpha1.FilesystemSnapshotAction {
	action := v1alpha1.FilesystemSnapshotAction{
		Destination:       to,
		Compression:       cmp.Or(config.Compression, v1alpha1.CompressionZstd),
		MaxBytes:          ptr.Deref(config.MaxBytes, resource.MustParse(defaultMaxBytes)),
		MaxEntries:        ptr.Deref(config.MaxEntries, defaultMaxEntries),
		MaxDuration:       ptr.Deref(config.MaxDuration, metav1.Duration{Duration: defaultDuration}),
		RedactEnvironment: cmp.Or(config.RedactEnvironment, v1alpha1.RedactNone),
		RedactNames:       config.RedactNames,
	}
	if config.MaxBandwidth != nil {
		action.MaxBandwidth = ptr.To(config.MaxBandwidth.DeepCopy())
	}
	if _, err := regexp.Compile(config.RedactNames); err != nil {
		action.RedactEnvironment, action.RedactNames = v1alpha1.RedactAll, ""
	}
	return action
}

// where lets the incident's own configuration win over the cluster's store. The date is cut to the second, which is what
// a store keeps.
func where(incident string, wanted v1alpha1.EvidenceConfig, store v1alpha1.WORMConfigSpec, now time.Time) v1alpha1.Destination {
	days := cmp.Or(ptr.Deref(wanted.RetainDays, 0), store.RetainDays, defaultRetainDays)
	return v1alpha1.Destination{
		Bucket:        cmp.Or(wanted.Bucket, store.Bucket, defaultBucket),
		Prefix:        v1alpha1.EvidencePrefix(incident),
		LockMode:      cmp.Or(wanted.ObjectLock, store.ObjectLock, v1alpha1.LockCompliance),
		RetainUntil:   metav1.NewTime(now.UTC().Truncate(time.Second).AddDate(0, 0, int(days))),
		Encryption:    cmp.Or(store.Encryption, v1alpha1.EncryptionNone),
		KMSKeyID:      store.KMSKeyID,
		AgeRecipients: usable(store.AgeRecipients),
	}
}

// usable leaves out recipients that nothing can be encrypted to. Where none is left, or they do not go together, they
// stay as they are: the capture then fails, rather than store what was to be encrypted as it is.
func usable(recipients []string) []string {
	kept := slices.DeleteFunc(slices.Clone(recipients), func(recipient string) bool {
		return destination.CheckRecipient(recipient) != nil
	})
	if destination.CheckRecipients(kept) != nil {
		return recipients
	}
	return kept
}

func subjectUID(event *v1alpha1.SecurityEvent) v1alpha1.SubjectUID {
	if event.Spec.Subject.UID != "" {
		return v1alpha1.SubjectDeclared
	}
	return v1alpha1.SubjectResolved
}
