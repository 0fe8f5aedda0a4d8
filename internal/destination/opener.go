package destination

import (
	"context"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/internal/worm"
)

// maxOpened bounds the clients that an Opener keeps: one for each bucket and credential in use.
const maxOpened = 16

// Opener opens stores like Open, and hands out the same client as long as nothing changed, so that connections are
// used again.
type Opener struct {
	reader         client.Reader
	credentialsDir string

	mutex  sync.Mutex
	opened map[worm.Config]*worm.S3
}

// NewOpener reads the WORMConfig through reader and the credential from credentialsDir at every Open.
func NewOpener(reader client.Reader, credentialsDir string) *Opener {
	return &Opener{reader: reader, credentialsDir: credentialsDir, opened: map[worm.Config]*worm.S3{}}
}

// Open returns the bucket, or the WORMConfig's own when bucket is empty, adjusted as by the function Open. A bandwidth that
// is another one each time makes another client each time.
func (o *Opener) Open(ctx context.Context, bucket string, adjust ...func(*worm.Config)) (*worm.S3, error) {
	settings, err := read(ctx, o.reader, o.credentialsDir, bucket)
	if err != nil {
		return nil, err
	}
	for _, change := range adjust {
		change(&settings)
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if store, ok := o.opened[settings]; ok {
		return store, nil
	}
	store, err := worm.NewS3(settings)
	if err != nil {
		return nil, err
	}
	if len(o.opened) >= maxOpened {
		clear(o.opened)
	}
	o.opened[settings] = store
	return store, nil
}
