package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/capture"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
	"ugallu.io/forensics/nodeagent/internal/volatile"
)

// gapNoProcesses: no process of the pod was left when the capture came to them.
const gapNoProcesses = "ProcessesGone"

// errNoProcess says that there is nothing to read the state of.
var errNoProcess = errors.New("no process of the pod is on this node any more")

// look finds what there is of a pod beside its containers' files.
func (p captureParts) look(ctx context.Context, order capture.Order) (capture.Look, error) {
	pod := p.pod(ctx, order.Pod)
	still := p.standstill(order.Pod.UID, pod)
	look := capture.Look{Strays: still.run}
	found, err := p.lister.Pod(ctx, order.Pod.UID)
	if err != nil {
		return look, err
	}
	still.tell(found, pod)
	target, err := volatileTarget(found)
	if err != nil {
		return look, err
	}
	// An id that was free in between may be another process's by now.
	again, err := p.lister.Pod(ctx, order.Pod.UID)
	if err != nil {
		return look, err
	}
	listed, err := volatileTarget(again)
	if err != nil {
		return look, err
	}
	processes, replaced, err := stillThere(target.Processes, listed.Processes)
	if err != nil {
		return look, err
	}
	target.Processes = processes
	files, err := podfiles.Find(ctx, podfiles.Pod{
		Namespace: order.Pod.Namespace, Name: order.Pod.Name, UID: order.Pod.UID, Processes: found.Processes,
		Volumes: volumes(pod),
	}, podfiles.Roots{Kept: p.keeper.Folder})
	if err != nil {
		return look, err
	}
	l := looker{captureParts: p, order: order, target: target, files: files, ends: ends(pod)}
	for _, container := range found.Containers {
		if container.Process != 0 {
			l.running = append(l.running, container.ID)
		}
	}
	look.Processes, look.Gaps = l.memory(l.processes())
	look.Gaps = append(look.Gaps, replaced...)
	look.Files = l.diskFiles()
	// Beside an error, what was found counts: processes do not wait for the next look.
	look.Memory, err = l.memoryFiles(ctx)
	return look, err
}

// pod as the API server has it, nil when it is gone or cannot be read.
func (p captureParts) pod(ctx context.Context, ref v1alpha1.PodRef) *corev1.Pod {
	pod := new(corev1.Pod)
	err := p.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, pod)
	if err != nil || string(pod.UID) != ref.UID {
		return nil
	}
	return pod
}

// volumes of the pod's spec, nil when it is not known: then what has no folder on the node is not named, and the gap says so.
func volumes(pod *corev1.Pod) []corev1.Volume {
	if pod == nil {
		return nil
	}
	return append([]corev1.Volume{}, pod.Spec.Volumes...)
}

// looker makes the parts of one pod.
type looker struct {
	captureParts
	order   capture.Order
	target  volatile.Target
	files   podfiles.Found
	running []string
	// ends says that the pod has a deadline at which the kubelet ends all of it.
	ends bool
}

// ends says whether the kubelet counts the time to a deadline of the pod.
func ends(pod *corev1.Pod) bool {
	return pod != nil && pod.Spec.ActiveDeadlineSeconds != nil && pod.Status.StartTime != nil
}

func (l *looker) options(artifact string, within time.Duration, gaps io.Writer) volatile.Options {
	action := l.order.Action
	options := volatile.Options{Artifact: artifact, Gaps: gaps, RedactEnvironment: volatile.RedactNone}
	switch action.RedactEnvironment {
	case v1alpha1.RedactAll:
		options.RedactEnvironment = volatile.RedactAll
	case v1alpha1.RedactMatching:
		names, err := regexp.Compile(action.RedactNames)
		if err != nil {
			// Less may be stored than was asked for, and nothing that was to stay out.
			options.RedactEnvironment = volatile.RedactAll
			break
		}
		options.RedactEnvironment, options.RedactNames = volatile.RedactMatching, names
	case v1alpha1.RedactNone:
	}
	// The store may be waited for in between.
	options.Limits.Duration = within
	options.Limits.FileTotal, options.Limits.Memory = action.MaxBytes.Value(), action.MaxBytes.Value()
	return options
}

// processes are the state of the pod's processes and those of their files that no name leads to.
func (l *looker) processes() []capture.Part {
	state := capture.Part{
		Name: "volatile.ndjson.zst", Kind: v1alpha1.ArtifactVolatileState, MediaType: evidence.MediaTypeVolatile, Frozen: l.running,
	}
	state.Write = func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error) {
		if len(l.target.Processes) == 0 {
			return capture.Summary{}, capture.Lost{Reason: gapNoProcesses, Cause: errNoProcess}
		}
		result, err := volatile.Collect(ctx, out, l.target, l.options(state.Name, within, gaps))
		return capture.Summary{Records: result.Records, Gaps: result.Gaps, Truncated: result.Truncated}, err
	}
	files := capture.Part{
		Name: "process-files.tar.zst", Kind: v1alpha1.ArtifactProcessFiles, MediaType: evidence.MediaTypeProcessFiles, Frozen: l.running,
	}
	files.Write = func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error) {
		if len(l.target.Processes) == 0 {
			return capture.Summary{}, capture.Lost{Reason: gapNoProcesses, Cause: errNoProcess}
		}
		result, err := volatile.WriteFiles(ctx, out, l.target, l.options(files.Name, within, gaps))
		return capture.Summary{Records: result.Files, Gaps: result.Gaps, Truncated: result.Truncated}, err
	}
	return []capture.Part{state, files}
}

// memory adds the memory of the processes of which it is wanted, and names how many it is not wanted of.
func (l *looker) memory(parts []capture.Part) ([]capture.Part, []evidence.Gap) {
	names, dies := map[string]string{}, map[string]bool{}
	for _, container := range l.order.Containers {
		names[container.ID], dies[container.ID] = container.Name, container.Dies
	}
	left, read := int64(0), map[string]bool{}
	for _, artifact := range l.order.Previous.Artifacts {
		if artifact.Kind == v1alpha1.ArtifactProcessMemory {
			read[artifact.Container] = true
		}
	}
	for _, process := range l.target.Processes {
		if l.order.Memory == v1alpha1.MemoryAlways || l.order.Memory == v1alpha1.MemoryAuto && (l.ends || dies[process.ContainerID]) {
			parts = append(parts, l.core(process, names[process.ContainerID]))
			read[names[process.ContainerID]] = true
		} else {
			left++
		}
	}
	var gaps []evidence.Gap
	for _, container := range l.order.Containers {
		wanted := l.order.Memory == v1alpha1.MemoryAlways || l.order.Memory == v1alpha1.MemoryAuto && (l.ends || container.Dies)
		if wanted && container.Ran && !read[container.Name] {
			message := fmt.Sprintf("the memory of container %s went with its processes", container.Name)
			gaps = append(gaps, evidence.Gap{Reason: gapNoProcesses, Message: message, Count: 1})
		}
	}
	if left == 0 {
		return parts, gaps
	}
	message := "the configuration asks for no memory"
	if l.order.Memory == v1alpha1.MemoryAuto {
		message = "memory Auto: neither a probe nor a deadline of the pod is expected to kill these processes, and their memory lasts as long as they do"
	}
	return parts, append(gaps, evidence.Gap{Reason: evidence.GapMemoryNotCaptured, Message: message, Count: left})
}

func (l *looker) core(process volatile.Process, container string) capture.Part {
	folder := container
	if folder == "" {
		folder = "pod"
	}
	part := capture.Part{
		// The start keeps it apart from a later process with the same id.
		Name: fmt.Sprintf("%s/memory-%d-%d.core.zst", folder, process.PID, process.StartTicks), Kind: v1alpha1.ArtifactProcessMemory,
		Container: container, MediaType: evidence.MediaTypeMemory, Frozen: l.running,
	}
	if process.ContainerID != "" {
		part.Frozen = []string{process.ContainerID}
	}
	part.Write = func(ctx context.Context, within time.Duration, out, gaps io.Writer) (capture.Summary, error) {
		result, err := volatile.Memory(ctx, out, process, l.options(part.Name, within, gaps))
		if err == nil && result.Size == 0 {
			lost := capture.Lost{Reason: volatile.GapEnded, Cause: fmt.Errorf("process %d had ended", process.PID)}
			if len(result.Gaps) > 0 {
				lost = capture.Lost{Reason: result.Gaps[0].Reason, Cause: fmt.Errorf("process %d: %s", process.PID, result.Gaps[0].Message)}
			}
			return capture.Summary{}, lost
		}
		return capture.Summary{Records: int64(result.Runs), Gaps: result.Gaps, Truncated: result.Truncated}, err
	}
	return part
}

// memoryFiles are the file systems in memory, also those that are kept of a pod that is gone.
func (l *looker) memoryFiles(ctx context.Context) ([]capture.Part, error) {
	var parts []capture.Part
	seen := map[string]bool{}
	for _, source := range l.files.Sources {
		if !source.Memory {
			continue
		}
		seen[source.Name] = true
		parts = append(parts, l.archive(source.Name, v1alpha1.ArtifactMemoryFiles, func(ctx context.Context) (*podfiles.Folder, error) {
			folder, err := l.keeper.Clone(ctx, source)
			if err == nil {
				return folder, nil
			}
			// What cannot be kept beyond the pod's end is read as long as it lasts.
			folder, opened := source.Open(ctx)
			if opened != nil {
				return nil, errors.Join(err, opened)
			}
			return folder, nil
		}))
	}
	kept, err := l.keeper.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list what is kept of memory: %w", err)
	}
	for _, one := range kept {
		if one.PodUID != l.order.Pod.UID || seen[one.Source] {
			continue
		}
		parts = append(parts, l.archive(one.Source, v1alpha1.ArtifactMemoryFiles, func(ctx context.Context) (*podfiles.Folder, error) {
			return l.keeper.Open(ctx, one)
		}))
	}
	return parts, nil
}

// diskFiles are logs and volumes, and what describes the pod.
func (l *looker) diskFiles() []capture.Part {
	var parts []capture.Part
	for _, source := range l.files.Sources {
		if source.Memory {
			continue
		}
		kind := v1alpha1.ArtifactVolume
		if source.Kind == evidence.PodSourceLogs || source.Kind == evidence.PodSourceTermination {
			kind = v1alpha1.ArtifactLogs
		}
		parts = append(parts, l.archive(source.Name, kind, source.Open))
	}
	return append(parts, l.description())
}

func (l *looker) archive(name string, kind v1alpha1.ArtifactKind, open func(context.Context) (*podfiles.Folder, error)) capture.Part {
	return capture.Part{Name: name, Kind: kind, Frozen: l.running, Open: func(ctx context.Context) (capture.Tree, error) {
		folder, err := open(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return capture.Tree{}, capture.Lost{Reason: podfiles.GapUnreadable, Cause: err}
		}
		if err != nil {
			return capture.Tree{}, err
		}
		return capture.Tree{Root: folder.Root(), Close: folder.Close}, nil
	}}
}

// description has what the runtime and the node know of the pod.
func (l *looker) description() capture.Part {
	part := capture.Part{Name: "podfiles.ndjson.zst", Kind: v1alpha1.ArtifactPodDescription, MediaType: evidence.MediaTypePodFiles}
	part.Write = func(ctx context.Context, _ time.Duration, out, _ io.Writer) (capture.Summary, error) {
		redact := l.order.Action.RedactEnvironment != v1alpha1.RedactNone && l.order.Action.RedactEnvironment != ""
		options := podfiles.DescribeOptions{At: time.Now(), RedactEnvironment: redact, WithoutSecretHashes: redact}
		for _, container := range l.order.Containers {
			described, err := l.holder.Describe(ctx, l.order.Incident, container.ID)
			if errors.Is(err, fs.ErrNotExist) {
				// The container has its own gap, where its files are missing.
				continue
			}
			if err != nil {
				return capture.Summary{}, fmt.Errorf("describe container %s: %w", container.ID, err)
			}
			options.Containers = append(options.Containers, described)
		}
		records := &lines{to: out}
		gaps, err := podfiles.Describe(ctx, records, l.files, options)
		return capture.Summary{Records: records.count, Gaps: gaps}, err
	}
	return part
}

// lines counts the lines that pass.
type lines struct {
	to    io.Writer
	count int64
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	n, err := l.to.Write(p)
	l.count += int64(bytes.Count(p[:n], []byte{'\n'}))
	return n, err
}
