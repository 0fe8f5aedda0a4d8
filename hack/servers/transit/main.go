package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	address := flag.String("address", "127.0.0.1:8200", "address to listen on")
	storage := flag.String("storage-dir", "", "folder that keeps the keys")
	tokenFile := flag.String("token-file", "", "file that holds the only token that is let in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, *storage, *tokenFile); err != nil {
		stop()
		log.Fatal(err)
	}
}

// serve blocks until the context ends.
func serve(ctx context.Context, address, storage, tokenFile string) error {
	if storage == "" || tokenFile == "" {
		return errors.New("--storage-dir and --token-file are required")
	}
	token, err := os.ReadFile(tokenFile) // #nosec G304 -- the file that the flag names
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 {
		return fmt.Errorf("%s is empty", tokenFile)
	}
	engine, view, err := newEngine(ctx, storage)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: address, Handler: newHandler(engine, view, token), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		ended <- server.Shutdown(grace)
	}()
	log.Printf("transit engine listens on %s", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return <-ended
}
