package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// layers are descriptors of the folders that correspond, in other layers, to a folder that is walked.
type layers struct{ upper, lower int }

const (
	// noFolder: the layer has no such folder.
	noFolder = -1
	// unknownFolder: the layer was not given, or could not be read here.
	unknownFolder = -2
)

// openLayers opens the roots of the layers that were given.
func (w *walker) openLayers() (layers, error) {
	upper, err := w.openLayer(w.options.Upper)
	if err != nil {
		return layers{unknownFolder, unknownFolder}, err
	}
	lower, err := w.openLayer(w.options.Lower)
	return layers{upper, lower}, err
}

func (w *walker) openLayer(path string) (int, error) {
	if path == "" {
		return unknownFolder, nil
	}
	fd, err := openRoot(path)
	if err != nil {
		return unknownFolder, w.lack(".", GapLayer, fmt.Errorf("layer %s: %w", path, err), nil)
	}
	return fd, nil
}

func (l layers) close() error {
	var failed []error
	for _, fd := range [...]int{l.upper, l.lower} {
		if fd >= 0 {
			failed = append(failed, unix.Close(fd))
		}
	}
	return errors.Join(failed...)
}

// below opens the folders of other layers that correspond to a folder.
func (w *walker) below(o *object) (layers, error) {
	if o.path == "." {
		return w.openLayers()
	}
	upper, err := w.openBeside(o, o.beside.upper, o.name)
	if err != nil {
		return layers{unknownFolder, unknownFolder}, err
	}
	parent, name := o.beside.lower, o.name
	if o.overlay != nil && (o.overlay.Redirect != "" || o.overlay.RedirectBytes != nil) {
		name = o.overlay.Redirect
		if o.overlay.RedirectBytes != nil {
			name = string(o.overlay.RedirectBytes)
		}
		if strings.HasPrefix(name, "/") {
			parent, name = w.lower, strings.TrimLeft(name, "/")
		}
	}
	lower, err := w.openBeside(o, parent, name)
	return layers{upper, lower}, err
}

func (w *walker) openBeside(o *object, parent int, name string) (int, error) {
	if parent < 0 {
		return parent, nil
	}
	if name == "" { // a redirect to the root, which overlayfs never makes
		return unknownFolder, nil
	}
	fd, err := open(parent, name, unix.O_DIRECTORY)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return noFolder, nil
	case err != nil:
		return unknownFolder, w.lack(o.path, GapLayer, fmt.Errorf("look into the other layer: %w", err), nil)
	}
	return fd, nil
}

// findLayer says from which layer an object comes: the upper one has what it holds under the same path.
func (w *walker) findLayer(o *object) error {
	switch {
	case w.options.UpperLayer:
		o.layer = evidence.LayerUpper
		return nil
	case o.beside.upper == unknownFolder:
		return nil
	case o.beside.upper == noFolder:
		o.layer = evidence.LayerLower
		return nil
	}
	var stat unix.Statx_t
	err := describe(o.beside.upper, o.name, &stat)
	if errors.Is(err, unix.ENOENT) || (err == nil && isWhiteout(&stat)) {
		o.layer = evidence.LayerLower
		return nil
	}
	if err == nil && stat.Mode&unix.S_IFMT != o.kind() {
		err = errReplaced
	}
	if err == nil && o.kind() == unix.S_IFREG {
		o.overlay, err = w.marks.copiedUp(o.beside.upper, o.name)
	}
	if err != nil {
		return w.gap(o, GapLayer, err)
	}
	o.layer = evidence.LayerUpper
	return nil
}

// compare flags a file whose metadata are those of the file of the layers below, by whether its content is, too.
func (w *walker) compare(o *object) error {
	if o.beside.lower < 0 || o.layer == evidence.LayerLower || (o.overlay != nil && o.overlay.Metacopy) {
		return nil
	}
	var stat unix.Statx_t
	err := describe(o.beside.lower, o.name, &stat)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return w.gap(o, GapLayer, err)
	case !sameMetadata(&o.stat, &stat):
		return nil
	case o.sha256 == "":
		return w.gap(o, GapLayer, errors.New("too large to be compared"))
	}
	sum, err := w.hashBeside(o)
	switch {
	case w.interrupted() != nil:
		return w.interrupted()
	case err != nil:
		return w.gap(o, GapLayer, err)
	case sum == o.sha256:
		o.flag(evidence.FlagSameAsLower)
	default:
		o.flag(evidence.FlagSameMetadataOtherContent)
	}
	return nil
}

func sameMetadata(a, b *unix.Statx_t) bool {
	return a.Mode == b.Mode && a.Size == b.Size && a.Mtime == b.Mtime && sameOwners(a, b)
}

// sameOwners says whether the ids of a file of the upper layer are those of the layers below. The upper layer of a pod in
// a user namespace has the node's ids, the image below its own: the kubelet gives each pod 65,536 ids, from a multiple of
// that on, which stand for users and groups from 0 on.
func sameOwners(upper, lower *unix.Statx_t) bool {
	const idsOfPod = 65536
	first := upper.Uid - lower.Uid
	return first%idsOfPod == 0 && upper.Gid-lower.Gid == first
}

// hashBeside hashes the file of the layers below that has an object's path.
func (w *walker) hashBeside(o *object) (string, error) {
	fd, err := open(o.beside.lower, o.name, unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	r := &reading{fd: fd}
	sum := sha256.New()
	if w.buffer == nil {
		w.buffer = make([]byte, readSize)
	}
	for at := int64(0); ; {
		if w.interrupted() != nil || w.late() {
			err = errLimit
			break
		}
		n := r.read(w.buffer, at)
		if n == 0 {
			break
		}
		sum.Write(w.buffer[:n])
		at += int64(n)
	}
	if err == nil && !errors.Is(r.short, io.ErrUnexpectedEOF) {
		err = r.short
	}
	return hex.EncodeToString(sum.Sum(nil)), errors.Join(err, unix.Close(fd))
}
