package servers

import "sigs.k8s.io/controller-runtime/pkg/client"

const bucket = "ugallu-forensics"

// user is one account of the store: its credentials lie in one Secret, and it may do what its statements allow.
type user struct {
	name       string
	secret     client.ObjectKey
	statements []statement
}

// statement of an S3 policy.
type statement struct {
	Effect   string   `json:"Effect"`
	Action   []string `json:"Action"`
	Resource []string `json:"Resource"`
}

// users lists who may do what. Nobody may delete, shorten a retention or bypass a lock, and the agents, which run
// beside the suspect, can neither read nor list.
func users() []user {
	return []user{
		{
			"ugallu-forensics",
			client.ObjectKey{Namespace: systemNamespace, Name: "ugallu-forensics-worm"},
			[]statement{put("forensics/*/manifest-*", "forensics/*/artifacts/cluster-state-*"), get("forensics/*", "attestations/*"), list()},
		},
		{
			"ugallu-attestor",
			client.ObjectKey{Namespace: systemNamespace, Name: "ugallu-attestor-worm"},
			[]statement{
				put("forensics/*/bundles/*", "forensics/*/custody-*", "forensics/*/trust/*", "attestations/*"),
				get("forensics/*/bundles/*", "forensics/*/custody-*", "forensics/*/trust/*", "attestations/*", "forensics/*/manifest-*"),
				list(),
			},
		},
		{
			"ugallu-forensics-snapshot",
			client.ObjectKey{Namespace: privilegedNamespace, Name: "ugallu-forensics-snapshot-worm"},
			[]statement{get("*"), list()},
		},
		{
			"ugallu-forensics-nodeagent",
			client.ObjectKey{Namespace: privilegedNamespace, Name: "ugallu-forensics-nodeagent-worm"},
			[]statement{put("forensics/*/artifacts/*")},
		},
		{
			"ugallu-analyst",
			client.ObjectKey{Namespace: namespace, Name: "ugallu-analyst"},
			[]statement{get("*"), list()},
		},
	}
}

// put allows locked objects, in one request or in parts. The retention is set by the request that stores the object; a
// later request can only make it longer, which COMPLIANCE sees to.
func put(keys ...string) statement {
	actions := []string{"s3:PutObject", "s3:PutObjectRetention", "s3:AbortMultipartUpload"}
	return statement{Effect: "Allow", Action: actions, Resource: objects(keys)}
}

func get(keys ...string) statement {
	actions := []string{"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"}
	return statement{Effect: "Allow", Action: actions, Resource: objects(keys)}
}

// list also lets an absent object answer 404, where S3 says 403 to those who may not list.
func list() statement {
	return statement{
		Effect: "Allow",
		Action: []string{
			"s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration",
		},
		Resource: []string{"arn:aws:s3:::" + bucket},
	}
}

func objects(keys []string) []string {
	resources := make([]string, 0, len(keys))
	for _, key := range keys {
		resources = append(resources, "arn:aws:s3:::"+bucket+"/"+key)
	}
	return resources
}
