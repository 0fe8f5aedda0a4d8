package upload

import (
	"k8s.io/apimachinery/pkg/api/meta"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// clusterStateName of the artifact.
const clusterStateName = "cluster-state.yaml"

// withoutCluster says whether the cluster state is no longer waited for.
func withoutCluster(order *v1alpha1.EventResponse) bool {
	return meta.IsStatusConditionFalse(order.Status.Conditions, v1alpha1.ConditionClusterState)
}

// clusterStored says whether there is nothing to wait for.
func clusterStored(cluster *v1alpha1.ClusterState) bool {
	return cluster != nil && cluster.Object != nil
}

// storeFails says whether what keeps the cluster state keeps the manifest as well. A refusal need not: the policy of the
// store may allow one key and not the other.
func storeFails(cluster *v1alpha1.ClusterState) bool {
	if cluster == nil || cluster.Object != nil {
		return false
	}
	switch cluster.Reason {
	case v1alpha1.ReasonStoreFull, v1alpha1.ReasonStoreUnreachable, v1alpha1.ReasonStoreNoBucket, v1alpha1.ReasonStoreNotLocked,
		v1alpha1.ReasonStoreUnconfigured:
		return true
	}
	return false
}

// clusterArtifact is the cluster state as an artifact, nil when it is not stored.
func clusterArtifact(cluster *v1alpha1.ClusterState) *v1alpha1.Artifact {
	if !clusterStored(cluster) {
		return nil
	}
	artifact := &v1alpha1.Artifact{
		Name: clusterStateName, Kind: v1alpha1.ArtifactClusterState, MediaType: evidence.MediaTypeClusterState,
		Segments: []v1alpha1.StoredObject{*cluster.Object}, Size: cluster.Object.Size, SHA256: cluster.Object.SHA256,
		Entries: cluster.Documents,
	}
	if plain := cluster.Object.Plain; plain != nil {
		artifact.Size, artifact.SHA256 = plain.Size, plain.SHA256
	}
	return artifact
}

func clusterGaps(cluster *v1alpha1.ClusterState) []v1alpha1.GapCount {
	if clusterStored(cluster) {
		return cluster.Gaps
	}
	message := "the pod's objects of the API server were not stored within " + settledWithin.String()
	if cluster != nil && cluster.Message != "" {
		message += ": " + cluster.Message
	}
	const longest = 2048
	return []v1alpha1.GapCount{{Reason: evidence.GapClusterStateMissing, Message: message[:min(len(message), longest)], Count: 1}}
}
