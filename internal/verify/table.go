package verify

import (
	"fmt"
	"io"
	"strings"
)

// marks of the statuses in a table.
var marks = map[Status]string{Passed: "✓", Failed: "✗", NotChecked: "–", Unread: "?"}

// Table writes the report for people: one line for each link that holds, and one for each check that does not.
func (r *Report) Table(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "incident %s", r.Incident.Name)
	if r.Pod.UID != "" {
		fmt.Fprintf(&text, ", pod %s/%s (%s)", r.Pod.Namespace, r.Pod.Name, r.Pod.UID)
	}
	text.WriteByte('\n')
	for first := 0; first < len(r.Checks); {
		end := first + 1
		for end < len(r.Checks) && r.Checks[end].Link == r.Checks[first].Link {
			end++
		}
		writeLink(&text, r.Checks[first:end])
		first = end
	}
	fmt.Fprintf(&text, "%s\n", r.Summary())
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// writeLink writes the checks of one link: those that passed together, each other by itself.
func writeLink(text *strings.Builder, checks []Check) {
	var passed, found []string
	for _, check := range checks {
		if check.Status != Passed {
			continue
		}
		passed = append(passed, check.Check)
		if check.Reason != "" {
			found = append(found, check.Reason)
		}
	}
	if len(passed) > 0 {
		fmt.Fprintf(text, "%s %s: %s", marks[Passed], printable(checks[0].Link), strings.Join(passed, ", "))
		if len(found) > 0 {
			fmt.Fprintf(text, " (%s)", printable(strings.Join(found, "; ")))
		}
		text.WriteByte('\n')
	}
	for _, check := range checks {
		if check.Status != Passed {
			fmt.Fprintf(text, "%s %s: %s: %s\n", marks[check.Status], printable(check.Link), check.Check, printable(check.Reason))
		}
	}
}

// Summary is one line about the whole.
func (r *Report) Summary() string {
	counts := map[Status]int{}
	for _, check := range r.Checks {
		counts[check.Status]++
	}
	text := fmt.Sprintf("%s: %d checks passed, %d failed, %d not read, %d not checked",
		strings.ToUpper(string(r.Verdict())), counts[Passed], counts[Failed], counts[Unread], counts[NotChecked])
	if r.Records == 0 {
		text += "; no custody record covers the whole"
	}
	return text
}

// printable keeps what evidence says from steering a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return '\ufffd'
		}
		return r
	}, text)
}
