package clusterstate

import (
	"bytes"
	"cmp"
	"fmt"

	"sigs.k8s.io/yaml"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// maxDocument and maxBytes bound what is stored: an object of the API server has 1.5 MiB at most, in JSON.
	maxDocument = 2 << 20
	maxBytes    = 8 << 20
	// maxNamed gaps stand in the header one by one; all are counted.
	maxNamed = 256
)

// content is a state as it is stored.
type content struct {
	yaml      []byte
	documents int64
	gaps      []v1alpha1.GapCount
}

// header is the first document.
type header struct {
	Kind     string          `json:"kind"`
	Version  string          `json:"version"`
	Incident v1alpha1.Ref    `json:"incident"`
	Pod      v1alpha1.PodRef `json:"pod"`
	// RedactEnvironment and RedactNames say what was replaced by its sha256.
	RedactEnvironment v1alpha1.Redaction `json:"redactEnvironment"`
	RedactNames       string             `json:"redactNames,omitempty"`
	// Documents are the names of those that follow.
	Documents []string `json:"documents"`
	Gaps      []gap    `json:"gaps"`
}

// render writes the documents in order, keys sorted: of the same objects the same bytes.
func (s *state) render(incident *v1alpha1.Incident) (content, error) {
	head := header{
		Kind: "ClusterState", Version: "v1", Incident: v1alpha1.Ref{Name: incident.Name, UID: string(incident.UID)}, Pod: incident.Spec.Pod,
		RedactEnvironment: cmp.Or(s.redact.mode, v1alpha1.RedactNone), Documents: []string{}, Gaps: []gap{},
	}
	if s.redact.mode == v1alpha1.RedactMatching {
		head.RedactNames = incident.Spec.Snapshot.RedactNames
	}
	s.redact.echoes(s.documents)
	var body bytes.Buffer
	for _, document := range s.documents {
		written, err := yaml.Marshal(document.object)
		if err != nil {
			return content{}, fmt.Errorf("write %s: %w", document.name, err)
		}
		if len(written) > maxDocument || body.Len()+len(written) > maxBytes {
			s.gap(gapTruncated, document.name, fmt.Sprintf("%d bytes are left out", len(written)))
			continue
		}
		head.Documents = append(head.Documents, document.name)
		body.WriteString("---\n")
		body.Write(written)
	}
	head.Gaps = append(head.Gaps, s.gaps[:min(len(s.gaps), maxNamed)]...)
	first, err := yaml.Marshal(head)
	if err != nil {
		return content{}, fmt.Errorf("write header: %w", err)
	}
	return content{
		yaml: append(first, body.Bytes()...), documents: int64(len(head.Documents)) + 1, gaps: counted(s.gaps),
	}, nil
}
