package verify_test

import (
	"testing"
	"time"

	"ugallu.io/forensics/internal/verify"
	"ugallu.io/forensics/internal/verify/verifytest"
)

// BenchmarkVerify checks an incident of ten artifacts, whose objects are in memory, and one file of it: the figures are
// those of a verification without its downloads, and of what has to be downloaded for one file.
func BenchmarkVerify(b *testing.B) {
	authority := verifytest.NewAuthority(b)
	// Beside these: volatile state, one archive, and the cluster's state.
	incident := verifytest.NewIncident(b, authority, verifytest.Change{MoreArchives: 7})
	trust, target := authority.Trust(), verify.Target{Key: incident.Released}
	var spent time.Duration
	var proof verify.FileProof
	for b.Loop() {
		began := time.Now()
		report, err := verify.Incident(b.Context(), incident, trust, target)
		spent += time.Since(began)
		if err != nil || report.Verdict() != verify.Verified {
			b.Fatalf("%v: %+v", err, report)
		}
		query := verify.FileQuery{Path: "usr/bin/x", Artifact: verifytest.RootArtifact}
		report, proofs, err := verify.File(b.Context(), incident, trust, target, query)
		if err != nil || report.Verdict() != verify.Verified || len(proofs) != 1 {
			b.Fatalf("%v: %+v", err, report)
		}
		proof = proofs[0]
	}
	b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "ms")
	b.ReportMetric(float64(proof.IndexBytes+proof.FrameBytes), "one-file-bytes")
	b.ReportMetric(float64(proof.IndexBytes+2*proof.Entry.Position.FrameSize), "two-frames-and-index-bytes")
	b.ReportMetric(0, "ns/op")
}
