package order

import (
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// socketsWithin is how long the end of the step waits for a sample. One takes milliseconds, and seconds in a pod that opened
// very many sockets.
const socketsWithin = time.Second

// sampled is a sample of sockets, or why there is none.
type sampled struct {
	sample *v1alpha1.SocketSample
	err    error
}

// sample starts one beside whatever comes next. The kernel's answer cannot be called off: a sample that takes too long is
// left to its end, and its answer to nobody.
func (f *freezeStep) sample(found Pod) <-chan sampled {
	taken := make(chan sampled, 1)
	go func() {
		sample, err := f.node.Drop.Sockets(found)
		taken <- sampled{sample, err}
	}()
	return taken
}

// sockets is evidence beside the drop, and none when it cannot be had.
func (f *freezeStep) sockets(taken <-chan sampled) *v1alpha1.SocketSample {
	late := time.NewTimer(socketsWithin)
	defer late.Stop()
	select {
	case got := <-taken:
		if got.err != nil {
			f.fallShort("sockets: %v", got.err)
		}
		return got.sample
	case <-late.C:
		f.fallShort("sockets: not sampled in time")
		return nil
	}
}
