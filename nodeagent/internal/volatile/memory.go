package volatile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// MemoryResult is what is known of a process's memory.
type MemoryResult struct {
	// Present is how much memory was found, Stored how much of it is in the file, both in bytes.
	Present, Stored int64
	// Runs of pages and Threads in the file.
	Runs, Threads int
	// Size and SHA256 of the file. Nothing was written when the size is 0: the process had ended.
	Size      int64
	SHA256    string
	Gaps      []evidence.Gap
	Truncated bool
}

// memoryReader is the state of one call.
type memoryReader struct {
	*handle
	options Options
	guard   *guard
	gaps    *gapLog
}

// Memory writes the memory that belongs to a process alone as an ELF core file: pages that are present and anonymous, or
// private copies of a file's. It is planned first and then written in one pass. The process is neither stopped nor changed;
// one that runs is seen at a different moment on each page.
//
// Above Limits.Memory, small mappings go before large ones, so that one large mapping does not hide all others. A page that
// cannot be read is zeros. Both are gaps; errors are those of w, of Options.Gaps and of ctx.
func Memory(ctx context.Context, w io.Writer, process Process, options Options) (MemoryResult, error) {
	options.Limits = options.Limits.withDefaults()
	m := &memoryReader{options: options, guard: newGuard(options.Limits), gaps: newGapLog(options)}
	result, err := m.all(ctx, w, process)
	if err != nil {
		return MemoryResult{}, fmt.Errorf("read the memory of process %d: %w", process.PID, err)
	}
	result.Gaps, result.Truncated = m.gaps.Gaps(), m.gaps.truncated
	return result, nil
}

func (m *memoryReader) path(part string) string { return "/proc/" + strconv.Itoa(m.PID) + "/" + part }

func (m *memoryReader) all(ctx context.Context, w io.Writer, process Process) (MemoryResult, error) {
	h, err := open(process, m.options.Limits.Patience)
	if err != nil {
		return MemoryResult{}, m.gaps.add("/proc/"+strconv.Itoa(process.PID)+"/mem", reasonOf(err), err)
	}
	defer h.release()
	m.handle = h
	plan, err := m.plan(ctx)
	if ctx.Err() != nil {
		return MemoryResult{}, ctx.Err()
	}
	if err != nil {
		return MemoryResult{}, m.gaps.add(m.path("mem"), reasonOf(err), err)
	}
	defer plan.memory.release()
	if err := m.report(plan); err != nil {
		return MemoryResult{}, err
	}
	counted := newCountingWriter(w)
	if err := m.write(ctx, counted, plan); err != nil {
		return MemoryResult{}, err
	}
	// Memory of a process that ends while its pages are looked for looks empty.
	if err := m.check(); err != nil {
		if err := m.gaps.add(m.path("mem"), reasonOf(err), err); err != nil {
			return MemoryResult{}, err
		}
	}
	return MemoryResult{
		Present: plan.present, Stored: plan.stored, Runs: len(plan.runs), Threads: len(plan.threads),
		Size: counted.bytes, SHA256: counted.digest(),
	}, nil
}

// memoryPlan is what the file will hold.
type memoryPlan struct {
	process  stat
	ids      identity
	argv     string
	auxv     string
	areas    []area
	runs     []loadRun
	threads  []threadRegisters
	memory   *content
	present  int64
	stored   int64
	swapped  int64
	secret   int64
	moreRuns bool
	found    findings
}

// loadRun is a run of pages with the permissions of its mapping.
type loadRun struct {
	extent
	permissions string
}

// plan looks at everything but the pages' content.
func (m *memoryReader) plan(ctx context.Context) (*memoryPlan, error) {
	limits := m.options.Limits
	through, _, err := watched(ctx, m.guard, m.shared, m.patience, func(found *findings) (string, error) {
		return findThrough(m.handle, found)
	})
	if err == nil && through == "" {
		err = errEnded
	}
	if err != nil {
		return nil, err
	}
	m.through = through
	plan, found, err := watched(ctx, m.guard, m.shared, m.patience, func(found *findings) (*memoryPlan, error) {
		return describeMemory(m.handle, limits, found)
	})
	if err != nil {
		return nil, err
	}
	plan.found = found
	memory, pagemap, err := m.openMemory()
	if err != nil {
		return nil, err
	}
	defer pagemap.release()
	plan.memory = memory
	if err := m.choose(ctx, plan, pagemap); err != nil {
		memory.release()
		return nil, err
	}
	return plan, nil
}

// describeMemory reads what the notes will say.
func describeMemory(h *handle, limits Limits, found *findings) (*memoryPlan, error) {
	plan := &memoryPlan{}
	var err error
	if plan.process, err = h.stat("stat"); err != nil {
		return nil, err
	}
	if plan.ids, err = readIdentity(h, found); err != nil {
		return nil, err
	}
	maps, err := readMaps(h, maxAreas, found)
	if err != nil {
		return nil, err
	}
	plan.areas = maps.areas
	if plan.auxv, _, err = h.read(h.through+"auxv", 4<<10); err != nil {
		found.add("auxv", GapUnreadable, err)
	}
	if maps.argsAnonymous {
		if plan.argv, _, err = h.read(h.through+"cmdline", argumentsSize-1); err != nil {
			found.add("cmdline", GapUnreadable, err)
		}
	}
	plan.threads, err = readRegisters(h, limits.Threads, found)
	return plan, err
}

// maxAreas is how many mappings are looked at: four times what the kernel lets a process have by default.
const maxAreas = 1 << 18

// openMemory opens the process's address space, which checks nothing later: it stays that of this process.
func (m *memoryReader) openMemory() (memory, pagemap *content, err error) {
	open := func(name string) (*content, error) {
		fd, err := openat(m.fd, m.through+name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		return &content{shared: share(fd), patience: m.options.Limits.Patience}, nil
	}
	if memory, err = open("mem"); err != nil {
		return nil, nil, err
	}
	if pagemap, err = open("pagemap"); err != nil {
		memory.release()
		return nil, nil, err
	}
	return memory, pagemap, nil
}

// choose finds the present pages and takes as many as the limits allow, from the smallest mapping to the largest.
func (m *memoryReader) choose(ctx context.Context, plan *memoryPlan, pagemap *content) error {
	limits := m.options.Limits
	type found struct {
		pages
		area
	}
	var all []found
	room := limits.Runs
	for _, a := range plan.areas {
		if strings.HasPrefix(a.path, "[vsyscall]") || strings.HasPrefix(a.path, "[vvar") {
			continue
		}
		if strings.HasPrefix(a.path, "/secretmem") {
			plan.secret++
			continue
		}
		pages, err := m.scan(ctx, pagemap, a, room)
		if err != nil {
			return err
		}
		room -= len(pages.runs)
		plan.present += pages.present()
		plan.swapped += pages.swapped
		plan.moreRuns = plan.moreRuns || pages.more
		if len(pages.runs) > 0 {
			all = append(all, found{pages, a})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(a.present(), b.present()) })
	for _, f := range all {
		for _, run := range f.runs {
			run.length = min(run.length, (limits.Memory-plan.stored)/pageSize()*pageSize())
			if run.length == 0 {
				break
			}
			plan.stored += run.length
			plan.runs = append(plan.runs, loadRun{run, f.permissions})
		}
	}
	slices.SortFunc(plan.runs, func(a, b loadRun) int { return cmp.Compare(a.offset, b.offset) })
	return nil
}

// report names what the plan leaves out.
func (m *memoryReader) report(plan *memoryPlan) error {
	var errs []error
	for _, found := range plan.found {
		errs = append(errs, m.gaps.add(m.path(found.part), found.reason, found.cause))
	}
	limits := m.options.Limits
	if plan.stored < plan.present {
		cause := limited(fmt.Sprintf("%d of %d bytes are stored", plan.stored, plan.present), limits.Memory)
		errs = append(errs, m.gaps.add(m.path("mem"), GapLimit, cause))
	}
	if plan.moreRuns {
		errs = append(errs, m.gaps.add(m.path("mem"), GapLimit, limited("more runs of pages", int64(limits.Runs))))
	}
	if plan.swapped > 0 {
		cause := fmt.Errorf("%d pages: reading them would bring them into memory", plan.swapped)
		errs = append(errs, m.gaps.addMany(m.path("mem"), GapSwapped, cause, plan.swapped))
	}
	if plan.secret > 0 {
		cause := fmt.Errorf("%d mappings of memfd_secret", plan.secret)
		errs = append(errs, m.gaps.addMany(m.path("mem"), GapSecret, cause, plan.secret))
	}
	for _, thread := range plan.threads {
		if thread.incomplete != nil {
			errs = append(errs, m.gaps.add(m.path(threadFolder(thread.tid)+"syscall"), evidence.GapRegistersNotRead, thread.incomplete))
		}
	}
	return errors.Join(errs...)
}
