package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// ErrTarget is returned where a key is neither a manifest's nor a custody record's.
var ErrTarget = errors.New("not the key of a manifest or of a custody record")

// Target is where to begin: a manifest or a custody record.
type Target struct {
	Key string
	// VersionID is empty for the newest, or the only one.
	VersionID string
}

// Incident checks everything that the target leads to. An error means that the target itself could not be read, so that
// nothing can be said; whatever can be said is in the report.
func Incident(ctx context.Context, source Source, prover Prover, target Target) (*Report, error) {
	v, err := begin(ctx, source, prover, target)
	if err != nil {
		return nil, err
	}
	v.proveRecords(ctx)
	v.proveStatements(ctx)
	v.checkChain()
	v.checkManifest(ctx)
	v.checkObjects(ctx)
	v.checkFacts()
	return v.report, nil
}

// begin reads what everything else is read by.
func begin(ctx context.Context, source Source, prover Prover, target Target) (*verification, error) {
	v := &verification{source: source, prover: prover, report: &Report{}, prefix: path.Dir(target.Key), listed: map[place]evidence.StoredVersion{}}
	switch {
	case isManifest(target.Key):
		v.manifestAt = &target
	case isRecord(target.Key):
		v.start = target
	default:
		return nil, fmt.Errorf("%q: %w", target.Key, ErrTarget)
	}
	if err := v.load(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// verification is one run over one incident.
type verification struct {
	source Source
	prover Prover
	report *Report
	prefix string
	// start is the record to begin with; empty where none was found.
	start Target
	// manifestAt is set when the caller named the manifest.
	manifestAt *Target

	// record is the newest custody record, nil where the incident has none.
	record *record
	// links are the statements, in order.
	links    []*link
	manifest *evidence.Manifest
	// listed are the objects that statements name, by key and version.
	listed map[place]evidence.StoredVersion
}

// place is a version of a key.
type place struct{ key, version string }

// load reads the newest record or, where there is none, the manifest.
func (v *verification) load(ctx context.Context) error {
	if v.start.Key == "" {
		key, err := v.newestRecord(ctx)
		if err != nil {
			return err
		}
		v.start.Key = key
	}
	if v.start.Key != "" {
		data, err := read(ctx, v.source, v.start.Key, v.start.VersionID)
		if err != nil {
			return fmt.Errorf("read custody record: %w", err)
		}
		if v.record, err = v.parseRecord(v.start, data); err != nil {
			return err
		}
		v.report.Incident, v.report.Pod, v.report.Records = v.record.custody.Incident, v.record.custody.Pod, v.record.custody.Number
		return nil
	}
	data, err := read(ctx, v.source, v.manifestAt.Key, v.manifestAt.VersionID)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	manifest, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	v.report.Incident, v.report.Pod = manifest.Incident, manifest.Pod
	return nil
}

// newestRecord is the key of the last custody record beside the manifest; empty where there is none.
func (v *verification) newestRecord(ctx context.Context) (string, error) {
	keys, err := records(ctx, v.source, v.prefix)
	if err != nil || len(keys) == 0 {
		return "", err
	}
	return keys[len(keys)-1], nil
}

// records are the keys of all custody records below an incident's prefix, in the order of their numbers.
func records(ctx context.Context, source Source, prefix string) ([]string, error) {
	keys, err := source.List(ctx, prefix+"/custody-")
	if err != nil {
		return nil, fmt.Errorf("list custody records of %s: %w", prefix, err)
	}
	return slices.DeleteFunc(keys, func(key string) bool { return !isRecord(key) }), nil
}

// Find returns the targets that a source holds below a prefix: of each incident the last custody record, or its
// manifests where it has no record.
func Find(ctx context.Context, source Source, prefix string) ([]Target, error) {
	keys, err := source.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list what is below %q: %w", prefix, err)
	}
	sealed := map[string]string{}
	for _, key := range keys {
		if isRecord(key) {
			sealed[path.Dir(key)] = key
		}
	}
	var found []Target
	for _, key := range keys {
		last, ok := sealed[path.Dir(key)]
		if key == last || (!ok && isManifest(key)) {
			found = append(found, Target{Key: key})
		}
	}
	return found, nil
}

func isManifest(key string) bool {
	return strings.HasPrefix(path.Base(key), "manifest-") && strings.HasSuffix(key, ".json")
}

func isRecord(key string) bool {
	return strings.HasPrefix(path.Base(key), "custody-") && strings.HasSuffix(key, ".json") &&
		!strings.HasSuffix(key, ".sigstore.json")
}
