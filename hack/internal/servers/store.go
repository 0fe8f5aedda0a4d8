package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// setUpAnnotation on the Secret with the store's root credentials records which users and policies the store has.
const setUpAnnotation = "ugallu.io/store-set-up"

// store sets the write-once store up: the bucket, its users and what they may do.
type store struct {
	env     state.Env
	cluster client.Client
	root    map[string][]byte
}

func (s store) setUp(ctx context.Context) error {
	credentialsOf := map[string]map[string][]byte{}
	for _, user := range users() {
		data, err := ensureSecret(ctx, s.cluster, user.secret, func() (map[string][]byte, error) {
			return map[string][]byte{accessKey: []byte(user.name), secretKey: []byte(rand.Text())}, nil
		})
		if err != nil {
			return err
		}
		credentialsOf[user.name] = data
	}
	mark, err := fingerprint(credentialsOf)
	if err != nil {
		return err
	}
	var secret corev1.Secret
	if err := s.cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "minio-root"}, &secret); err != nil {
		return fmt.Errorf("get the store's root credentials: %w", err)
	}
	if secret.Annotations[setUpAnnotation] == mark {
		return step.ErrCached
	}
	mc, err := storeClient().path(ctx)
	if err != nil {
		return err
	}
	err = through(ctx, s.env, MinIO, "9000", func(ctx context.Context, address string) error {
		if err := s.makeBucket(ctx, address); err != nil {
			return err
		}
		return s.makeUsers(ctx, mc, address, credentialsOf)
	})
	if err != nil {
		return err
	}
	before := secret.DeepCopy()
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[setUpAnnotation] = mark
	if err := s.cluster.Patch(ctx, &secret, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("record the set-up of the store: %w", err)
	}
	return nil
}

// fingerprint changes with anything that the store has to be told again.
func fingerprint(credentialsOf map[string]map[string][]byte) (string, error) {
	hash := sha256.New()
	for _, user := range users() {
		raw, err := json.Marshal([]any{bucket, user.name, user.statements, credentialsOf[user.name]})
		if err != nil {
			return "", fmt.Errorf("describe user %s: %w", user.name, err)
		}
		hash.Write(raw)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func (s store) makeBucket(ctx context.Context, address string) error {
	root := credentials.NewStaticV4(string(s.root[minioUser]), string(s.root[minioPassword]), "")
	admin, err := minio.New(address, &minio.Options{Creds: root, Region: "us-east-1"})
	if err != nil {
		return fmt.Errorf("make a client of the store: %w", err)
	}
	err = admin.MakeBucket(ctx, bucket, minio.MakeBucketOptions{ObjectLocking: true})
	if err != nil && minio.ToErrorResponse(err).Code != "BucketAlreadyOwnedByYou" {
		return fmt.Errorf("make bucket %s: %w", bucket, err)
	}
	return nil
}

// makeUsers makes all at once: each takes the store seconds of key derivation.
func (s store) makeUsers(ctx context.Context, mc, address string, credentialsOf map[string]map[string][]byte) (err error) {
	folder, err := os.MkdirTemp("", "store-set-up-")
	if err != nil {
		return fmt.Errorf("make a folder for the store's client: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	host := fmt.Sprintf("MC_HOST_store=http://%s:%s@%s", s.root[minioUser], s.root[minioPassword], address)
	all, ctx := errgroup.WithContext(ctx)
	for _, user := range users() {
		all.Go(func() error {
			admin := adminClient{binary: mc, host: host, folder: filepath.Join(folder, user.name)}
			return admin.makeUser(ctx, user, credentialsOf[user.name])
		})
	}
	return all.Wait()
}

// adminClient runs MinIO's client with a configuration folder of its own and the address in its environment.
type adminClient struct{ binary, host, folder string }

func (c adminClient) makeUser(ctx context.Context, user user, account map[string][]byte) error {
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": user.statements})
	if err != nil {
		return fmt.Errorf("marshal the policy of %s: %w", user.name, err)
	}
	if err := os.Mkdir(c.folder, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", c.folder, err)
	}
	file := filepath.Join(c.folder, "policy.json")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		return fmt.Errorf("write the policy of %s: %w", user.name, err)
	}
	if err := c.run(ctx, "", "policy", "create", "store", user.name, file); err != nil {
		return err
	}
	credentials := fmt.Sprintf("%s\n%s\n", account[accessKey], account[secretKey])
	if err := c.run(ctx, credentials, "user", "add", "store"); err != nil {
		return err
	}
	err = c.run(ctx, "", "policy", "attach", "store", user.name, "--user", string(account[accessKey]))
	if err != nil && !strings.Contains(err.Error(), "already in effect") {
		return err
	}
	return nil
}

func (c adminClient) run(ctx context.Context, stdin string, args ...string) error {
	command := step.Command{
		Env: []string{c.host}, Stdin: strings.NewReader(stdin), Args: append([]string{c.binary, "--config-dir", c.folder, "admin"}, args...),
	}
	_, err := command.Run(ctx)
	return err
}
