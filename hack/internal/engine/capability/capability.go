package capability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// names are the kernel's capabilities, each at the index that is its bit.
func names() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
		"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
		"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
		"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
		"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
		"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// Missing lists the capabilities that the kernel knows and the bounding set of this process lacks.
func Missing() ([]string, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("read the bounding set: %w", err)
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's last capability: %w", err)
	}
	return missing(string(status), strings.TrimSpace(string(last)))
}

func missing(status, last string) ([]string, error) {
	highest, err := strconv.Atoi(last)
	if err != nil {
		return nil, fmt.Errorf("parse the kernel's last capability: %w", err)
	}
	_, rest, found := strings.Cut(status, "CapBnd:")
	if !found {
		return nil, fmt.Errorf("no CapBnd in /proc/self/status")
	}
	hex, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("parse CapBnd: %w", err)
	}
	var lacking []string
	for bit, name := range names() {
		if bit <= highest && set&(1<<bit) == 0 {
			lacking = append(lacking, name)
		}
	}
	return lacking, nil
}

// Filter returns a runtime specification, or an exec process, without the given capabilities.
func Filter(specification []byte, drop []string) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(specification))
	// Limits such as 2^64-1 do not survive a float64.
	decoder.UseNumber()
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("parse the specification: %w", err)
	}
	unwanted := map[string]bool{}
	for _, name := range drop {
		unwanted[name] = true
	}
	if process, ok := document["process"].(map[string]any); ok {
		filterSets(process["capabilities"], unwanted)
	}
	filterSets(document["capabilities"], unwanted)
	out, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("write the specification: %w", err)
	}
	return out, nil
}

func filterSets(value any, unwanted map[string]bool) {
	sets, ok := value.(map[string]any)
	if !ok {
		return
	}
	for name, set := range sets {
		list, ok := set.([]any)
		if !ok {
			continue
		}
		kept := []any{}
		for _, entry := range list {
			if text, ok := entry.(string); !ok || !unwanted[text] {
				kept = append(kept, entry)
			}
		}
		sets[name] = kept
	}
}
