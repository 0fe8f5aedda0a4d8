package tool

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"ugallu.io/forensics/hack/internal/step"
)

// debian names the package of each tool that unit tests call.
var debian = map[string]string{
	"ip": "iproute2", "sysctl": "procps", "tar": "tar", "gzip": "gzip", "zstd": "zstd",
	"mactime": "sleuthkit", "readelf": "binutils", "gdb": "gdb", "runc": "runc", "python3": "python3", "jq": "jq",
}

// Ensure finds the tools; on Debian as root it installs what is missing, elsewhere the error names it.
func Ensure(ctx context.Context) error {
	return step.Do("tools of the tests", func() error {
		missing := packages(func(name string) bool { _, err := exec.LookPath(name); return err == nil })
		if len(missing) == 0 {
			return step.ErrCached
		}
		if _, err := os.Stat("/etc/debian_version"); err != nil || os.Geteuid() != 0 {
			return fmt.Errorf("the tests need %s: install these packages", strings.Join(missing, ", "))
		}
		for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
			command := step.Command{Env: []string{"DEBIAN_FRONTEND=noninteractive"}, Args: append([]string{"apt-get"}, args...), Timeout: 5 * time.Minute}
			if _, err := command.Run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// packages lists the packages of the tools that are not there, sorted.
func packages(there func(tool string) bool) []string {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(debian)) {
		if !there(name) {
			missing = append(missing, debian[name])
		}
	}
	return missing
}
