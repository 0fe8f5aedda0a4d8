package worm

import (
	"errors"
	"testing"

	"github.com/minio/minio-go/v7"
)

func TestCheckNoticesThatTheStoreKeepsOtherBytes(t *testing.T) {
	sums := newCRC64()
	_, part := sums.part([]byte("evidence"), [32]byte{})
	for name, test := range map[string]struct {
		kept string
		want error
	}{
		"the same":          {part.ChecksumCRC64NVME, nil},
		"another":           {minio.ChecksumCRC64NVME.ChecksumBytes([]byte("other")).Encoded(), ErrAltered},
		"the store is mute": {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if err := sums.check(minio.UploadInfo{ChecksumCRC64NVME: test.kept}); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
