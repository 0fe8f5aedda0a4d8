package servers

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTransitEngineKeepsItsKeyOverARestart(t *testing.T) {
	folder := t.TempDir()
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := func(address, folder string) []string {
		return []string{"--address", address, "--storage-dir", folder, "--token-file", tokenFile}
	}
	var keys []string
	for range 2 {
		address, end := startIn(t, "FORENSICS_TRANSIT", folder, nil, arguments)
		eventually(t, func() error {
			key, err := ensureTransitKey(t.Context(), address, "the-token")
			if err == nil {
				keys = append(keys, key)
			}
			return err
		})
		if _, err := ensureTransitKey(t.Context(), address, "another"); err == nil {
			t.Error("another token was let in")
		}
		end()
	}
	if keys[0] != keys[1] {
		t.Errorf("the key before is\n%s, after\n%s", keys[0], keys[1])
	}
}
