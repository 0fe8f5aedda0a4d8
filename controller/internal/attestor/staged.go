package attestor

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxStaged is what status.staged takes, before it is encoded as base64.
const maxStaged = 786432 / 4 * 3

// pack makes room: an API object holds 1.5 MiB, and status.staged its share of that.
func pack(data []byte) ([]byte, error) {
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := writer.Write(data); err != nil {
		return nil, fmt.Errorf("pack what is staged: %w", err)
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("pack what is staged: %w", err)
	}
	return packed.Bytes(), nil
}

func unpack(packed []byte) (data []byte, err error) {
	if len(packed) > 0 && packed[0] == '{' {
		// An earlier version staged it as it is.
		return packed, nil
	}
	reader, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack what is staged: %w", err)
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	data, err = io.ReadAll(io.LimitReader(reader, maxRecord+1))
	if err != nil {
		return nil, fmt.Errorf("unpack what is staged: %w", err)
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("unpack what is staged: more than %d bytes", maxRecord)
	}
	return data, nil
}

// staged packs an envelope or a bundle, or says that an API object has no room for it.
func staged(data []byte) ([]byte, error) {
	packed, err := pack(data)
	if err != nil {
		return nil, err
	}
	if len(packed) > maxStaged {
		return nil, failure(v1alpha1.ReasonBundleInvalid,
			fmt.Errorf("the statement takes %d bytes in gzip, an API object has room for %d", len(packed), maxStaged))
	}
	return packed, nil
}
