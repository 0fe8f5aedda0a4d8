package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// parse reads a stream of YAML documents; empty ones are left out.
func parse(text string) ([]object, error) {
	var objects []object
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse the rendered overlay: %w", err)
		}
		if len(raw) == 0 {
			continue
		}
		parsed := object{raw: raw}
		if err := json.Unmarshal(raw, &parsed); err != nil {
			return nil, fmt.Errorf("parse a rendered object: %w", err)
		}
		if parsed.Kind != "" {
			objects = append(objects, parsed)
		}
	}
}
