package volatile

import (
	"debug/elf"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// threadRegisters is what is known of one thread. Its registers come from /proc/PID/task/TID/syscall, which shows some of
// them without stopping the thread for a debugger.
type threadRegisters struct {
	tid   int
	state stat
	// registers in the order of the architecture's user_regs_struct; all zero when nothing is known.
	registers []uint64
	// incomplete says why not all registers are there; it is never nil.
	incomplete error
}

var (
	errRunning = errors.New("the thread runs: its registers are zeros")
	errPartial = errors.New("known are the stack pointer, the program counter and the arguments of a system call")
)

// architecture says where registers lie.
type architecture struct {
	machine elf.Machine
	// count of registers in user_regs_struct.
	count int
	// stack pointer, program counter, number of the system call, and its arguments, as indices.
	stack, program, call int
	arguments            [6]int
}

func architectureOf(name string) architecture {
	if name == "arm64" {
		// x0…x30, sp, pc, pstate. The number of the call is in x8.
		return architecture{elf.EM_AARCH64, 34, 31, 32, 8, [6]int{0, 1, 2, 3, 4, 5}}
	}
	// r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs
	return architecture{elf.EM_X86_64, 27, 19, 16, 15, [6]int{14, 13, 12, 7, 9, 8}}
}

func here() architecture { return architectureOf(runtime.GOARCH) }

func readRegisters(h *handle, limit int, found *findings) ([]threadRegisters, error) {
	var threads []threadRegisters
	total := 0
	err := h.names("task", func(name string) bool {
		if total++; total > limit {
			return true
		}
		tid, err := strconv.Atoi(name)
		if err != nil {
			return true
		}
		folder := threadFolder(tid)
		state, err := h.stat(folder + "stat")
		if gone(err) {
			return true
		}
		thread := threadRegisters{tid: tid, state: state, incomplete: err}
		if err == nil {
			var content string
			if content, _, err = h.read(folder+"syscall", 512); err == nil {
				thread.registers, err = here().place(content)
			}
			thread.incomplete = err
		}
		threads = append(threads, thread)
		return true
	})
	if total > limit {
		found.add("threads", GapLimit, limited(fmt.Sprintf("%d threads", total), int64(limit)))
	}
	return threads, err
}

// place puts `nr a0 a1 a2 a3 a4 a5 sp pc`, `-1 sp pc` or `running` where it belongs. Its error says what is not there.
func (a architecture) place(content string) ([]uint64, error) {
	registers := make([]uint64, a.count)
	fields := strings.Fields(content)
	switch len(fields) {
	case 9, 3:
	default:
		return registers, errRunning
	}
	values := make([]uint64, len(fields))
	for i, field := range fields {
		var err error
		if i == 0 {
			var number int64
			number, err = strconv.ParseInt(field, 10, 64)
			values[i] = uint64(number) // #nosec G115 -- -1 is all ones in a register, too
		} else {
			values[i], err = strconv.ParseUint(field, 0, 64)
		}
		if err != nil {
			return registers, fmt.Errorf("read syscall %q: %w", content, err)
		}
	}
	last := len(values) - 1
	registers[a.stack], registers[a.program] = values[last-1], values[last]
	if len(values) == 9 {
		registers[a.call] = values[0]
		for i, register := range a.arguments {
			registers[register] = values[1+i]
		}
	} else if a.machine == elf.EM_X86_64 {
		registers[a.call] = values[0]
	}
	return registers, errPartial
}
