package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/options"
)

// newReporter tells who this process is, and reads the node's clocks at each call.
func newReporter(pod options.Pod) func() (v1alpha1.Reporter, error) {
	return func() (v1alpha1.Reporter, error) {
		bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return v1alpha1.Reporter{}, fmt.Errorf("read boot id: %w", err)
		}
		var boot unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
			return v1alpha1.Reporter{}, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
		}
		// No modes set: the kernel only reports.
		var timex unix.Timex
		state, err := unix.Adjtimex(&timex)
		if err != nil {
			return v1alpha1.Reporter{}, fmt.Errorf("read clock state: %w", err)
		}
		return v1alpha1.Reporter{
			Account: pod.Account(), PodUID: pod.UID, NodeName: pod.NodeName,
			BootID: strings.TrimSpace(string(bootID)), ImageDigest: version(),
			Realtime: metav1.NewMicroTime(time.Now()), BoottimeNanos: boot.Nano(),
			MaxErrorMicros:    timex.Maxerror,
			ClockSynchronized: state != unix.TIME_ERROR,
		}, nil
	}
}

// version is that of the build, for want of a digest that a process could read of its own image.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return info.Main.Version
}
