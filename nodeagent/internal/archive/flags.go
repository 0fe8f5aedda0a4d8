package archive

import (
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// margin between two times that is worth a flag, in seconds. A file that is made executable or renamed right after it was
// written is ordinary; setting a time back by less hides nothing.
const margin = 60

// flagsOf are the flags that the kernel's word on an object alone justifies.
func flagsOf(o *object) []evidence.Flag {
	var flags []evidence.Flag
	if o.kind() == unix.S_IFREG && o.layer != evidence.LayerLower {
		flags = timeFlags(o)
	}
	if o.stat.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		flags = append(flags, evidence.FlagImmutable)
	}
	if o.stat.Attributes&unix.STATX_ATTR_APPEND != 0 {
		flags = append(flags, evidence.FlagAppendOnly)
	}
	if evidence.IsWhiteoutName(o.path) {
		flags = append(flags, evidence.FlagWhiteoutName)
	}
	return flags
}

func timeFlags(o *object) []evidence.Flag {
	var flags []evidence.Flag
	if later(o.stat.Ctime, o.stat.Mtime) {
		flags = append(flags, evidence.FlagChangedAfterModified)
	}
	copied := o.overlay != nil && o.overlay.CopiedUp
	if o.stat.Mask&unix.STATX_BTIME != 0 && !copied && later(o.stat.Btime, o.stat.Mtime) {
		flags = append(flags, evidence.FlagBornAfterModified)
	}
	if later(o.stat.Mtime, o.stat.Ctime) {
		flags = append(flags, evidence.FlagModifiedAfterChanged)
	}
	return flags
}

// later says whether a is later than b by more than the margin.
func later(a, b unix.StatxTimestamp) bool {
	return a.Sec-b.Sec > margin || (a.Sec-b.Sec == margin && a.Nsec > b.Nsec)
}
