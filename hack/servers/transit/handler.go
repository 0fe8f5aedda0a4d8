package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	mount = "transit/"
	// maxBody is far above any digest to sign.
	maxBody = 1 << 20
)

// newHandler answers the paths that clients of Vault and OpenBao use: the mount's and the health check.
func newHandler(engine *framework.Backend, view logical.Storage, token []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/sys/health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"initialized": true, "sealed": false, "standby": false})
	})
	mux.HandleFunc("/v1/"+mount, func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Vault-Token")), token) != 1 {
			refuse(w, http.StatusForbidden, errors.New("permission denied"))
			return
		}
		request, err := newRequest(w, r, view)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		handle(r.Context(), w, engine, request)
	})
	return mux
}

// newRequest reads an HTTP request as the engine's own kind of request.
func newRequest(w http.ResponseWriter, r *http.Request, view logical.Storage) (*logical.Request, error) {
	request := &logical.Request{
		Path:       strings.TrimPrefix(r.URL.Path, "/v1/"+mount),
		MountPoint: mount, MountType: "transit", Storage: view, Data: map[string]any{},
	}
	switch r.Method {
	case http.MethodGet:
		request.Operation = logical.ReadOperation
		for key, values := range r.URL.Query() {
			request.Data[key] = values[0]
		}
		if r.URL.Query().Get("list") == "true" {
			request.Operation = logical.ListOperation
		}
	case "LIST":
		request.Operation = logical.ListOperation
	case http.MethodDelete:
		request.Operation = logical.DeleteOperation
	case http.MethodPut, http.MethodPost:
		request.Operation = logical.UpdateOperation
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&request.Data)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	default:
		return nil, errors.New("method not supported: " + r.Method)
	}
	return request, nil
}

// handle does what Vault's core does around an engine: an update of what is absent is a creation.
func handle(ctx context.Context, w http.ResponseWriter, engine *framework.Backend, request *logical.Request) {
	if request.Operation == logical.UpdateOperation {
		found, exists, err := engine.HandleExistenceCheck(ctx, request)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		if found && !exists {
			request.Operation = logical.CreateOperation
		}
	}
	response, err := engine.HandleRequest(ctx, request)
	if status, err := logical.RespondErrorCommon(request, response, err); err != nil || status != 0 {
		refuse(w, status, err)
		return
	}
	if response == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, logical.LogicalResponseToHTTPResponse(response))
}

func refuse(w http.ResponseWriter, status int, err error) {
	messages := []string{}
	if err != nil {
		messages = append(messages, err.Error())
	}
	answer(w, status, map[string][]string{"errors": messages})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("answer: %v", err)
	}
}
