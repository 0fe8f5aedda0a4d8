package worm

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"

	"github.com/minio/minio-go/v7"
)

const (
	headerChecksumAlgorithm = "x-amz-checksum-algorithm"
	headerChecksumType      = "x-amz-checksum-type"
	fullObject              = "FULL_OBJECT"
)

// checksums are what the store is asked to check and to keep, beside the sha256 of each request that it always checks.
type checksums interface {
	announce() map[string]string
	part(data []byte, sha256 [32]byte) (http.Header, minio.CompletePart)
	whole() map[string]string
	check(minio.UploadInfo) error
}

// crc64 is one CRC64NVME over the whole object.
type crc64 struct{ sum hash.Hash }

func newCRC64() *crc64 { return &crc64{minio.ChecksumCRC64NVME.Hasher()} }

func (*crc64) announce() map[string]string {
	return map[string]string{headerChecksumAlgorithm: minio.ChecksumCRC64NVME.String(), headerChecksumType: fullObject}
}

func (c *crc64) part(data []byte, _ [32]byte) (http.Header, minio.CompletePart) {
	c.sum.Write(data)
	checksum := minio.ChecksumCRC64NVME.ChecksumBytes(data).Encoded()
	header := http.Header{minio.ChecksumCRC64NVME.KeyCapitalized(): []string{checksum}}
	return header, minio.CompletePart{ChecksumCRC64NVME: checksum}
}

func (c *crc64) whole() map[string]string {
	return map[string]string{minio.ChecksumCRC64NVME.Key(): c.encoded(), headerChecksumType: fullObject}
}

// check compares what the store computed, if it did.
func (c *crc64) check(info minio.UploadInfo) error {
	if info.ChecksumCRC64NVME == "" || info.ChecksumCRC64NVME == c.encoded() {
		return nil
	}
	return fmt.Errorf("%w: its CRC64NVME is %s, sent was %s", ErrAltered, info.ChecksumCRC64NVME, c.encoded())
}

func (c *crc64) encoded() string { return base64.StdEncoding.EncodeToString(c.sum.Sum(nil)) }

// partSums are one SHA-256 for each part.
type partSums struct{}

func (partSums) announce() map[string]string {
	return map[string]string{headerChecksumAlgorithm: minio.ChecksumSHA256.String()}
}

func (partSums) part(_ []byte, sha256 [32]byte) (http.Header, minio.CompletePart) {
	checksum := base64.StdEncoding.EncodeToString(sha256[:])
	header := http.Header{minio.ChecksumSHA256.KeyCapitalized(): []string{checksum}}
	return header, minio.CompletePart{ChecksumSHA256: checksum}
}

func (partSums) whole() map[string]string { return nil }

func (partSums) check(minio.UploadInfo) error { return nil }

// refusesChecksum says whether a store may have refused the checksum that was announced. Codes differ, so that any
// refusal counts that has no other meaning; the second try then tells.
func refusesChecksum(err error) bool {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || meaningOf(answer) != nil {
		return false
	}
	return answer.StatusCode == http.StatusBadRequest || answer.StatusCode == http.StatusNotImplemented
}
