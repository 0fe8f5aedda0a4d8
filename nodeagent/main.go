package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/go-logr/logr"
	_ "golang.org/x/crypto/x509roots/fallback" // an image from scratch has no certificates of its own
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/drop"
	"ugallu.io/forensics/nodeagent/internal/freeze"
	"ugallu.io/forensics/nodeagent/internal/options"
	"ugallu.io/forensics/nodeagent/internal/order"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// The kubelet's containers are in this namespace of containerd.
const containerdNamespace = "k8s.io"

const (
	// shutdown is how long running captures may take to notice that the process ends; what they stored is on record.
	shutdown = 5 * time.Second
	// untilReached is how long the controllers wait for the API server at the start.
	untilReached = 10 * 365 * 24 * time.Hour
	// Requests to the API server: a storm on one node is a few writes for each of its pods.
	requestsPerSecond, requestBurst = 100, 200
	// memory at which garbage is collected at any price: below the 512 MiB at which the kernel ends the process. Without
	// it the heap grows to twice of what is in use.
	memory = 448 << 20
	// memoryFolder of the node keeps the file systems in memory of contained pods, also while no agent runs.
	memoryFolder = "/run/ugallu-forensics/memory"
	// garbage in percent of what is in use at which it is collected otherwise: an agent that waits leaves its node alone.
	garbage = 33
)

func main() {
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(garbage)
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)))
	o, err := options.Parse(os.Args[1:], os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctrl.SetupSignalHandler(), o)
	}
	if err != nil {
		log.Log.Error(err, "node agent ended")
		os.Exit(1)
	}
}

func run(ctx context.Context, o options.Options) (err error) {
	dates := new(serverDate)
	manager, err := newManager(o, dates)
	if err != nil {
		return err
	}
	client, err := containerd.New(o.ContainerdSocket, containerd.WithDefaultNamespace(containerdNamespace))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", o.ContainerdSocket, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	drops, err := drop.New(drop.Config{BPFFS: o.BPFFS, NodeNetns: "/proc/1/ns/net", NodeMountns: "/proc/1/ns/mnt", NodeRoot: proc.NodeRoot})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drops.Close()) }()
	method, err := freeze.Detect(o.CgroupRoot)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	image := newImage(o.Pod, manager.GetAPIReader())
	if err := manager.Add(image); err != nil {
		return fmt.Errorf("add the look at the own image: %w", err)
	}
	list := containers.New(client)
	freezing := freeze.New(method)
	holder := newHolder(client)
	keeper := &podfiles.Keeper{Folder: memoryFolder, Namespace: "/proc/1/ns/mnt"}
	node := order.Node{
		Name: o.Pod.NodeName, Containers: lister{list, freezing}, Drop: dropper{drops, containers.NewKubelet(), list},
		Freeze: freezer{freezing}, Hold: holder, Memory: memoryKeeper{keeper},
		Capture: newCapturer(captureParts{
			holder: holder, lister: list, freezer: freezing, live: manager.GetAPIReader(), credentials: o.WORMCredentialsDir, keeper: keeper,
		}),
		Reporter: order.Reporter{
			Identity: v1alpha1.Reporter{Account: o.Pod.Account(), PodUID: o.Pod.UID, NodeName: o.Pod.NodeName, BootID: boot},
			Image:    image.digest, APIServerDate: dates.last,
		},
		Clock: clock.RealClock{}, APIServerNow: dates.now, Client: manager.GetClient(), Live: manager.GetAPIReader(),
		Known: order.NewKnown(manager.GetClient(), o.StateDir),
	}
	guard, err := order.Setup(manager, node, list)
	if err != nil {
		return err
	}
	if err := addChecks(manager, client); err != nil {
		return err
	}
	log.Log.Info("node agent starts", "node", o.Pod.NodeName, "freezeMethod", method, "deviceHook", drops.DeviceHook())
	// The guard does not wait for the API server as the manager does. The end of one is the end of the other.
	group, ctx := errgroup.WithContext(log.IntoContext(ctx, log.Log))
	group.Go(func() error { return manager.Start(ctx) })
	group.Go(func() error { return guard.Start(ctx) })
	group.Go(func() error {
		drops.Watch(ctx, guard.DeviceChanged)
		return nil
	})
	return group.Wait()
}

func newManager(o options.Options, dates *serverDate) (ctrl.Manager, error) {
	access, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	access.QPS, access.Burst = requestsPerSecond, requestBurst
	access.Wrap(dates.wrap)
	return managerFor(access, o)
}

func managerFor(access *rest.Config, o options.Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	grace := shutdown
	manager, err := ctrl.NewManager(access, ctrl.Options{
		Scheme: scheme, MapperProvider: kinds, Cache: order.CacheOptions(o.Pod.NodeName), GracefulShutdownTimeout: &grace,
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress: o.ProbeAddress,
		// With the API server away the guard has work to do: this process does not end for want of orders.
		Controller: config.Controller{CacheSyncTimeout: untilReached},
	})
	if err != nil {
		return nil, fmt.Errorf("create the manager: %w", err)
	}
	return manager, nil
}

// addChecks makes the agent ready while it can see its orders and reach the runtime.
func addChecks(manager ctrl.Manager, client *containerd.Client) error {
	ready := readiness{manager: manager, client: client}
	if err := errors.Join(manager.AddHealthzCheck("ping", healthz.Ping), manager.AddReadyzCheck("orders", ready.check)); err != nil {
		return fmt.Errorf("add probes: %w", err)
	}
	return nil
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
