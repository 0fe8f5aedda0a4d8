package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"time"

	"ugallu.io/forensics/api/evidence"
)

// checkFacts checks what no single statement says.
func (v *verification) checkFacts() {
	v.report.add(LinkFacts, CheckSameIncident, v.sameIncidentError(), v.report.Incident.Name)
	v.report.add(LinkFacts, CheckSamePod, v.samePodError(), v.report.Pod.UID)
	v.checkContainedFirst()
	v.checkFrozen()
}

// sameIncidentError demands that everything belongs to one incident, and that its name is that of its trigger.
func (v *verification) sameIncidentError() error {
	incident, trigger := v.report.Incident, ""
	for _, l := range v.links {
		if isTrigger(l) {
			trigger = l.event.Event.UID
		}
	}
	if trigger == "" && v.partial {
		return v.together(refuse("no statement is about the trigger"))
	}
	sum := sha256.Sum256([]byte(trigger))
	if name := hex.EncodeToString(sum[:])[:16]; name != incident.Name || path.Base(v.prefix) != incident.Name {
		return refuse("it is called %s and lies at %s, its trigger opens %s", incident.Name, v.prefix, name)
	}
	if m := v.manifest; m != nil && (m.Incident != incident || m.Trigger.UID != trigger) {
		return refuse("the manifest is about incident %s (%s) of trigger %s", m.Incident.Name, m.Incident.UID, m.Trigger.UID)
	}
	if v.record != nil && v.record.custody.Trigger.UID != trigger {
		return refuse("the record is about trigger %s", v.record.custody.Trigger.UID)
	}
	for _, l := range v.links {
		if err := belongs(l, incident, trigger); err != nil {
			return err
		}
	}
	return nil
}

func belongs(l *link, incident evidence.Reference, trigger string) error {
	switch {
	case l.response != nil:
		r := l.response
		if r.IncidentUID != incident.UID || r.spec.IncidentUID != incident.UID || r.spec.IncidentName != incident.Name {
			return refuse("%s is a step of incident %s (%s)", r.Response.Name, r.spec.IncidentName, r.IncidentUID)
		}
		if r.spec.SecurityEventRef.UID != trigger {
			return refuse("%s answers the event %s", r.Response.Name, r.spec.SecurityEventRef.UID)
		}
	case l.incident != nil:
		if l.incident.Incident != incident {
			return refuse("%s is about incident %s", l.name, l.incident.Incident.UID)
		}
	case !isTrigger(l):
		spec := l.event.spec
		if spec.Incident == nil || spec.Incident.UID != incident.UID || spec.Trigger == nil || spec.Trigger.UID != trigger {
			return refuse("event %s is about another incident", l.event.Event.Name)
		}
	}
	return nil
}

// samePodError demands one pod, by uid, and one node throughout.
func (v *verification) samePodError() error {
	pod := v.report.Pod
	if v.manifest != nil && v.manifest.Pod != pod {
		return refuse("the manifest is about pod %s/%s (%s)", v.manifest.Pod.Namespace, v.manifest.Pod.Name, v.manifest.Pod.UID)
	}
	for _, l := range v.links {
		switch {
		case l.response != nil:
			of := l.response.spec.PodRef
			if of.UID != pod.UID || of.Namespace != pod.Namespace || of.Name != pod.Name || of.NodeName != pod.Node {
				return refuse("%s is about pod %s/%s (%s) on node %s", l.response.Response.Name, of.Namespace, of.Name, of.UID, of.NodeName)
			}
			if node := l.response.spec.NodeName; node != "" && node != pod.Node {
				return refuse("%s was carried out on node %s", l.response.Response.Name, node)
			}
		case l.event != nil:
			// A trigger may name its pod without a uid.
			of := l.event.spec.Subject
			if of.Kind != "Pod" || of.Namespace != pod.Namespace || of.Name != pod.Name || (of.UID != pod.UID && (of.UID != "" || !isTrigger(l))) {
				return refuse("event %s is about %s %s/%s (%s)", l.event.Event.Name, of.Kind, of.Namespace, of.Name, of.UID)
			}
		}
	}
	return nil
}

// checkContainedFirst compares two readings of one node's clock.
func (v *verification) checkContainedFirst() {
	freeze, snapshot := v.first(stepFreeze), v.first(stepSnapshot)
	switch {
	case freeze == nil || snapshot == nil || snapshot.outcome.StartedAt == nil:
		v.report.notChecked(LinkFacts, CheckContainedFirst, "no statement says that both happened")
	case freeze.outcome.contained.ContainedAt == nil:
		v.report.notChecked(LinkFacts, CheckContainedFirst, "the response says itself that it did not contain: "+freeze.outcome.Phase)
	default:
		at, begun := *freeze.outcome.contained.ContainedAt, *snapshot.outcome.StartedAt
		var err error
		if at.After(begun) {
			err = refuse("contained at %s, the capture began at %s", stamp(at), stamp(begun))
		}
		v.report.add(LinkFacts, CheckContainedFirst, err, begun.Sub(at).String()+" before")
	}
}

// checkFrozen compares what artifacts claim with when their containers stood still.
func (v *verification) checkFrozen() {
	freeze, snapshot := v.first(stepFreeze), v.first(stepSnapshot)
	claimed := 0
	var err error
	if snapshot != nil {
		for i := range snapshot.Artifacts {
			artifact := &snapshot.Artifacts[i]
			if !artifact.FrozenThroughout {
				continue
			}
			claimed++
			if err == nil {
				err = v.frozenError(artifact, freeze, snapshot)
			}
		}
	}
	if claimed == 0 {
		v.report.notChecked(LinkFacts, CheckFrozenThroughout, "no artifact claims it")
		return
	}
	v.report.add(LinkFacts, CheckFrozenThroughout, err, "")
}

// frozenError demands that a container of the artifact, or each of an artifact of the whole pod, was frozen before the
// capture began and thawed after it ended.
func (v *verification) frozenError(artifact *evidence.Artifact, freeze, snapshot *response) error {
	if freeze == nil {
		return v.together(refuse("artifact %s claims that its container was frozen, no statement is about the step %s", artifact.Name, stepFreeze))
	}
	if snapshot.outcome.StartedAt == nil || snapshot.outcome.CompletedAt == nil {
		return refuse("artifact %s claims that its container was frozen, no statement says when", artifact.Name)
	}
	found := false
	for _, c := range freeze.outcome.contained.Containers {
		if artifact.Container != "" && c.Name != artifact.Container {
			continue
		}
		if c.FrozenAt == nil {
			if artifact.Container == "" {
				return refuse("artifact %s claims that all stood still, container %s was not frozen", artifact.Name, c.Name)
			}
			continue
		}
		found = true
		if c.FrozenAt.After(*snapshot.outcome.StartedAt) {
			return refuse("artifact %s: container %s was frozen at %s, the capture began at %s", artifact.Name, c.Name,
				stamp(*c.FrozenAt), stamp(*snapshot.outcome.StartedAt))
		}
		if thawed := v.thawedAt(c.ContainerID); thawed != nil && thawed.Before(*snapshot.outcome.CompletedAt) {
			return refuse("artifact %s: container %s was thawed at %s, the capture ended at %s", artifact.Name, c.Name,
				stamp(*thawed), stamp(*snapshot.outcome.CompletedAt))
		}
	}
	if !found {
		return refuse("artifact %s claims that its container was frozen, no statement says so", artifact.Name)
	}
	return nil
}

// thawedAt is the first thaw of a container that a statement tells of.
func (v *verification) thawedAt(containerID string) *time.Time {
	for _, l := range v.links {
		if l.response == nil {
			continue
		}
		for _, c := range l.response.outcome.contained.Containers {
			if c.ContainerID == containerID && c.ThawedAt != nil {
				return c.ThawedAt
			}
		}
	}
	return nil
}

// first response of a step, which is the one that counts: only releases are attempted again.
func (v *verification) first(step string) *response {
	if found := v.responsesOf(step); len(found) > 0 {
		return found[0].response
	}
	return nil
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
