package attestor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// stated is what a statement about an event is about.
type stated struct {
	Subject       []evidence.Subject `json:"subject"`
	PredicateType string             `json:"predicateType"`
	Predicate     struct {
		Event evidence.Reference `json:"event"`
	} `json:"predicate"`
}

// madeAt is when the attestor made a statement.
func madeAt(payload []byte) (time.Time, error) {
	var parsed struct {
		Predicate struct {
			Attestor struct {
				At time.Time `json:"at"`
			} `json:"attestor"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &parsed); err != nil {
		return time.Time{}, fmt.Errorf("parse statement: %w", err)
	}
	return parsed.Predicate.Attestor.At, nil
}

// atMoment is a statement as it is made at the moment that another payload gives.
func atMoment(statement, payload []byte) ([]byte, error) {
	made, err := madeAt(payload)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(statement))
	decoder.UseNumber()
	var parsed map[string]any
	if err := decoder.Decode(&parsed); err != nil {
		return nil, fmt.Errorf("parse statement: %w", err)
	}
	predicate, _ := parsed["predicate"].(map[string]any)
	attestor, ok := predicate["attestor"].(map[string]any)
	if !ok {
		return nil, errors.New("the statement names no attestor")
	}
	attestor["at"] = made
	return evidence.Canonical(parsed)
}

// namedBefore is what a statement names as the one before it.
func namedBefore(payload []byte) (string, error) {
	var parsed struct {
		Predicate struct {
			Previous string `json:"previous"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &parsed); err != nil {
		return "", fmt.Errorf("parse statement: %w", err)
	}
	return parsed.Predicate.Previous, nil
}

func parseStatement(payload []byte) (stated, error) {
	var parsed stated
	if err := json.Unmarshal(payload, &parsed); err != nil {
		return stated{}, fmt.Errorf("parse statement: %w", err)
	}
	return parsed, nil
}
