package kindcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"ugallu.io/forensics/hack/internal/engine"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// kubectl runs the cluster's own kubectl against it.
func kubectl(ctx context.Context, env state.Env, args ...string) (string, error) {
	command := step.Command{Timeout: 30 * time.Second}
	command.Args = append([]string{env.Kubectl, "--kubeconfig", env.Kubeconfig, "--request-timeout", "10s"}, args...)
	return command.Run(ctx)
}

type nodeList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
		Status struct {
			Addresses []struct {
				Type    string `json:"type"`
				Address string `json:"address"`
			} `json:"addresses"`
			Conditions []struct {
				Type              string    `json:"type"`
				Status            string    `json:"status"`
				LastHeartbeatTime time.Time `json:"lastHeartbeatTime"`
			} `json:"conditions"`
		} `json:"status"`
	}
}

// nodes lists the cluster's nodes by name, and how many of them are Ready by a report not older than since.
func nodes(ctx context.Context, env state.Env, since time.Time) (list []state.Node, ready int, err error) {
	out, err := kubectl(ctx, env, "get", "nodes", "--output", "json")
	if err != nil {
		return nil, 0, err
	}
	return parseNodes([]byte(out), since)
}

func parseNodes(raw []byte, since time.Time) (list []state.Node, ready int, err error) {
	var found nodeList
	if err := json.Unmarshal(raw, &found); err != nil {
		return nil, 0, fmt.Errorf("parse the list of nodes: %w", err)
	}
	for _, item := range found.Items {
		node := state.Node{Name: item.Metadata.Name, PodCIDR: item.Spec.PodCIDR}
		for _, address := range item.Status.Addresses {
			if address.Type == "InternalIP" {
				node.IP = address.Address
			}
		}
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" && !condition.LastHeartbeatTime.Before(since) {
				ready++
			}
		}
		list = append(list, node)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, ready, nil
}

// waitNodes waits until both nodes have registered and been given their pods' range.
func waitNodes(ctx context.Context, env state.Env, timeout time.Duration) (list []state.Node, err error) {
	err = step.Wait(ctx, timeout, func(ctx context.Context) (bool, error) {
		found, _, err := nodes(ctx, env, time.Time{})
		if err != nil || len(found) < 2 {
			// The API server is on its way up.
			return false, ctx.Err()
		}
		for _, node := range found {
			if node.PodCIDR == "" || node.IP == "" {
				return false, nil
			}
		}
		list = found
		return true, nil
	})
	return list, err
}

// waitReady waits until both nodes report Ready after since.
func waitReady(ctx context.Context, env state.Env, since time.Time, timeout time.Duration) error {
	return step.Wait(ctx, timeout, func(ctx context.Context) (bool, error) {
		_, ready, err := nodes(ctx, env, since)
		return err == nil && ready == 2, ctx.Err()
	})
}

// containers tells which node containers exist and whether each runs.
func containers(ctx context.Context) (map[string]bool, error) {
	out, err := engine.Docker(ctx, "ps", "--all", "--filter", "label=io.x-k8s.kind.cluster="+Name, "--format", "{{.Names}} {{.State}}")
	if err != nil {
		return nil, err
	}
	return parseContainers(out), nil
}
