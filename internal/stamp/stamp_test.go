package stamp_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
)

func acknowledgement() v1alpha1.Acknowledgement {
	return v1alpha1.Acknowledgement{
		Username: "system:serviceaccount:ugallu-system:ugallu-responder", EventUID: "event-1",
		ManifestSHA256: "aa", At: metav1.NewMicroTime(time.Date(2026, 11, 23, 1, 2, 3, 456789123, time.UTC)),
	}
}

func TestStampSurvivesTheAPIServersJSON(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	signed, err := stamp.Sign(key, acknowledgement())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	var stored v1alpha1.Acknowledgement
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	if !stamp.Valid(key, stored) {
		t.Fatal("a stored stamp does not check")
	}
}

func TestStampRefusesAnyChange(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	tests := map[string]func(a *v1alpha1.Acknowledgement){
		"username": func(a *v1alpha1.Acknowledgement) { a.Username = "someone" },
		"event":    func(a *v1alpha1.Acknowledgement) { a.EventUID = "event-2" },
		"manifest": func(a *v1alpha1.Acknowledgement) { a.ManifestSHA256 = "" },
		"time":     func(a *v1alpha1.Acknowledgement) { a.At = metav1.NewMicroTime(a.At.Add(time.Microsecond)) },
		"no mac":   func(a *v1alpha1.Acknowledgement) { a.MAC = "" },
		"bad mac":  func(a *v1alpha1.Acknowledgement) { a.MAC = "zz" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			signed, err := stamp.Sign(key, acknowledgement())
			if err != nil {
				t.Fatal(err)
			}
			change(&signed)
			if stamp.Valid(key, signed) {
				t.Fatal("a changed stamp checks")
			}
		})
	}
}

func TestStampRefusesShortAndOtherKeys(t *testing.T) {
	if _, err := stamp.Sign([]byte("short"), acknowledgement()); err == nil {
		t.Fatal("a short key signs")
	}
	signed, err := stamp.Sign(bytes.Repeat([]byte{7}, 32), acknowledgement())
	if err != nil {
		t.Fatal(err)
	}
	if stamp.Valid(bytes.Repeat([]byte{8}, 32), signed) || stamp.Valid(nil, signed) {
		t.Fatal("another key checks")
	}
}
