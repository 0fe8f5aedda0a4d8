package capture

import "time"

// lookEvery spaces the looks at whether a pod stands still while one of its parts is stored, beside those at the begin, at
// each segment and at the end. A look asks the runtime for each container and goes through the node's processes, 20 ms of
// one core where there are 3000: half a percent.
const lookEvery = 5 * time.Second

// watch tells of one part whether everything that could have changed it stood still at each look. What ran once is not
// asked again.
type watch struct {
	run   *run
	part  *Part
	still bool
	last  time.Time
}

func (r *run) watch(part *Part) *watch {
	w := &watch{run: r, part: part, still: len(part.Frozen) > 0}
	w.look()
	return w
}

// look says whether everything stood still so far.
func (w *watch) look() bool {
	w.still = w.still && w.run.frozen(w.part)
	w.last = time.Now()
	return w.still
}

// passing looks when the last look is a while ago.
func (w *watch) passing() {
	if w.still && time.Since(w.last) >= lookEvery {
		w.look()
	}
}

// frozen says whether every container that the part is about stands still, and no process of the pod runs that left its
// container's cgroup: it may reach the container's files. What cannot be found out is not claimed.
func (r *run) frozen(part *Part) bool {
	for _, id := range part.Frozen {
		if !r.Frozen(id) {
			return false
		}
	}
	return r.strays != nil && !r.strays()
}
