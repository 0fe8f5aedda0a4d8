package verify

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// labels are the parts of a bundle that its verifier reads to tell formats apart and compares with nothing.
type labels struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		TlogEntries []struct {
			KindVersion struct {
				Kind    string `json:"kind"`
				Version string `json:"version"`
			} `json:"kindVersion"`
			CanonicalizedBody []byte `json:"canonicalizedBody"`
		} `json:"tlogEntries"`
	} `json:"verificationMaterial"`
}

// labelsError compares a bundle's labels with what they are on.
func labelsError(bundle []byte) error {
	var found labels
	if err := json.Unmarshal(bundle, &found); err != nil {
		return refuse("is no bundle: %v", err)
	}
	if found.MediaType != evidence.MediaTypeBundle {
		return refuse("has media type %q", found.MediaType)
	}
	for _, entry := range found.VerificationMaterial.TlogEntries {
		var body struct {
			Kind    string `json:"kind"`
			Version string `json:"apiVersion"`
		}
		if err := json.Unmarshal(entry.CanonicalizedBody, &body); err != nil {
			return refuse("the log's entry is no JSON: %v", err)
		}
		if body.Kind != entry.KindVersion.Kind || body.Version != entry.KindVersion.Version {
			return refuse("the log's entry is a %s %s, called %s %s", body.Kind, body.Version, entry.KindVersion.Kind, entry.KindVersion.Version)
		}
	}
	var document any
	if err := json.Unmarshal(bundle, &document); err != nil {
		return refuse("is no bundle: %v", err)
	}
	return looseBase64(document)
}

// looseBase64 refuses base64 whose last character has bits that decoding drops: the same content in other bytes.
func looseBase64(value any) error {
	switch value := value.(type) {
	case string:
		// A checkpoint has its signature as the last word of a line.
		for word := range strings.FieldsSeq(value) {
			if _, err := base64.StdEncoding.DecodeString(word); err != nil {
				continue
			}
			if _, err := base64.StdEncoding.Strict().DecodeString(word); err != nil {
				return refuse("has base64 that nobody encodes so: %v", err)
			}
		}
	case []any:
		for _, item := range value {
			if err := looseBase64(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, item := range value {
			if err := looseBase64(item); err != nil {
				return err
			}
		}
	}
	return nil
}
