package order

import (
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// worstErrorMicros is the kernel's own bound on what it believes of its clock: NTP_PHASE_LIMIT, 16 s. It is reported when
// the kernel does not answer.
const worstErrorMicros = 16_000_000

// Reporter says who reports, and what the clocks say at that moment.
type Reporter struct {
	// Identity of the agent: account, pod uid, node and boot id. The rest is filled in.
	Identity v1alpha1.Reporter
	// Image returns the digest of the agent's image, or its version.
	Image func() string
	// APIServerDate returns the Date header of the API server's last answer, or zero.
	APIServerDate func() time.Time
}

func (r Reporter) report(now metav1.MicroTime) v1alpha1.Reporter {
	report := r.Identity
	report.Realtime = now
	if r.Image != nil {
		report.ImageDigest = r.Image()
	}
	report.MaxErrorMicros, report.ClockSynchronized = kernelClock()
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err == nil {
		report.BoottimeNanos = boot.Nano()
	}
	if r.APIServerDate == nil {
		return report
	}
	if date := r.APIServerDate(); !date.IsZero() {
		at := metav1.NewTime(date)
		report.APIServerDate = &at
	}
	return report
}

// kernelClock asks the kernel how far off it believes its clock to be, and whether a time source steers it. An empty
// request changes nothing and needs no privilege.
func kernelClock() (maxErrorMicros int64, synchronized bool) {
	var clock unix.Timex
	state, err := unix.Adjtimex(&clock)
	if err != nil {
		return worstErrorMicros, false
	}
	return clock.Maxerror, state != unix.TIME_ERROR && clock.Status&unix.STA_UNSYNC == 0
}
