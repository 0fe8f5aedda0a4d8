package install

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKustomizationSetsEveryTagInNameOrder(t *testing.T) {
	got := kustomization("../o", map[string]string{"ugallu/webhook": "0123", "ugallu/controller": "abcd"})
	want := `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../o
images:
- name: ugallu/controller
  newTag: "abcd"
- name: ugallu/webhook
  newTag: "0123"
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kustomization (-want +got):\n%s", diff)
	}
}

func TestParseTakesEveryDocument(t *testing.T) {
	objects, err := parse("kind: Namespace\nmetadata: {name: a}\n---\n# nothing\n---\nkind: Deployment\nmetadata: {name: b, namespace: a}\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.Kind+" "+o.Metadata.Namespace+"/"+o.Metadata.Name)
	}
	if diff := cmp.Diff([]string{"Namespace /a", "Deployment a/b"}, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}
