package volatile

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"ugallu.io/forensics/api/evidence"
)

const (
	headerSize        = 64
	programHeaderSize = 56
	sectionHeaderSize = 64
	// manyHeaders is PN_XNUM: the number of program headers is in the first section header.
	manyHeaders = 0xffff
)

// write writes the ELF header, program headers, notes, and then the pages in the order of their addresses.
func (m *memoryReader) write(ctx context.Context, out *countingWriter, plan *memoryPlan) error {
	notes, err := m.notes(plan)
	if err != nil {
		return err
	}
	count := len(plan.runs) + 1
	many := count >= manyHeaders
	start := int64(headerSize + count*programHeaderSize)
	if many {
		start += sectionHeaderSize
	}
	data := (start + int64(len(notes)) + pageSize() - 1) / pageSize() * pageSize()
	var head bytes.Buffer
	put(&head, elfHeader(count, many))
	put(&head, elf.Prog64{
		Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R), Off: uint64(start), Filesz: uint64(len(notes)), Align: 4, // #nosec G115 -- positive
	})
	offset := data
	for _, run := range plan.runs {
		put(&head, loadHeader(run, offset))
		offset += run.length
	}
	if many {
		put(&head, elf.Section64{Info: uint32(count)}) // #nosec G115 -- at most Limits.Runs
	}
	head.Write(notes)
	head.Write(make([]byte, data-start-int64(len(notes))))
	if _, err := out.Write(head.Bytes()); err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	for _, run := range plan.runs {
		if err := m.copyRun(ctx, out, plan.memory, run); err != nil {
			return err
		}
	}
	return nil
}

// put appends a fixed-size value. Both architectures are little-endian.
func put(to *bytes.Buffer, value any) {
	_ = binary.Write(to, binary.LittleEndian, value) // a buffer takes everything; the value's size is fixed
}

func elfHeader(count int, many bool) elf.Header64 {
	header := elf.Header64{
		Type: uint16(elf.ET_CORE), Machine: uint16(here().machine), Version: uint32(elf.EV_CURRENT), Phoff: headerSize,
		Ehsize: headerSize, Phentsize: programHeaderSize, Phnum: uint16(min(count, manyHeaders)), // #nosec G115 -- bounded here
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	if many {
		header.Shoff = uint64(headerSize + count*programHeaderSize) // #nosec G115 -- positive
		header.Shentsize, header.Shnum = sectionHeaderSize, 1
	}
	return header
}

func loadHeader(run loadRun, offset int64) elf.Prog64 {
	var flags elf.ProgFlag
	for i, flag := range []elf.ProgFlag{elf.PF_R, elf.PF_W, elf.PF_X} {
		if len(run.permissions) > i && run.permissions[i] != '-' {
			flags |= flag
		}
	}
	size := uint64(run.length) // #nosec G115 -- positive
	return elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(flags), Off: uint64(offset), Vaddr: uint64(run.offset), // #nosec G115 -- positive
		Filesz: size, Memsz: size, Align: uint64(pageSize()), // #nosec G115 -- positive
	}
}

// copyRun writes one run of pages, exactly as long as planned. After a page that cannot be read the next one is tried.
func (m *memoryReader) copyRun(ctx context.Context, out io.Writer, memory *content, run loadRun) error {
	zeros := make([]byte, pageSize())
	lost := int64(0)
	var first error
	for done := int64(0); done < run.length; {
		want := min(readSize, run.length-done)
		data, err := memory.read(ctx, m.guard, run.offset+done, int(want))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && len(data) == 0 {
			err = errEnded
		}
		if err != nil {
			if first == nil {
				first = fmt.Errorf("at %x: %w", run.offset+done, err)
			}
			data = zeros
			lost++
		}
		if _, err := out.Write(data); err != nil {
			return fmt.Errorf("write memory at %x: %w", run.offset+done, err)
		}
		done += int64(len(data))
	}
	if lost == 0 {
		return nil
	}
	reason := reasonOf(first)
	if reason == GapUnreadable {
		reason = GapReadError
	}
	cause := fmt.Errorf("%d pages from %x to %x are zeros, the first %w", lost, run.offset, run.offset+run.length, first)
	return m.gaps.addMany(m.path("mem"), reason, cause, lost)
}

// Types of notes.
const (
	noteStatus    = 1
	noteInfo      = 3
	noteAuxiliary = 6
	noteFiles     = 0x46494c45
	// noteCapture is ours: canonical JSON of evidence.VolatileCapture, under the name UGALLU. Readers that pass over names
	// know no such number.
	noteCapture = 0x5547
)

// notes makes the content of the segment of notes, the status of the main thread first: debuggers take that for the
// process.
func (m *memoryReader) notes(plan *memoryPlan) ([]byte, error) {
	var notes bytes.Buffer
	note(&notes, "CORE", noteInfo, processInfo(m.PID, plan))
	for _, main := range []bool{true, false} {
		for _, thread := range plan.threads {
			if (thread.tid == m.PID) == main {
				note(&notes, "CORE", noteStatus, threadStatus(thread))
			}
		}
	}
	note(&notes, "CORE", noteAuxiliary, []byte(plan.auxv))
	note(&notes, "CORE", noteFiles, fileTable(plan.areas))
	capture, err := evidence.Canonical(evidence.VolatileCapture{
		Version: evidence.VolatileVersion, PID: m.PID, StartTicks: m.StartTicks, ContainerID: m.ContainerID,
		Present: plan.present, Stored: plan.stored, SwappedPages: plan.swapped, SecretMappings: plan.secret,
		Truncated: plan.stored < plan.present || plan.moreRuns,
		Registers: "from /proc/PID/task/TID/syscall: stack pointer, program counter, system call; the others are zeros",
	})
	if err != nil {
		return nil, err
	}
	note(&notes, "UGALLU", noteCapture, capture)
	if notes.Len() > math.MaxInt32 {
		return nil, errors.New("the notes are larger than any reader takes")
	}
	return notes.Bytes(), nil
}

// note appends one note: three words, the name and the descriptor, each padded to four bytes.
func note(to *bytes.Buffer, name string, kind uint32, descriptor []byte) {
	put(to, []uint32{uint32(len(name) + 1), uint32(len(descriptor)), kind}) // #nosec G115 -- bounded by the notes' size
	padded := func(data []byte) {
		to.Write(data)
		to.Write(make([]byte, (4-len(data)%4)%4))
	}
	padded(append([]byte(name), 0))
	padded(descriptor)
}

// threadStatus is struct elf_prstatus of a 64-bit machine.
func threadStatus(thread threadRegisters) []byte {
	var status bytes.Buffer
	put(&status, struct {
		Signal, Code, Errno         int32
		Current                     int16
		_                           int16
		Pending, Held               uint64
		PID, Parent, Group, Session int32
		Times                       [8]int64
	}{
		PID: clamp(thread.tid), Parent: clamp(thread.state.parent), Group: clamp(thread.state.group),
		Session: clamp(thread.state.session), Times: [8]int64{
			seconds(thread.state.utime), microseconds(thread.state.utime), seconds(thread.state.stime), microseconds(thread.state.stime),
		},
	})
	registers := thread.registers
	if registers == nil {
		registers = make([]uint64, here().count)
	}
	put(&status, registers)
	put(&status, [2]int32{}) // no floating point registers, padding
	return status.Bytes()
}

func clamp(number int) int32 { return int32(min(number, math.MaxInt32)) } // #nosec G115 -- bounded here

func seconds(ticks uint64) int64 { return int64(ticks / ticksPerSecond) } // #nosec G115 -- divided

func microseconds(ticks uint64) int64 {
	return int64(ticks % ticksPerSecond * (1_000_000 / ticksPerSecond)) // #nosec G115 -- below a million
}

// argumentsSize is that of pr_psargs.
const argumentsSize = 80

// processInfo is struct elf_prpsinfo of a 64-bit machine.
func processInfo(pid int, plan *memoryPlan) []byte {
	var info bytes.Buffer
	fields := struct {
		State, Letter, Zombie, Nice int8
		_                           int32
		Flags                       uint64
		UID, GID                    uint32
		PID, Parent, Group, Session int32
		Name                        [16]byte
		Arguments                   [argumentsSize]byte
	}{
		Nice: int8(plan.process.nice), Flags: plan.process.flags, PID: clamp(pid), Parent: clamp(plan.process.parent), // #nosec G115 -- -20 to 19
		Group: clamp(plan.process.group), Session: clamp(plan.process.session),
	}
	if letter := plan.process.state; letter != "" {
		fields.Letter = int8(letter[0]) // #nosec G115 -- ASCII
	}
	if plan.ids.credentials != nil {
		fields.UID, fields.GID = plan.ids.credentials.UIDs.Real, plan.ids.credentials.GIDs.Real
	}
	copy(fields.Name[:15], plan.ids.comm)
	copy(fields.Arguments[:argumentsSize-1], bytes.ReplaceAll([]byte(plan.argv), []byte{0}, []byte{' '}))
	put(&info, fields)
	return info.Bytes()
}

// fileTable is the descriptor of NT_FILE: count, page size, then start, end and offset in pages of each mapping of a file,
// then their names.
func fileTable(areas []area) []byte {
	var table, names bytes.Buffer
	count := uint64(0)
	for _, a := range areas {
		if a.inode == 0 || len(a.path) == 0 {
			continue
		}
		count++
		put(&table, []uint64{a.start, a.end, a.offset / uint64(pageSize())}) // #nosec G115 -- positive
		names.WriteString(a.path)
		names.WriteByte(0)
	}
	var all bytes.Buffer
	put(&all, []uint64{count, uint64(pageSize())}) // #nosec G115 -- positive
	all.Write(table.Bytes())
	all.Write(names.Bytes())
	return all.Bytes()
}
