package podfiles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"ugallu.io/forensics/api/evidence"
)

const (
	// maxNames of a folder of the kubelet's that are looked at.
	maxNames = 1000
	// maxVolumeData bounds what the kubelet wrote down of a CSI volume.
	maxVolumeData = 64 << 10
	pluginEmpty   = "kubernetes.io~empty-dir"
	pluginCSI     = "kubernetes.io~csi"
	pluginSecret  = "kubernetes.io~secret" // #nosec G101 -- the name of a folder
	pluginProject = "kubernetes.io~projected"
)

// describedPlugins are the plugins whose volumes hold what the API server gave the pod.
var describedPlugins = map[string]string{
	"secret": pluginSecret, "projected": pluginProject,
	"configMap": "kubernetes.io~configmap", "downwardAPI": "kubernetes.io~downward-api",
}

// volumes lists the volumes by the pod's spec and by the kubelet's folders.
func (f *finder) volumes(s *scene) {
	folder := filepath.Join(f.found.Pod.folder(f.found.roots), "volumes")
	onDisk := map[string][]string{}
	plugins, err := f.names(s, folder)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		f.gaps.add(folder, reason(err), err)
	}
	for _, plugin := range plugins {
		path := filepath.Join(folder, plugin)
		names, err := f.names(s, path)
		if err != nil {
			f.gaps.add(path, reason(err), err)
		}
		onDisk[plugin] = names
	}
	if f.found.Pod.Volumes == nil {
		f.gaps.add(folder, GapVolumesUnknown, errors.New("the pod's spec is not known: of its volumes, hostPath for one has no folder"))
	}
	for i := range f.found.Pod.Volumes {
		f.specified(s, &f.found.Pod.Volumes[i], onDisk)
	}
	for _, plugin := range plugins {
		for _, name := range onDisk[plugin] {
			f.unspecified(s, plugin, name)
		}
	}
}

// specified records a volume of the spec, and takes it off those that are on disk.
func (f *finder) specified(s *scene, volume *corev1.Volume, onDisk map[string][]string) {
	record := evidence.PodVolume{Name: volume.Name}
	var err error
	if record.Kind, record.Spec, err = kindOf(volume); err != nil {
		f.gaps.add(volume.Name, GapUnreadable, err)
	}
	plugin := describedPlugins[record.Kind]
	switch record.Kind {
	case "emptyDir":
		plugin = pluginEmpty
	case "csi":
		plugin = pluginCSI
	}
	there := slices.Contains(onDisk[plugin], volume.Name)
	onDisk[plugin] = slices.DeleteFunc(onDisk[plugin], func(name string) bool { return name == volume.Name })
	if !there && (plugin == pluginEmpty || describedPlugins[record.Kind] != "") {
		f.gaps.add(volume.Name, GapUnreadable, fmt.Errorf("the %s volume has no folder on the node", record.Kind))
		f.found.Volumes = append(f.found.Volumes, record)
		return
	}
	medium := corev1.StorageMediumDefault
	if volume.EmptyDir != nil {
		medium = volume.EmptyDir.Medium
	}
	f.record(s, record, plugin, medium)
}

// kindOf returns which member of a volume's source is set, and what it says.
func kindOf(volume *corev1.Volume) (kind string, spec json.RawMessage, err error) {
	members := map[string]json.RawMessage{}
	raw, err := json.Marshal(volume.VolumeSource)
	if err == nil {
		err = json.Unmarshal(raw, &members)
	}
	for kind, spec := range members {
		return kind, spec, err
	}
	if err == nil {
		err = errors.New("the volume's source is of a kind that is not known")
	}
	return "", nil, err
}

// unspecified records a volume that has a folder and no entry in the spec, or one under another name: a claim's folder
// has the name of the persistent volume.
func (f *finder) unspecified(s *scene, plugin, name string) {
	f.record(s, evidence.PodVolume{Name: name, Kind: plugin}, plugin, corev1.StorageMediumDefault)
}

// record adds a volume with its source, or the gap that it is.
func (f *finder) record(s *scene, record evidence.PodVolume, plugin string, medium corev1.StorageMedium) {
	path := filepath.Join(f.found.Pod.folder(f.found.roots), "volumes", plugin, record.Name)
	fromSpec := record.Kind != plugin
	switch {
	case plugin != "" && len(validation.IsDNS1123Subdomain(record.Name)) > 0:
		f.gaps.add(path, GapUnreadable, fmt.Errorf("%q %w", record.Name, ErrBadName))
	case plugin == pluginEmpty:
		record.Source = f.emptyDir(s, record.Name, path, medium)
	case describes(plugin):
		record.Described = true
		f.found.described = append(f.found.described, describedVolume{record.Name, plugin, path})
	default:
		if plugin == pluginCSI {
			record.Driver, record.Handle = f.csi(s, path)
		}
		if fromSpec || f.found.Pod.Volumes == nil {
			f.gaps.add(record.Name, GapVolume, fmt.Errorf("a volume of kind %s is not read", record.Kind))
		}
	}
	f.found.Volumes = append(f.found.Volumes, record)
}

func describes(plugin string) bool {
	for _, one := range describedPlugins {
		if one == plugin {
			return true
		}
	}
	return false
}

// emptyDir adds an emptyDir volume and returns its source's name, empty when it is none.
func (f *finder) emptyDir(s *scene, name, path string, medium corev1.StorageMedium) string {
	fd, at, err := s.folder(path)
	if err != nil {
		f.gaps.add(path, reason(err), err)
		return ""
	}
	defer f.close(fd, path)
	stat, memory, err := s.inMemory(fd, at)
	switch {
	case err != nil:
		f.gaps.add(path, GapUnreadable, err)
		return ""
	case !memory && medium != corev1.StorageMediumDefault:
		f.gaps.add(path, GapMemoryVolume, fmt.Errorf("its medium is %s, and here it is a folder of %q", medium, s.fsTypes[at]))
		return ""
	case !memory:
		source := evidence.PodSource{Name: "volumes/" + name, Kind: evidence.PodSourceVolume, Volume: name}
		if !f.disk(s, place{fd, at, path}, source) {
			return ""
		}
		return source.Name
	}
	source := Source{PodUID: f.found.Pod.UID, inode: stat.Ino, PodSource: evidence.PodSource{
		Name: memoryFolder + "emptydir-" + name, Kind: evidence.PodSourceMemoryVolume, Volume: name, Memory: true,
		Path: evidence.Text(path), Filesystem: s.fsTypes[at], Device: device(&stat),
	}}
	source.UsedBytes, source.Files = f.usage(place{fd, at, path})
	f.found.Sources = append(f.found.Sources, source)
	return source.Name
}

// csi returns what the kubelet wrote down of a CSI volume beside its mount, which is not touched.
func (f *finder) csi(s *scene, path string) (driver, handle string) {
	var noted struct {
		DriverName   string `json:"driverName"`
		VolumeHandle string `json:"volumeHandle"`
	}
	fd, _, err := s.folder(path)
	if err != nil {
		f.gaps.add(path, reason(err), err)
		return "", ""
	}
	defer f.close(fd, path)
	content, err := readBelow(s, fd, "vol_data.json", maxVolumeData)
	if err == nil {
		err = json.Unmarshal(content, &noted)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		f.gaps.add(filepath.Join(path, "vol_data.json"), GapUnreadable, err)
	}
	return noted.DriverName, noted.VolumeHandle
}

// names lists a folder of the kubelet's, sorted, up to maxNames.
func (f *finder) names(s *scene, path string) ([]string, error) {
	fd, at, err := s.folder(path)
	if err != nil {
		return nil, err
	}
	defer f.close(fd, path)
	if !local[s.fsTypes[at]] {
		return nil, fmt.Errorf("%w: %q", errUntrusted, s.fsTypes[at])
	}
	list, err := listFolder(fd)
	if err != nil {
		return nil, err
	}
	names, err := list.Readdirnames(maxNames + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err := errors.Join(err, list.Close()); err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	slices.Sort(names)
	if len(names) > maxNames {
		f.gaps.add(path, GapTooMany, fmt.Errorf("more than %d names", maxNames))
		names = names[:maxNames]
	}
	return names, nil
}

// listFolder opens a folder, of which a place is open, to list its names.
func listFolder(fd int) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	list, err := unix.Openat(fd, ".", flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		list, err = unix.Openat(fd, ".", flags, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	return os.NewFile(uintptr(list), "."), nil // #nosec G115 -- descriptors are not negative
}

func isEmpty(fd int) (bool, error) {
	list, err := listFolder(fd)
	if err != nil {
		return false, err
	}
	_, err = list.Readdirnames(1)
	empty := errors.Is(err, io.EOF)
	if empty {
		err = nil
	}
	return empty, errors.Join(err, list.Close())
}
