package volatile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is that of the node; pagemap and maps count in it.
func pageSize() int64 { return int64(unix.Getpagesize()) }

// pages are what is found out about one mapping's memory.
type pages struct {
	// runs of present pages that belong to this process alone: anonymous memory and private copies of a file's pages.
	runs []extent
	// swapped counts pages that are in swap instead.
	swapped int64
	// more is whether there are more runs than the limit.
	more bool
}

func (p *pages) present() int64 {
	total := int64(0)
	for _, run := range p.runs {
		total += run.length
	}
	return total
}

// add appends a range of pages, joining it to the run before.
func (p *pages) add(start, end int64, limit int) {
	if last := len(p.runs) - 1; last >= 0 && p.runs[last].offset+p.runs[last].length == start {
		p.runs[last].length += end - start
		return
	}
	if len(p.runs) >= limit {
		p.more = true
		return
	}
	p.runs = append(p.runs, extent{offset: start, length: end - start})
}

// Categories of PAGEMAP_SCAN.
const (
	pageFile    = 1 << 2
	pagePresent = 1 << 3
	pageSwapped = 1 << 4
	pageZero    = 1 << 5
)

// pagemapScan is PAGEMAP_SCAN: _IOWR('f', 16, struct pm_scan_arg).
const pagemapScan = 0xC0606610

// scanArguments is struct pm_scan_arg.
type scanArguments struct {
	size, flags, start, end, walkEnd, vector, vectorLength, maxPages uint64
	inverted, categoryMask, categoryAnyOf, returned                  uint64
}

// pageRegion is struct page_region.
type pageRegion struct{ start, end, categories uint64 }

// regionsOfCall is how many regions the kernel returns at once.
const regionsOfCall = 1 << 10

var errNoScan = errors.New("this kernel has no PAGEMAP_SCAN")

// scanStep is the answer to one call.
type scanStep struct {
	regions []pageRegion
	end     uint64
}

// scanOnce asks for the pages of one mapping that are present or swapped, are no file's, and are not the page of zeros that
// stands for memory which was only read.
func scanOnce(fd int, start, end uint64) (scanStep, error) {
	regions := make([]pageRegion, regionsOfCall)
	arguments := scanArguments{
		start: start, end: end, vector: uint64(uintptr(unsafe.Pointer(&regions[0]))), // #nosec G103 -- the kernel fills it
		vectorLength: regionsOfCall, inverted: pageFile | pageZero, categoryMask: pageFile | pageZero,
		categoryAnyOf: pagePresent | pageSwapped, returned: pagePresent | pageSwapped,
	}
	arguments.size = uint64(unsafe.Sizeof(arguments))                                                          // #nosec G103 -- a size
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&arguments))) // #nosec G103 -- an ioctl
	if errno == unix.ENOTTY || errno == unix.EINVAL {
		return scanStep{}, errNoScan
	}
	if errno != 0 {
		return scanStep{}, fmt.Errorf("scan pages: %w", errno)
	}
	return scanStep{regions[:n], arguments.walkEnd}, nil
}

// scan finds the pages of one mapping. It takes one call for a mapping of terabytes without pages.
func (m *memoryReader) scan(ctx context.Context, pagemap *content, a area, limit int) (pages, error) {
	var found pages
	for at := a.start; at < a.end && !found.more; {
		step, _, err := watched(ctx, m.guard, pagemap.shared, pagemap.patience, func(*findings) (scanStep, error) {
			return scanOnce(pagemap.fd, at, a.end)
		})
		if errors.Is(err, errNoScan) {
			return m.walk(ctx, pagemap, a, limit)
		}
		if err != nil {
			return found, err
		}
		for _, region := range step.regions {
			found.classify(region.categories&pagePresent != 0, region.start, region.end, limit)
		}
		if step.end <= at {
			break
		}
		at = step.end
	}
	return found, nil
}

func (p *pages) classify(present bool, start, end uint64, limit int) {
	if present {
		p.add(int64(start), int64(end), limit) // #nosec G115 -- user addresses are below 2^63
		return
	}
	p.swapped += int64(end-start) / pageSize() // #nosec G115 -- as above
}

// Bits of an entry of pagemap.
const (
	entryPresent = 1 << 63
	entrySwapped = 1 << 62
	entryFile    = 1 << 61
)

// walk reads one entry of pagemap for each page, where the kernel cannot scan (before 6.7). Pages of zeros look like any
// other here.
func (m *memoryReader) walk(ctx context.Context, pagemap *content, a area, limit int) (pages, error) {
	var found pages
	size := uint64(pageSize()) // #nosec G115 -- positive
	const entry = 8
	for at := a.start; at < a.end && !found.more; {
		want := min(readSize, (a.end-at)/size*entry)
		offset := int64(at / size * entry)                         // #nosec G115 -- user addresses are below 2^63
		data, err := pagemap.read(ctx, m.guard, offset, int(want)) // #nosec G115 -- at most readSize
		if err != nil {
			return found, fmt.Errorf("read pagemap: %w", err)
		}
		if len(data) < entry {
			return found, errEnded
		}
		for ; len(data) >= entry; data = data[entry:] {
			bits := binary.NativeEndian.Uint64(data)
			if bits&entryFile == 0 && bits&(entryPresent|entrySwapped) != 0 {
				found.classify(bits&entryPresent != 0, at, at+size, limit)
			}
			at += size
		}
	}
	return found, nil
}
