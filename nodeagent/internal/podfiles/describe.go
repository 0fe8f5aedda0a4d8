package podfiles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// DescribeOptions of one description.
type DescribeOptions struct {
	// Containers of the pod as the runtime describes them.
	Containers []evidence.ContainerDescription
	// WithoutSecretHashes leaves the sha256 of the files of Secrets and projected volumes out: who has the record could find
	// a value of few bits by trying.
	WithoutSecretHashes bool
	// RedactEnvironment replaces the values of environment variables in the containers' specifications and image
	// configurations by their sha256.
	RedactEnvironment bool
	// At is the time that the record states.
	At time.Time
}

// Describe writes one record a line of everything that Find found, of the files that are described without content and of
// the containers. It returns the gaps by reason, those of Find included. What cannot be read is a gap; errors are those of
// w and of ctx, and the stream has no trailer then.
func Describe(ctx context.Context, w io.Writer, found Found, options DescribeOptions) ([]evidence.Gap, error) {
	d := &description{ctx: ctx, out: json.NewEncoder(w), found: found, options: options}
	d.gaps = append(d.gaps, found.Gaps...)
	for _, step := range []func() error{d.header, d.sources, d.volumes, d.hosts, d.containers, d.gapLines} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("describe the files of pod %s: %w", found.Pod.UID, err)
		}
	}
	trailer := &evidence.PodFilesTrailer{Records: d.records + 1, Gaps: int64(len(d.gaps))}
	if err := d.write(evidence.PodRecord{Kind: evidence.PodRecordTrailer, Trailer: trailer}); err != nil {
		return nil, fmt.Errorf("describe the files of pod %s: %w", found.Pod.UID, err)
	}
	return Count(d.gaps), nil
}

// description is one call of Describe.
type description struct {
	ctx     context.Context
	out     *json.Encoder
	found   Found
	options DescribeOptions
	gaps    gaps
	records int64
}

func (d *description) write(record evidence.PodRecord) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	d.records++
	return d.out.Encode(record)
}

func (d *description) header() error {
	pod := d.found.Pod
	return d.write(evidence.PodRecord{Kind: evidence.PodRecordHeader, Header: &evidence.PodFilesHeader{
		Version: evidence.PodFilesVersion, Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, At: d.options.At,
		SecretsHashed: !d.options.WithoutSecretHashes, EnvironmentRedacted: d.options.RedactEnvironment,
	}})
}

func (d *description) sources() error {
	for i := range d.found.Sources {
		record := evidence.PodRecord{Kind: evidence.PodRecordSource, Source: &d.found.Sources[i].PodSource}
		if err := d.write(record); err != nil {
			return err
		}
	}
	for i := range d.found.Mounts {
		if err := d.write(evidence.PodRecord{Kind: evidence.PodRecordMount, Mount: &d.found.Mounts[i]}); err != nil {
			return err
		}
	}
	return nil
}

func (d *description) volumes() error {
	for i := range d.found.Volumes {
		if err := d.write(evidence.PodRecord{Kind: evidence.PodRecordVolume, Volume: &d.found.Volumes[i]}); err != nil {
			return err
		}
	}
	entered := false
	err := here(d.ctx, func(s *scene) error {
		entered = true
		for _, volume := range d.found.described {
			if err := d.files(s, volume); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !entered {
		d.gaps.add(d.found.roots.Kubelet, GapUnreadable, err)
		return nil
	}
	return err
}

// files lists the files of a volume; errors are those of the writer.
func (d *description) files(s *scene, volume describedVolume) error {
	fd, at, err := s.folder(volume.folder)
	if err != nil {
		d.gaps.add(volume.folder, reason(err), err)
		return nil
	}
	defer func() {
		if err := unix.Close(fd); err != nil {
			d.gaps.add(volume.folder, GapUnreadable, fmt.Errorf("close: %w", err))
		}
	}()
	if !local[s.fsTypes[at]] {
		d.gaps.add(volume.folder, GapUntrusted, fmt.Errorf("%w: %q", errUntrusted, s.fsTypes[at]))
		return nil
	}
	secret := volume.plugin == pluginSecret || volume.plugin == pluginProject
	lister := describer{
		scene: s, volume: volume, hashed: !secret || !d.options.WithoutSecretHashes, gaps: &d.gaps, left: maxFiles,
		write: func(file evidence.PodFile) error {
			return d.write(evidence.PodRecord{Kind: evidence.PodRecordFile, File: &file})
		},
	}
	return lister.folder(fd, "", 0)
}

// hosts records /etc/hosts, which the kubelet made and the pod may have written to, with its content.
func (d *description) hosts() error {
	folder := d.found.Pod.folder(d.found.roots)
	path := filepath.Join(folder, "etc-hosts")
	var file evidence.PodFile
	err := here(d.ctx, func(s *scene) error {
		fd, _, err := s.folder(folder)
		if err != nil {
			return err
		}
		file, err = readHosts(s, fd)
		return errors.Join(err, unix.Close(fd))
	})
	if err != nil {
		d.gaps.add(path, reason(err), err)
		return nil
	}
	file.Path = evidence.Text(path)
	if int64(len(file.Content)) < file.Size {
		cause := fmt.Errorf("%d bytes of %d are recorded", len(file.Content), file.Size)
		d.gaps.add(path, GapTruncated, cause)
	}
	return d.write(evidence.PodRecord{Kind: evidence.PodRecordFile, File: &file})
}

func readHosts(s *scene, fd int) (evidence.PodFile, error) {
	content, err := readBelow(s, fd, "etc-hosts", maxHosts)
	if err != nil {
		return evidence.PodFile{}, err
	}
	var stat unix.Statx_t
	err = unix.Statx(fd, "etc-hosts", unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stat)
	if err != nil {
		return evidence.PodFile{}, fmt.Errorf("look at it: %w", err)
	}
	file := describeFile(&stat)
	file.Content, file.SHA256 = content, evidence.Digest(content)
	return file, nil
}

func (d *description) containers() error {
	for _, container := range d.options.Containers {
		if d.options.RedactEnvironment {
			if err := redact(&container); err != nil {
				d.gaps.add(container.ID, GapDescription, err)
			}
		}
		for _, missing := range container.Missing {
			d.gaps.add(container.ID, GapDescription, errors.New(missing))
		}
		if err := d.write(evidence.PodRecord{Kind: evidence.PodRecordContainer, Container: &container}); err != nil {
			return err
		}
	}
	return nil
}

func (d *description) gapLines() error {
	for i := range d.gaps {
		if err := d.write(evidence.PodRecord{Kind: evidence.PodRecordGap, Gap: &d.gaps[i]}); err != nil {
			return err
		}
	}
	return nil
}

// redact replaces values of environment variables. A specification that cannot be read is left out, and so is an image
// configuration with an environment: its digest would not match any more, and stays.
func redact(container *evidence.ContainerDescription) error {
	spec, err := redactSpec(container.Spec)
	container.Spec = spec
	if container.Config != nil {
		config := *container.Config
		config.Content = nil
		container.Config = &config
	}
	return err
}

// redactSpec rewrites process.env and hooks' env of a runtime specification.
func redactSpec(spec json.RawMessage) (json.RawMessage, error) {
	if len(spec) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(spec))
	// Numbers stay as they are written.
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("the specification is left out: %w", err)
	}
	redactTree(tree)
	redacted, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("the specification is left out: %w", err)
	}
	return redacted, nil
}

// redactTree rewrites every list of strings that is named env.
func redactTree(tree any) {
	switch node := tree.(type) {
	case []any:
		for _, child := range node {
			redactTree(child)
		}
	case map[string]any:
		for name, child := range node {
			if list, ok := child.([]any); ok && name == "env" {
				redactList(list)
				continue
			}
			redactTree(child)
		}
	}
}

func redactList(list []any) {
	for i, one := range list {
		variable, ok := one.(string)
		if !ok {
			continue
		}
		name, value, _ := bytes.Cut([]byte(variable), []byte("="))
		list[i] = string(name) + "=sha256:" + evidence.Digest(value)
	}
}
