package manifests_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// keepsChainOurs tries as the cluster's administrator, who has every right, and as each workload of ours.
func keepsChainOurs(t *testing.T, s server) {
	admin := "kubernetes-admin"
	specs := map[string]fields{
		"Incident": incidentSpec(), "EventResponse": responseSpec("PodFreeze", "podFreeze"), "AttestationBundle": bundleSpec(),
	}
	records := map[string]fields{
		"Incident": {"phase": "Contained"}, "EventResponse": {"phase": "Running"}, "AttestationBundle": {"phase": "Pending"},
	}
	by := map[string]client.Client{
		admin: s.client, forensics: s.as(t, forensics, nil), attestorAccount: s.as(t, attestorAccount, nil),
	}
	makers := map[string]string{"Incident": forensics, "EventResponse": forensics, "AttestationBundle": attestorAccount}
	for kind, spec := range specs {
		for account, as := range by {
			t.Run(kind+" by "+account, func(t *testing.T) {
				o := object(kind, "", spec)
				o.SetGenerateName("x-")
				says := map[bool]string{false: "forbidden"}[makers[kind] == account]
				if account == admin {
					says = "may not create"
				}
				allowedOrSays(t, as.Create(t.Context(), o), says)
				if account == admin {
					says = "may not record anything in"
				}
				allowedOrSays(t, patchStatus(t, as, s.made(t, kind, spec), records[kind]), says)
			})
		}
	}
}

// dropsWhatIsStaged shows what an administrator may do to a bundle by hand.
func dropsWhatIsStaged(t *testing.T, s server) {
	tests := map[string]struct {
		patch fields
		says  string
	}{
		"taken away":          {fields{"staged": nil}, ""},
		"replaced":            {fields{"staged": "e31="}, "may not record anything in attestationbundles"},
		"taken away and more": {fields{"staged": nil, "phase": "Sealed"}, "may not record anything in attestationbundles"},
		"another taken away":  {fields{"staged": nil, "phase": nil}, "may not record anything in attestationbundles"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bundle := s.made(t, "AttestationBundle", bundleSpec())
			staged := fields{"staged": "e30=", "phase": "Pending"}
			if err := patchStatus(t, s.as(t, attestorAccount, nil), bundle, staged); err != nil {
				t.Fatal(err)
			}
			allowedOrSays(t, patchStatus(t, s.client, bundle, tt.patch), tt.says)
		})
	}
}

// keepsForensicStatus tries to move the deadline of an outcome event as the cluster's administrator.
func keepsForensicStatus(t *testing.T, s server, forensic *unstructured.Unstructured) {
	detection := s.made(t, "SecurityEvent", eventSpec())
	tests := map[string]struct {
		by    client.Client
		event *unstructured.Unstructured
		says  string // empty is allowed
	}{
		"by the administrator":              {s.client, forensic, "may not record anything in securityevents"},
		"by the controller":                 {s.as(t, forensics, nil), forensic, ""},
		"by the attestor":                   {s.as(t, attestorAccount, nil), forensic, ""},
		"by the administrator, a detection": {s.client, detection, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			allowedOrSays(t, patchStatus(t, tt.by, tt.event, fields{"unfreezeAt": now}), tt.says)
		})
	}
}

// keepsOpen tries to have an incident forgotten, or held again, by its labels.
func keepsOpen(t *testing.T, s server) {
	open := map[string]string{"ugallu.io/open": "true", "ugallu.io/pod-uid": "p", "team": "red"}
	released := map[string]string{"ugallu.io/pod-uid": "p"}
	const says = "only the forensics controller changes "
	tests := map[string]struct {
		labels map[string]string
		patch  fields // of the metadata
		says   string // by the administrator; empty is allowed
	}{
		"open no more":               {open, fields{"labels": fields{"ugallu.io/open": "no"}}, says + "ugallu.io/open"},
		"open of no value":           {open, fields{"labels": fields{"ugallu.io/open": ""}}, says + "ugallu.io/open"},
		"the label taken off":        {open, fields{"labels": fields{"ugallu.io/open": nil}}, says + "ugallu.io/open"},
		"every label taken off":      {open, fields{"labels": nil}, says + "ugallu.io/open and ugallu.io/pod-uid"},
		"another pod":                {open, fields{"labels": fields{"ugallu.io/pod-uid": "q"}}, says + "ugallu.io/pod-uid"},
		"no pod":                     {open, fields{"labels": fields{"ugallu.io/pod-uid": nil}}, says + "ugallu.io/pod-uid"},
		"open again":                 {released, fields{"labels": fields{"ugallu.io/open": "true"}}, says + "ugallu.io/open"},
		"of no value, again":         {released, fields{"labels": fields{"ugallu.io/open": ""}}, says + "ugallu.io/open"},
		"another pod, once released": {released, fields{"labels": fields{"ugallu.io/pod-uid": "q"}}, says + "ugallu.io/pod-uid"},
		"another label":              {open, fields{"labels": fields{"team": "blue", "seen": "yes"}}, ""},
		"another label, released":    {released, fields{"labels": fields{"seen": "yes"}}, ""},
		"an annotation":              {open, fields{"annotations": fields{"note": "seen"}}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			incident := s.labelled(t, "Incident", incidentSpec(), tt.labels)
			allowedOrSays(t, patchMetadata(t, s.client, incident, tt.patch), tt.says)
			allowedOrSays(t, patchMetadata(t, s.as(t, forensics, nil), incident, tt.patch), "")
		})
	}
	t.Run("deleted while it is open", func(t *testing.T) {
		allowedOrSays(t, s.client.Delete(t.Context(), s.labelled(t, "Incident", incidentSpec(), open)), "it can be deleted when its pod is released")
	})
	t.Run("deleted once it is released", func(t *testing.T) {
		allowedOrSays(t, s.client.Delete(t.Context(), s.labelled(t, "Incident", incidentSpec(), released)), "")
	})
}

func (s server) labelled(t *testing.T, kind string, spec fields, labels map[string]string) *unstructured.Unstructured {
	t.Helper()
	o := object(kind, "", spec)
	o.SetGenerateName("x-")
	o.SetLabels(labels)
	if err := s.writer(t, kind).Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return o
}
