package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is one entry of a layer. Mode 0 is 0755 for what holds content. A Link makes a symbolic link.
type File struct {
	Path    string
	Content []byte
	Link    string
	Mode    int64
	// Dir makes an empty folder; the folders above a file are made by themselves.
	Dir bool
}

// Scratch is an image of one layer that runs the entrypoint. Equal inputs make an image of equal digest.
func Scratch(entrypoint []string, files []File) (v1.Image, error) {
	raw, err := Tar(files)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture()
	file.Created = v1.Time{Time: epoch()}
	file.Config.Entrypoint = entrypoint
	file.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("configure the image: %w", err)
	}
	return img, nil
}

// Tar writes the files, and the folders they need, in path order with a fixed time.
func Tar(files []File) ([]byte, error) {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, file := range withParents(files) {
		header := &tar.Header{Name: file.Path, Mode: file.Mode, ModTime: epoch(), Format: tar.FormatPAX}
		switch {
		case file.Dir:
			header.Typeflag, header.Name = tar.TypeDir, file.Path+"/"
		case file.Link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, file.Link
		default:
			header.Typeflag, header.Size = tar.TypeReg, int64(len(file.Content))
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.Path, err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := writer.Write(file.Content); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.Path, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("end the layer: %w", err)
	}
	return out.Bytes(), nil
}

func withParents(files []File) []File {
	byPath := map[string]File{}
	for _, file := range files {
		file.Path = strings.Trim(file.Path, "/")
		if file.Mode == 0 {
			file.Mode = 0o755
		}
		byPath[file.Path] = file
		for dir := path.Dir(file.Path); dir != "."; dir = path.Dir(dir) {
			if _, there := byPath[dir]; !there {
				byPath[dir] = File{Path: dir, Dir: true, Mode: 0o755}
			}
		}
	}
	var all []File
	for _, file := range byPath {
		all = append(all, file)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Path < all[j].Path })
	return all
}

// epoch is the time of everything in an image, so that equal contents have equal digests.
func epoch() time.Time { return time.Unix(0, 0).UTC() }
