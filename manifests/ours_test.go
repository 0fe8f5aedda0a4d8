package manifests_test

import (
	"testing"

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
