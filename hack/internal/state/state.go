package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Root is $XDG_CACHE_HOME/ugallu-forensics, or the same under ~/.cache.
func Root() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder: %w", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "ugallu-forensics"), nil
}

// Dir makes and returns a folder under Root.
func Dir(parts ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(append([]string{root}, parts...)...)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	return dir, nil
}

// Node is one node of the cluster.
type Node struct {
	Name    string `json:"name"`
	IP      string `json:"ip"`
	PodCIDR string `json:"podCIDR"`
}

// Env is what the tests and the demo need to know of the cluster that is up.
type Env struct {
	Kubeconfig        string `json:"kubeconfig"`
	Kubectl           string `json:"kubectl"`
	RegistryHost      string `json:"registryHost"`
	RegistryInCluster string `json:"registryInCluster"`
	EnvtestAssets     string `json:"envtestAssets"`
	Nodes             []Node `json:"nodes"`
}

// WriteEnv stores env.json.
func WriteEnv(env Env) error { return Write("env.json", env) }

// ReadEnv loads env.json; the error says how to make it.
func ReadEnv() (Env, error) {
	var env Env
	err := Read("env.json", &env)
	if err != nil {
		return Env{}, fmt.Errorf("no cluster is up, run `make cluster`: %w", err)
	}
	return env, nil
}

// Path is a file in the cluster's folder.
func Path(name string) (string, error) {
	dir, err := Dir("cluster")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// Write stores a value as JSON in a file of the cluster's folder.
func Write(name string, value any) error {
	path, err := Path(name)
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal %s: %w", name, err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Read loads what Write stored; fs.ErrNotExist is in the error when there is no such file.
func Read(name string, value any) error {
	path, err := Path(name)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(path) // #nosec G304 -- a fixed name in our own folder
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	return nil
}

// Forget removes a file of the cluster's folder; one that is not there is fine.
func Forget(name string) error {
	path, err := Path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
