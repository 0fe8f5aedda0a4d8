package policy

import (
	"slices"
	"sync"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxUnrecorded bounds what is kept: 64 readings of 128 policies with names of 253 bytes are some 3 MiB.
const maxUnrecorded = 64

// seen are the other policies of a pod as they go on record.
type seen struct {
	others  []v1alpha1.PolicyRef
	omitted int32
}

// unrecorded keeps what was read beside a policy, by the uid of that policy, until it is on the incident's record: reading
// it again would hold the walk up again. A process that starts reads again.
type unrecorded struct {
	mutex sync.Mutex
	by    map[string]seen
}

func (u *unrecorded) get(uid string) (seen, bool) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	kept, ok := u.by[uid]
	// The caller's status is decoded into again.
	kept.others = slices.Clone(kept.others)
	return kept, ok
}

// put forgets all of them when there is no room.
func (u *unrecorded) put(uid string, read seen) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	if u.by == nil || len(u.by) >= maxUnrecorded {
		u.by = map[string]seen{}
	}
	read.others = slices.Clone(read.others)
	u.by[uid] = read
}

func (u *unrecorded) drop(uid string) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	delete(u.by, uid)
}
