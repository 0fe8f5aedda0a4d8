package verify

import (
	"slices"

	"ugallu.io/forensics/api/evidence"
)

// checkChain checks each statement's link to the one before it, and the order and completeness of all.
func (v *verification) checkChain() {
	payloads := map[string]string{}
	for _, l := range v.links {
		if l.response != nil {
			payloads[l.response.Response.UID] = l.digest
		}
	}
	for i, l := range v.links {
		if l.response != nil {
			v.report.add(l.name, CheckPrevious, v.previousError(l, payloads), "")
		}
		if l.event != nil {
			v.report.add(l.name, CheckPrevious, v.together(eventPreviousError(l, v.links[:i])), "")
		}
	}
	v.report.add(LinkChain, CheckOrder, v.together(orderError(v.links)), "")
	v.report.add(LinkChain, CheckComplete, v.together(v.completeError()), "")
}

// previousError compares the digest that a response names with the payload of its parent's statement.
func (v *verification) previousError(l *link, payloads map[string]string) error {
	parent := l.response.spec.ParentRef
	if parent == nil {
		if l.response.Previous != "" {
			return refuse("it names %s as the statement before it, and has no parent", l.response.Previous)
		}
		return nil
	}
	payload, ok := payloads[parent.UID]
	switch {
	case !ok:
		return v.together(refuse("the statement of its parent %s is missing", parent.Name))
	case l.response.Previous != payload:
		return refuse("it names %q as the statement before it, that of its parent %s is %s", l.response.Previous, parent.Name, payload)
	}
	return nil
}

// eventPreviousError compares the digest that an event names with the payload of what it follows from: the last response of
// the capture, or the trigger where there was none. A trigger follows from nothing.
func eventPreviousError(l *link, before []*link) error {
	want := ""
	if !isTrigger(l) {
		for _, earlier := range before {
			if earlier.incident == nil && earlier.step() != stepUnfreeze {
				want = earlier.digest
			}
		}
	}
	if l.event.Previous != want {
		return refuse("it names %q as the statement before it, which is %q", l.event.Previous, want)
	}
	return nil
}

// orderError refuses a statement before what it follows from, and one that is there twice.
func orderError(links []*link) error {
	seen := map[string]bool{}
	responses, steps := map[string]bool{}, map[string]bool{}
	for i, l := range links {
		_, about := l.about()
		id := about.UID
		if l.incident != nil {
			id = "record of " + id
		}
		if seen[id] || seen[l.digest] {
			return refuse("%s is there twice", about.Name)
		}
		seen[id], seen[l.digest] = true, true
		switch {
		case (i == 0) != isTrigger(l):
			return refuse("%s is number %d: the trigger comes first, and alone", about.Name, i+1)
		case l.event != nil && l.event.spec.Type == typeCompleted && !steps[stepUpload]:
			return refuse("%s comes before the step %s", about.Name, stepUpload)
		case l.response != nil:
			if parent := l.response.spec.ParentRef; parent != nil && !responses[parent.UID] {
				return refuse("%s comes before its parent %s", about.Name, parent.Name)
			}
			responses[about.UID], steps[l.step()] = true, true
		}
	}
	return nil
}

func isTrigger(l *link) bool { return l.event != nil && l.event.spec.Class != classForensic }

// completeError demands every step, from the trigger to what the record claims to cover.
func (v *verification) completeError() error {
	ending := v.ending()
	if ending == nil {
		return refuse("no event says how the capture ended")
	}
	counts := map[string]int{}
	for _, l := range v.links {
		if l.response == nil {
			continue
		}
		counts[l.response.Step]++
		if l.response.spec.Attempt != counts[l.response.Step] {
			return refuse("%s is attempt %d, and %d came before it", l.response.Response.Name, l.response.spec.Attempt, counts[l.response.Step]-1)
		}
	}
	wanted := []string{stepFreeze, stepSnapshot, stepUpload}
	if ending.event.spec.Type == typeFailed {
		// An incident can fail before anything is ordered; whatever is ordered begins with the freeze.
		wanted = wanted[:min(1, counts[stepFreeze]+counts[stepSnapshot]+counts[stepUpload])]
	}
	if v.record != nil && v.record.custody.Number == evidence.CustodyReleased {
		wanted = append(slices.Clone(wanted), stepUnfreeze)
	}
	for _, step := range wanted {
		if counts[step] == 0 {
			return refuse("no statement is about the step %s", step)
		}
	}
	if len(v.links) == 0 || !isTrigger(v.links[0]) {
		return refuse("no statement is about the trigger")
	}
	if v.record != nil && len(v.links) != len(v.record.custody.Statements) {
		return refuse("%d of the %d statements on record could be read", len(v.links), len(v.record.custody.Statements))
	}
	return nil
}

// ending is the statement about the event that ends the capture; of several the last.
func (v *verification) ending() *link {
	var found *link
	for _, l := range v.links {
		if l.event != nil && l.event.spec.Class == classForensic && (l.event.spec.Type == typeCompleted || l.event.spec.Type == typeFailed) {
			found = l
		}
	}
	return found
}

// responsesOf a step, in order.
func (v *verification) responsesOf(step string) []*link {
	var found []*link
	for _, l := range v.links {
		if l.step() == step {
			found = append(found, l)
		}
	}
	return found
}
