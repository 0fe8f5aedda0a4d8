package evidence

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// Media types of what is read from running or frozen processes.
const (
	// MediaTypeVolatile is that of an object with one volatile record a line, zstd-compressed.
	MediaTypeVolatile = "application/vnd.ugallu.forensics.volatile.v1.ndjson+zstd"
	// MediaTypeMemory is that of an ELF core file, zstd-compressed.
	MediaTypeMemory = "application/vnd.ugallu.forensics.memory.v1.core+zstd"
	// MediaTypeProcessFiles is that of a tar of files that no name leads to, with one VolatileFile a line as its last
	// member, zstd-compressed.
	MediaTypeProcessFiles = "application/vnd.ugallu.forensics.process-files.v1.tar+zstd"
)

// VolatileVersion is the version of the records' shape.
const VolatileVersion = "v1"

// VolatileKind says which record a line is.
type VolatileKind string

// Kinds of records. A stream is one header, the networks, the processes, networks that only a descriptor of a process
// leads to, and one trailer. Without a trailer the stream is not complete.
const (
	VolatileKindHeader  VolatileKind = "header"
	VolatileKindNetwork VolatileKind = "network"
	VolatileKindProcess VolatileKind = "process"
	VolatileKindTrailer VolatileKind = "trailer"
)

// Text is bytes that a process chose. In JSON it is a string when it is UTF-8, and {"bytes":"<base64>"} when it is not.
type Text string

type rawText struct {
	Bytes []byte `json:"bytes"`
}

// MarshalJSON keeps every byte.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(rawText{[]byte(t)})
}

// UnmarshalJSON reads either form.
func (t *Text) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var raw rawText
		if err := json.Unmarshal(data, &raw); err != nil {
			return fmt.Errorf("read bytes: %w", err)
		}
		*t = Text(raw.Bytes)
		return nil
	}
	var plain string
	if err := json.Unmarshal(data, &plain); err != nil {
		return fmt.Errorf("read text: %w", err)
	}
	*t = Text(plain)
	return nil
}

// VolatileHeader is the first record. Numbers that can pass 2^53 are decimal strings in every record, since canonical JSON
// knows doubles only.
type VolatileHeader struct {
	Kind    VolatileKind `json:"kind"`
	Version string       `json:"version"`
	PodUID  string       `json:"podUid"`
	// Containers of the target, running or not.
	Containers []VolatileContainer `json:"containers"`
	// PIDs that were asked for; each has one process record.
	PIDs   []int          `json:"pids"`
	Clocks VolatileClocks `json:"clocks"`
	Kernel VolatileKernel `json:"kernel"`
	// RedactEnvironment is None, Matching or All.
	RedactEnvironment string `json:"redactEnvironment"`
	// RedactNames is the regular expression of names with Matching.
	RedactNames string `json:"redactNames,omitempty"`
}

// VolatileContainer names a container.
type VolatileContainer struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// VolatileClocks are the node's clocks at one moment.
type VolatileClocks struct {
	Realtime time.Time `json:"realtime"`
	// BoottimeNanos since boot, suspended time included.
	BoottimeNanos int64  `json:"boottimeNanos,string"`
	BootID        string `json:"bootId"`
	// TicksPerSecond is the unit of startTicks.
	TicksPerSecond int `json:"ticksPerSecond"`
}

// VolatileKernel is what uname says.
type VolatileKernel struct {
	Release string `json:"release"`
	Version string `json:"version"`
	Machine string `json:"machine"`
	Node    string `json:"node"`
}

// VolatileTrailer is the last record.
type VolatileTrailer struct {
	Kind   VolatileKind   `json:"kind"`
	Clocks VolatileClocks `json:"clocks"`
	// Records before this one, the header among them.
	Records   int64 `json:"records"`
	Processes int64 `json:"processes"`
	// Ended of the processes: they were gone before they were read to the end.
	Ended    int64 `json:"ended"`
	Networks int64 `json:"networks"`
	Gaps     []Gap `json:"gaps"`
	// Truncated is whether a limit left something out.
	Truncated bool `json:"truncated"`
}

// VolatileMissing names a part of a record that is absent or not complete.
type VolatileMissing struct {
	Part    string `json:"part"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// VolatileCapture is what a core file says of itself, in a note under the name UGALLU, type 0x5547.
type VolatileCapture struct {
	Version     string `json:"version"`
	PID         int    `json:"pid"`
	StartTicks  uint64 `json:"startTicks,string"`
	ContainerID string `json:"containerId,omitempty"`
	// Present is how much memory was found, Stored how much of it is in the file, both in bytes.
	Present        int64 `json:"present,string"`
	Stored         int64 `json:"stored,string"`
	SwappedPages   int64 `json:"swappedPages"`
	SecretMappings int64 `json:"secretMappings"`
	Truncated      bool  `json:"truncated"`
	// Registers says which registers of the threads are known.
	Registers string `json:"registers"`
}
