package podfiles

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountsAreReadAsTheKernelWritesThem(t *testing.T) {
	const list = `36 35 0:57 / /dev/shm rw,nosuid - tmpfs shm rw,size=65536k
37 35 0:58 /a\040b /mnt/\134x\012y ro,relatime shared:7 master:3 - tmpfs what\040ever rw
38 35 8:1 / / rorw - ext4 /dev/sda1 rw
`
	got, err := readMounts(strings.NewReader(list), 10)
	if err != nil {
		t.Fatal(err)
	}
	want := &mounts{
		fsTypes: map[int]string{36: "tmpfs", 37: "tmpfs", 38: "ext4"},
		memory: []mount{
			{id: 36, device: "0:57", root: "/", point: "/dev/shm", fsType: "tmpfs"},
			{id: 37, device: "0:58", root: "/a b", point: "/mnt/\\x\ny", fsType: "tmpfs", readOnly: true},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mounts{}, mount{})); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if got, err = readMounts(strings.NewReader(list), 1); err != nil || !got.cut || len(got.memory) != 1 {
		t.Errorf("with a limit: %+v, %v", got, err)
	}
	for _, bad := range []string{"x", "a b 0:1 / / rw - tmpfs x rw", "36 35 0:57 / /dev/shm rw tmpfs shm rw"} {
		if _, err := readMounts(strings.NewReader(bad), 1); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
