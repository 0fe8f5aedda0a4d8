package volatile

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// ticksPerSecond is USER_HZ, which is 100 on every architecture that we run on.
const ticksPerSecond = 100

// clocks are the node's at one moment.
type clocks struct {
	evidence.VolatileClocks
	booted time.Time
}

func readClocks() (clocks, error) {
	var boottime unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime); err != nil {
		return clocks{}, fmt.Errorf("read the boot clock: %w", err)
	}
	realtime := time.Now().UTC()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return clocks{}, fmt.Errorf("read the boot id: %w", err)
	}
	return clocks{
		VolatileClocks: evidence.VolatileClocks{
			Realtime: realtime, BoottimeNanos: boottime.Nano(), BootID: strings.TrimSpace(string(boot)),
			TicksPerSecond: ticksPerSecond,
		},
		booted: realtime.Add(-time.Duration(boottime.Nano())),
	}, nil
}

// at is the wall time of a number of ticks since boot.
func (c clocks) at(ticks uint64) time.Time {
	return c.booted.Add(time.Duration(ticks) * (time.Second / ticksPerSecond)) // #nosec G115 -- 2^63 ns are 292 years
}

func readKernel() (evidence.VolatileKernel, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return evidence.VolatileKernel{}, fmt.Errorf("read the kernel's name: %w", err)
	}
	return evidence.VolatileKernel{
		Release: unix.ByteSliceToString(name.Release[:]), Version: unix.ByteSliceToString(name.Version[:]),
		Machine: unix.ByteSliceToString(name.Machine[:]), Node: unix.ByteSliceToString(name.Nodename[:]),
	}, nil
}
