package servers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	var keys []map[string]string
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
	if diff := cmp.Diff(keys[0], keys[1]); diff != "" || keys[0]["1"] == "" {
		t.Errorf("the key (-before +after):\n%s", diff)
	}
}

func TestEveryVersionOfTheKeyIsKnown(t *testing.T) {
	versions, err := publicKeys(map[string]any{"latest_version": 2, "keys": map[string]any{
		"1": map[string]any{"public_key": "first"}, "2": map[string]any{"public_key": "second"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"1": "first", "2": "second"}, versions); diff != "" {
		t.Error(diff)
	}
	for name, data := range map[string]map[string]any{
		"none": {"keys": map[string]any{}}, "symmetric": {"keys": map[string]any{"1": map[string]any{"name": "aes"}}},
	} {
		if versions, err := publicKeys(data); err == nil {
			t.Errorf("%s: got %v", name, versions)
		}
	}
}
