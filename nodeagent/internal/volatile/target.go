package volatile

import (
	"io"
	"regexp"
	"time"
)

// Target is a pod's processes, by their ids in the agent's pid namespace, which is the node's.
type Target struct {
	PodUID     string
	Containers []Container
	Processes  []Process
}

// Container names a container of the pod.
type Container struct{ ID, Name string }

// Process is one of the pod.
type Process struct {
	PID int
	// ContainerID may be empty.
	ContainerID string
	// StartTicks is field 22 of the process's stat file; 0 takes whichever process has the id now.
	StartTicks uint64
}

// Redaction says which values of environment variables are left out. Their sha256 stays.
type Redaction string

// Redactions. The zero value is RedactNone.
const (
	RedactNone     Redaction = "None"
	RedactMatching Redaction = "Matching"
	RedactAll      Redaction = "All"
)

// Options of a collection. The zero value redacts nothing and takes the default limits.
type Options struct {
	RedactEnvironment Redaction
	// RedactNames matches the names of variables with RedactMatching.
	RedactNames *regexp.Regexp
	Limits      Limits
	// NodeNetwork is the node's own network namespace; empty is /proc/1/ns/net.
	NodeNetwork string
	// NodeMounts lists the mounts of the node's own mount namespace; empty is /proc/1/mountinfo.
	NodeMounts string
	// Artifact is the name that gaps carry.
	Artifact string
	// Gaps receives one line of JSON for each gap; nil keeps counts only.
	Gaps io.Writer
}

// Limits bound what a hostile process can make the agent hold or store. Zero is the default.
type Limits struct {
	// Text bounds cmdline and environ each, in bytes.
	Text int
	// Maps, Descriptors, Threads and Mounts are of one process.
	Maps, Descriptors, Threads, Mounts int
	// Details of one descriptor, in lines.
	Details int
	// Networks in all; Sockets, Devices (with their addresses), Routes (with rules) and Neighbours of one of them.
	Networks, Sockets, Devices, Routes, Neighbours int
	// Hash is how large an executable may be to be hashed, in bytes; HashTotal bounds what is hashed in all.
	Hash, HashTotal int64
	// Files in number; File bounds the content of one file in bytes, FileTotal that of all.
	Files           int
	File, FileTotal int64
	// Memory of one process, in bytes; Runs of it in number.
	Memory int64
	Runs   int
	// Duration of a call. What was not read by then is named.
	Duration time.Duration
	// Patience is how long the kernel may take to answer for one part of one process. A file on a filesystem that the pod
	// itself serves never answers. It halves with each part that was given up.
	Patience time.Duration
}

// withDefaults keeps the whole collection below 200 MiB: a record of 20,000 descriptors is 3 MiB long and takes 30 MiB while it
// is made, one of which every part is at its limit is 16 MiB long and takes 170 MiB.
func (l Limits) withDefaults() Limits {
	orElse(&l.Text, 1<<20)
	orElse(&l.Maps, 20_000)
	orElse(&l.Descriptors, 20_000)
	orElse(&l.Threads, 2_000)
	orElse(&l.Mounts, 5_000)
	orElse(&l.Details, 64)
	orElse(&l.Networks, 64)
	orElse(&l.Sockets, 20_000)
	orElse(&l.Devices, 2_000)
	orElse(&l.Routes, 20_000)
	orElse(&l.Neighbours, 5_000)
	orElse(&l.Hash, 256<<20)
	orElse(&l.HashTotal, 1<<30)
	orElse(&l.Files, 4_096)
	orElse(&l.File, 1<<30)
	orElse(&l.FileTotal, 4<<30)
	orElse(&l.Memory, 1<<30)
	orElse(&l.Runs, 500_000)
	orElse(&l.Duration, time.Minute)
	orElse(&l.Patience, 5*time.Second)
	return l
}

func orElse[T int | int64 | time.Duration](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}

// redacts says whether the value of a variable is left out. An entry without a name is matched as a whole.
func (o Options) redacts(entry, name string) bool {
	switch o.RedactEnvironment {
	case RedactAll:
		return true
	case RedactMatching:
		if name == "" {
			name = entry
		}
		return o.RedactNames != nil && o.RedactNames.MatchString(name)
	case RedactNone:
	}
	return false
}
