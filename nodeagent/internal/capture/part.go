package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// View is a mounted root filesystem.
type View interface {
	// Root is the folder it is mounted on.
	Root() string
	io.Closer
}

// Containers shows the files of containers that an incident holds. An error that is fs.ErrNotExist says that there is
// nothing to capture any more, and becomes a gap; any other one may pass.
type Containers interface {
	// View mounts the held snapshot of a container.
	View(ctx context.Context, incident, containerID string) (View, error)
	// Lower mounts what the container started from.
	Lower(ctx context.Context, incident, containerID string) (View, error)
	// Upper is the folder with what the container changed; ErrNoUpper where the snapshotter has none.
	Upper(ctx context.Context, incident, containerID string) (string, error)
}

// ErrNoUpper says that a snapshotter does not keep a container's changes in a folder of their own.
var ErrNoUpper = errors.New("snapshotter has no upper layer")

// Look is what of a pod is on the node beside its containers' files, each list the most volatile first.
type Look struct {
	// Processes and their memory.
	Processes []Part
	// Memory are file systems in memory.
	Memory []Part
	// Files are logs, volumes and descriptions.
	Files []Part
	// Gaps name what is no part.
	Gaps []evidence.Gap
	// Strays says whether a process of the pod runs, or may, that the freeze of its containers does not reach. Without it no
	// artifact was frozen throughout. It counts beside an error as well, and may be called by several goroutines at a time.
	Strays func() bool
}

// Part is one artifact: an archive when it has Open, a stream when it has Write.
type Part struct {
	// Name of the artifact. To that of an archive the capture adds the extension.
	Name      string
	Kind      v1alpha1.ArtifactKind
	Container string
	// MediaType of a stream.
	MediaType string
	// Frozen are the containers of whose freeze the artifact tells whether it lasted throughout.
	Frozen []string
	// Write writes a stream, which is compressed on its way, and ends it in good order before the time to write in is up: 0
	// is none. One line of JSON for each gap goes to gaps.
	Write func(ctx context.Context, within time.Duration, out, gaps io.Writer) (Summary, error)
	// Open opens the folder of an archive.
	Open func(ctx context.Context) (Tree, error)
}

// Summary of a stream.
type Summary struct {
	Records   int64
	Gaps      []evidence.Gap
	Truncated bool
}

// Tree is a folder to archive.
type Tree struct {
	Root string
	// Upper is the upper folder of the overlay that is mounted as root, Lower the view of the layers below it; each may be
	// empty.
	Upper, Lower string
	// UpperLayer says that root is itself the upper folder of an overlay.
	UpperLayer bool
	Close      func() error
}

// Lost is the error of a part that cannot be captured any more: it becomes a gap of that reason.
type Lost struct {
	Reason string
	Cause  error
}

func (l Lost) Error() string { return l.Reason + ": " + l.Cause.Error() }

// Unwrap returns the cause.
func (l Lost) Unwrap() error { return l.Cause }

// Reasons of gaps that a capture itself adds.
const (
	// GapChangedBetweenReads: a container ran while what it changed was read, and a second reading gave something else.
	GapChangedBetweenReads = "ChangedBetweenReads"
	// GapNotReadAgain: a container ran while what it changed was read, and time was up before a second reading could be
	// compared with the first.
	GapNotReadAgain = "NotReadAgain"
	// GapMemoryTime: the time that the memory of all processes may take was used up before it came to this one.
	GapMemoryTime = "MemoryTimeUsedUp"
	// GapTooManyArtifacts: a response has no room for more.
	GapTooManyArtifacts = "TooManyArtifacts"
)

// errMemoryTime is why the memory of a process is not read: memory can be made without end by forking.
var errMemoryTime = errors.New("half of the order's time went into the memory of other processes, and the rest is for what they changed")

// notCompared is the gap of an upper layer that was not read a second time to its end.
var notCompared = evidence.Gap{
	Reason: GapNotReadAgain, Count: 1, Message: "the container ran, and it was not compared with a second reading because time was up",
}

// plan looks for parts and arranges them. What cannot be looked for now keeps nothing back.
func (r *run) plan(ctx context.Context) (failed []failure) {
	look, err := r.find(ctx)
	if err != nil {
		failed = append(failed, failure{"", err})
	}
	r.planned = err == nil
	r.arrange(look)
	return failed
}

// planAgain is plan when an earlier look failed: what it finds in full is arranged.
func (r *run) planAgain(ctx context.Context) bool {
	look, err := r.find(ctx)
	if err != nil {
		return false
	}
	r.planned = true
	r.arrange(look)
	return true
}

// find looks for what there is beside containers' files. What was stored meanwhile is not missing.
func (r *run) find(ctx context.Context) (Look, error) {
	if r.Look == nil {
		return Look{}, nil
	}
	order := r.order
	order.Previous = r.result
	look, err := r.Look(ctx, order)
	if err != nil {
		err = fmt.Errorf("look for what the pod has on this node: %w", err)
	}
	return look, err
}

// arrange lists the parts in the order of volatility. What only an earlier look found is tried as well, so that its end is
// named.
func (r *run) arrange(look Look) {
	look.Processes = r.kept(r.found.Processes, look.Processes)
	look.Memory = r.kept(r.found.Memory, look.Memory)
	look.Files = r.kept(r.found.Files, look.Files)
	look.Gaps = union(r.found.Gaps, look.Gaps)
	r.found = look
	var parts []Part
	if r.order.Flows != nil {
		parts = append(parts, flowsPart(r.order.Flows))
	}
	names := folders(r.order.Containers)
	parts = slices.Concat(parts, look.Processes, look.Memory)
	for i, container := range r.order.Containers {
		parts = append(parts, r.upperPart(container, names[i]))
	}
	parts = append(parts, look.Files...)
	for i, container := range r.order.Containers {
		parts = append(parts, r.rootPart(container, names[i]))
	}
	for i := range parts {
		parts[i].Name = r.artifact(&parts[i])
	}
	parts, tooMany := fit(parts, v1alpha1.MaxArtifacts-r.storedBeside(parts))
	r.parts, r.gaps, r.strays = parts, slices.Concat(look.Gaps, tooMany), look.Strays
}

// artifact is the name of a part that has no extension yet.
func (r *run) artifact(part *Part) string {
	if part.Open != nil {
		return part.Name + r.extension()
	}
	return part.Name
}

// kept adds to the parts of a look those of an earlier one that it did not find and that are not settled.
func (r *run) kept(before, now []Part) []Part {
	parts := slices.Clone(now)
	for i := range before {
		again := slices.ContainsFunc(now, func(p Part) bool { return p.Name == before[i].Name })
		if !again && !r.settled(r.artifact(&before[i])) {
			parts = append(parts, before[i])
		}
	}
	return parts
}

// union are the gaps of two looks. One that both name is counted as often as the look did that found more of it.
func union(before, now []evidence.Gap) []evidence.Gap {
	gaps := slices.Clone(now)
	for _, gap := range before {
		at := slices.IndexFunc(gaps, func(g evidence.Gap) bool { return g.Reason == gap.Reason && g.Message == gap.Message })
		if at < 0 {
			gaps = append(gaps, gap)
			continue
		}
		gaps[at].Count = max(gaps[at].Count, gap.Count)
	}
	return gaps
}

// lasting says of a kind that it does not go with the processes: there is time to look again before it.
func lasting(kind v1alpha1.ArtifactKind) bool {
	switch kind {
	case v1alpha1.ArtifactLogs, v1alpha1.ArtifactVolume, v1alpha1.ArtifactPodDescription, v1alpha1.ArtifactRootFilesystem:
		return true
	default:
		return false
	}
}

// storedBeside counts the artifacts of earlier calls that are in no plan any more.
func (r *run) storedBeside(parts []Part) int {
	count := 0
	for i := range r.result.Artifacts {
		if !slices.ContainsFunc(parts, func(p Part) bool { return p.Name == r.result.Artifacts[i].Name }) {
			count++
		}
	}
	return count
}

// fit leaves out what a response has no room for, from the last.
func fit(parts []Part, room int) ([]Part, []evidence.Gap) {
	gap := evidence.Gap{Reason: GapTooManyArtifacts}
	leave := func(i int) {
		if gap.Count == 0 {
			gap.Message = fmt.Sprintf("a response names %d artifacts at most; left out, first: %s", room, parts[i].Name)
		}
		gap.Count++
		parts = slices.Delete(parts, i, i+1)
	}
	// What a pod can make many of gives way to what it has one of.
	for _, kind := range []v1alpha1.ArtifactKind{v1alpha1.ArtifactProcessMemory, v1alpha1.ArtifactMemoryFiles, v1alpha1.ArtifactVolume} {
		for i := len(parts) - 1; i >= 0 && len(parts) > room; i-- {
			if parts[i].Kind == kind {
				leave(i)
			}
		}
	}
	for len(parts) > room && len(parts) > 0 {
		leave(len(parts) - 1)
	}
	if gap.Count == 0 {
		return parts, nil
	}
	return parts, []evidence.Gap{gap}
}

// reserved are the folders of the evidence that are no container's.
var reserved = []string{"memory", "volumes", "pod", "logs", "termination", "flows", "volatile", "process-files", "podfiles", "missing"}

// folders names a folder of the evidence for each container, and sorts the containers by it. A container that was
// restarted appears twice under one name; then the folder carries the id, as it does where the name is another's.
func folders(containers []Container) []string {
	count := map[string]int{}
	for _, container := range containers {
		count[container.Name]++
	}
	name := func(container Container) string {
		if count[container.Name] == 1 && !slices.Contains(reserved, container.Name) {
			return container.Name
		}
		return container.Name + "-" + container.ID[:min(12, len(container.ID))]
	}
	slices.SortFunc(containers, func(a, b Container) int { return strings.Compare(name(a), name(b)) })
	names := make([]string, len(containers))
	for i, container := range containers {
		names[i] = name(container)
	}
	return names
}

func (r *run) upperPart(container Container, folder string) Part {
	return Part{
		Name: folder + "/changes", Kind: v1alpha1.ArtifactUpperLayer, Container: container.Name,
		Frozen: []string{container.ID},
		Open: func(ctx context.Context) (Tree, error) {
			upper, err := r.Containers.Upper(ctx, r.order.Incident, container.ID)
			if errors.Is(err, ErrNoUpper) {
				return Tree{}, Lost{evidence.GapUpperLayerNotSeparate, err}
			}
			if err != nil {
				return Tree{}, gone(container, "upper layer", err)
			}
			lower, err := r.Containers.Lower(ctx, r.order.Incident, container.ID)
			if errors.Is(err, fs.ErrNotExist) {
				// An image without layers has nothing below.
				return Tree{Root: upper, UpperLayer: true, Close: func() error { return nil }}, nil
			}
			if err != nil {
				return Tree{}, fmt.Errorf("view the image of container %s: %w", container.ID, err)
			}
			return Tree{Root: upper, UpperLayer: true, Lower: lower.Root(), Close: lower.Close}, nil
		},
	}
}

func (r *run) rootPart(container Container, folder string) Part {
	return Part{
		Name: folder + "/rootfs", Kind: v1alpha1.ArtifactRootFilesystem, Container: container.Name,
		Frozen: []string{container.ID},
		Open: func(ctx context.Context) (Tree, error) {
			view, err := r.Containers.View(ctx, r.order.Incident, container.ID)
			if err != nil {
				return Tree{}, gone(container, "view", err)
			}
			// Without it the archive is as complete; the index does not say which layer an entry comes from.
			upper, err := r.Containers.Upper(ctx, r.order.Incident, container.ID)
			if err != nil && !errors.Is(err, ErrNoUpper) {
				return Tree{}, errors.Join(fmt.Errorf("upper layer of container %s: %w", container.ID, err), view.Close())
			}
			return Tree{Root: view.Root(), Upper: upper, Close: view.Close}, nil
		},
	}
}

func gone(container Container, what string, err error) error {
	err = fmt.Errorf("%s of container %s: %w", what, container.ID, err)
	if errors.Is(err, fs.ErrNotExist) {
		return Lost{evidence.GapContainerNotCaptured, err}
	}
	return err
}

// extension of an archive.
func (r *run) extension() string {
	if r.order.Action.Compression == v1alpha1.CompressionGzip {
		return ".tar.gz"
	}
	return ".tar.zst"
}
