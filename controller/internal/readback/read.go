package readback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

const (
	// maxNamed disagreements in a message; the others are counted.
	maxNamed = 5
	// maxMessage of a condition; the API allows 32 KiB, a person reads less.
	maxMessage = 2048
)

// findings of one response.
type findings struct {
	observed  []v1alpha1.ObservedObject
	disagrees []string
	// encrypted artifacts, of which the plain streams cannot be read.
	encrypted int
}

// stall is how long the store may send nothing of an object before the read is given up, to be tried again.
const stall = time.Minute

// source is the store that a response's objects lie in, and where and how firmly locked they were ordered to be: what
// the suspect's node says of that is compared, not believed.
type source struct {
	store  worm.Reader
	mode   v1alpha1.LockMode
	until  time.Time
	prefix string
	// encrypted is whether the node was ordered to encrypt what it stores.
	encrypted bool
}

// read returns what the store holds. An error means that the store could not be asked, never that it disagrees.
func (r *Reconciler) read(ctx context.Context, response *v1alpha1.EventResponse) (*findings, error) {
	from, err := r.source(ctx, response)
	if err != nil {
		return nil, err
	}
	found := &findings{observed: []v1alpha1.ObservedObject{}}
	for i := range response.Status.Artifacts {
		if err := found.readArtifact(ctx, from, &response.Status.Artifacts[i]); err != nil {
			return nil, err
		}
	}
	for _, object := range response.Status.Attachments() {
		if err := found.readObject(ctx, from, &object, io.Discard); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found.observed, func(a, b v1alpha1.ObservedObject) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

// source is the destination in the order, or the incident's where the order names none, or the WORMConfig's when the
// incident is gone.
func (r *Reconciler) source(ctx context.Context, response *v1alpha1.EventResponse) (source, error) {
	destination, err := r.destination(ctx, response)
	if err != nil {
		return source{}, err
	}
	store, err := r.Store(ctx, destination.Bucket)
	if err != nil {
		return source{}, err
	}
	from := source{
		store: store, mode: destination.LockMode, until: destination.RetainUntil.UTC().Truncate(time.Second),
		encrypted: destination.Encryption == v1alpha1.EncryptionAge,
	}
	if destination.Prefix != "" {
		from.prefix = destination.Prefix + "/"
	}
	return from, nil
}

func (r *Reconciler) destination(ctx context.Context, response *v1alpha1.EventResponse) (v1alpha1.Destination, error) {
	action := &response.Spec.Action
	switch {
	case action.FilesystemSnapshot != nil:
		return action.FilesystemSnapshot.Destination, nil
	case action.EvidenceUpload != nil:
		return action.EvidenceUpload.Destination, nil
	}
	var incident v1alpha1.Incident
	err := r.Client.Get(ctx, client.ObjectKey{Name: response.Spec.IncidentName}, &incident)
	if apierrors.IsNotFound(err) {
		return v1alpha1.Destination{}, nil
	}
	if err != nil {
		return v1alpha1.Destination{}, fmt.Errorf("read incident %s: %w", response.Spec.IncidentName, err)
	}
	return incident.Spec.Snapshot.Destination, nil
}

// readArtifact reads the segments in order, so that the stream they make together is hashed as well, and then what lies
// beside them.
func (f *findings) readArtifact(ctx context.Context, from source, artifact *v1alpha1.Artifact) error {
	segments := slices.Clone(artifact.Segments)
	slices.SortFunc(segments, func(a, b v1alpha1.StoredObject) int { return int(a.Index) - int(b.Index) })
	whole := sha256.New()
	for i := range segments {
		if err := f.readObject(ctx, from, &segments[i], whole); err != nil {
			return err
		}
	}
	for _, companion := range artifact.Companions() {
		if err := f.readObject(ctx, from, &companion, io.Discard); err != nil {
			return err
		}
	}
	// The manifest is stored as it is, whatever the destination says: it holds no content.
	if from.encrypted && artifact.Kind != v1alpha1.ArtifactManifest {
		f.compareEncrypted(artifact)
		return nil
	}
	f.compareStream(artifact, sum(whole))
	return nil
}

func (f *findings) compareStream(artifact *v1alpha1.Artifact, digest string) {
	var size int64
	for _, segment := range artifact.Segments {
		size += segment.Size
	}
	if digest != artifact.SHA256 {
		f.disagree("artifact %s: the segments together have the sha256 %s, asserted is %s", artifact.Name, digest, artifact.SHA256)
	}
	if size != artifact.Size {
		f.disagree("artifact %s: the segments together have %d bytes, asserted are %d", artifact.Name, size, artifact.Size)
	}
}

// compareEncrypted adds up what the executor says of the plain stream: its digest nobody can compute without an identity.
func (f *findings) compareEncrypted(artifact *v1alpha1.Artifact) {
	f.encrypted++
	var size int64
	for _, object := range slices.Concat(artifact.Segments, artifact.Companions()) {
		if object.Plain == nil {
			f.disagree("%s: is not asserted to be encrypted, as was ordered", object.Key)
		}
	}
	for _, segment := range artifact.Segments {
		if segment.Plain != nil {
			size += segment.Plain.Size
		}
	}
	if size != artifact.Size {
		f.disagree("artifact %s: the plain segments together have %d bytes, asserted are %d", artifact.Name, size, artifact.Size)
	}
}

// readObject hashes one version, also into whole, and compares it with what is asserted of it.
func (f *findings) readObject(ctx context.Context, from source, asserted *v1alpha1.StoredObject, whole io.Writer) error {
	if !strings.HasPrefix(asserted.Key, from.prefix) {
		f.disagree("%s: lies outside of %s, where it was ordered to be", asserted.Key, from.prefix)
	}
	kept, err := from.store.Stat(ctx, asserted.Key, asserted.VersionID)
	if errors.Is(err, worm.ErrNotFound) {
		f.disagree("%s: the store has no version %s", asserted.Key, asserted.VersionID)
		return nil
	}
	if err != nil {
		return err
	}
	digest, size, err := hashObject(ctx, from.store, asserted, whole)
	if err != nil {
		return err
	}
	f.compare(asserted, v1alpha1.StoredObject{SHA256: digest, Size: size})
	f.compareLock(asserted, kept.Lock, from)
	if kept.Lock.Mode != "" {
		f.observe(v1alpha1.ObservedObject{
			Key:         asserted.Key,
			VersionID:   asserted.VersionID,
			SHA256:      digest,
			Size:        size,
			RetainUntil: metav1.NewTime(kept.Lock.RetainUntil),
			LockMode:    v1alpha1.LockMode(kept.Lock.Mode),
		})
	}
	return nil
}

// observe keeps one record a key, and as many as there is room for. What is left out is a disagreement.
func (f *findings) observe(object v1alpha1.ObservedObject) {
	switch {
	case slices.ContainsFunc(f.observed, func(known v1alpha1.ObservedObject) bool { return known.Key == object.Key }):
		f.disagree("%s: is named twice", object.Key)
	case len(f.observed) == v1alpha1.MaxObserved:
		f.disagree("%s: is one more than the %d objects that are recorded one by one", object.Key, v1alpha1.MaxObserved)
	default:
		f.observed = append(f.observed, object)
	}
}

func hashObject(
	ctx context.Context, store worm.Reader, object *v1alpha1.StoredObject, whole io.Writer,
) (digest string, size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := store.Open(ctx, object.Key, object.VersionID)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	alive := &watched{body: body, timer: time.AfterFunc(stall, cancel)}
	defer alive.timer.Stop()
	own := sha256.New()
	size, err = io.Copy(io.MultiWriter(own, whole), alive)
	if err != nil {
		return "", 0, fmt.Errorf("read %s: %w", object.Key, err)
	}
	return sum(own), size, nil
}

func (f *findings) compare(asserted *v1alpha1.StoredObject, read v1alpha1.StoredObject) {
	if read.SHA256 != asserted.SHA256 {
		f.disagree("%s: read sha256 %s, asserted is %s", asserted.Key, read.SHA256, asserted.SHA256)
	}
	if read.Size != asserted.Size {
		f.disagree("%s: read %d bytes, asserted are %d", asserted.Key, read.Size, asserted.Size)
	}
}

func (f *findings) compareLock(asserted *v1alpha1.StoredObject, kept worm.Lock, from source) {
	if kept.Mode == "" || (from.mode != "" && kept.Mode != string(from.mode)) {
		f.disagree("%s: lock mode is %q, ordered is %q", asserted.Key, kept.Mode, from.mode)
	}
	if kept.RetainUntil.Before(from.until) {
		f.disagree("%s: locked until %s, ordered is %s", asserted.Key,
			kept.RetainUntil.Format(time.RFC3339), from.until.Format(time.RFC3339))
	}
	if until := asserted.RetainUntil.UTC().Truncate(time.Second); kept.RetainUntil.Before(until) {
		f.disagree("%s: locked until %s, asserted is %s", asserted.Key,
			kept.RetainUntil.Format(time.RFC3339), until.Format(time.RFC3339))
	}
}

func (f *findings) disagree(format string, arguments ...any) {
	f.disagrees = append(f.disagrees, fmt.Sprintf(format, arguments...))
}

func (f *findings) verdict() metav1.Condition {
	if len(f.disagrees) == 0 {
		message := fmt.Sprintf("%d objects read back as asserted", len(f.observed))
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: message + f.unread()}
	}
	named := f.disagrees[:min(len(f.disagrees), maxNamed)]
	message := strings.Join(named, "; ")
	if more := len(f.disagrees) - len(named); more > 0 {
		message = fmt.Sprintf("%s; and %d more", message, more)
	}
	return metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDigestMismatch, Message: shorten(message + f.unread())}
}

// unread says what was not compared.
func (f *findings) unread() string {
	if f.encrypted == 0 {
		return ""
	}
	return fmt.Sprintf("; %d artifacts are encrypted: of their plain streams the sizes were compared, the digests stand on the executor's word",
		f.encrypted)
}

func shorten(message string) string { return message[:min(len(message), maxMessage)] }

func sum(digest hash.Hash) string { return hex.EncodeToString(digest.Sum(nil)) }

// watched puts the end of a stalled read off as long as something arrives.
type watched struct {
	body  io.Reader
	timer *time.Timer
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	w.timer.Reset(stall)
	return n, err
}
