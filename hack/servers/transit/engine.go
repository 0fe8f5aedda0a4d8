package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
)

// newEngine opens the engine on a folder; keys that an earlier process made are there again.
func newEngine(ctx context.Context, folder string) (*framework.Backend, logical.Storage, error) {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})
	disk, err := file.NewFileBackend(map[string]string{"path": folder}, logger)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", folder, err)
	}
	storage := logical.NewLogicalStorage(disk)
	config := &logical.BackendConfig{
		StorageView: storage, Logger: logger, BackendUUID: "transit", System: &logical.StaticSystemView{},
	}
	engine, err := transit.Backend(ctx, config)
	if err != nil {
		return nil, nil, fmt.Errorf("make the transit engine: %w", err)
	}
	for _, path := range engine.Paths {
		// The framework refuses a path that can create and cannot tell whether its object exists.
		if path.ExistenceCheck == nil && creates(path) {
			path.ExistenceCheck = func(context.Context, *logical.Request, *framework.FieldData) (bool, error) { return false, nil }
		}
	}
	if err := engine.Setup(ctx, config); err != nil {
		return nil, nil, fmt.Errorf("set the transit engine up: %w", err)
	}
	return engine.Backend, storage, nil
}

func creates(path *framework.Path) bool {
	_, operation := path.Operations[logical.CreateOperation]
	_, callback := path.Callbacks[logical.CreateOperation]
	return operation || callback
}
