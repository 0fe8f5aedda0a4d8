package v1alpha1

// StoredObjects lists every version in the write-once store that the record names, artifacts first.
func (s *EventResponseStatus) StoredObjects() []StoredObject {
	var objects []StoredObject
	for i := range s.Artifacts {
		objects = append(objects, s.Artifacts[i].Segments...)
		objects = append(objects, s.Artifacts[i].Companions()...)
	}
	return append(objects, s.Attachments()...)
}

// Companions are the stored objects beside an artifact's own segments: its index and its timeline.
func (a *Artifact) Companions() []StoredObject {
	var objects []StoredObject
	for _, object := range []*StoredObject{a.Index, a.Timeline} {
		if object != nil {
			objects = append(objects, *object)
		}
	}
	return objects
}

// Attachments lists the stored objects that belong to no artifact: the lists of gaps and of dropped flows, and the
// segments of an artifact that was not completed.
func (s *EventResponseStatus) Attachments() []StoredObject {
	var objects []StoredObject
	if s.GapsObject != nil {
		objects = append(objects, *s.GapsObject)
	}
	if s.Containment != nil && s.Containment.FlowsObject != nil {
		objects = append(objects, *s.Containment.FlowsObject)
	}
	if s.Storing != nil {
		objects = append(objects, s.Storing.Segments...)
	}
	return objects
}

// WithoutRootFilesystem names the containers of which no root filesystem is among the artifacts. An artifact names its
// container only, so that one name stands as often as containers of that name are missing.
func (s *EventResponseStatus) WithoutRootFilesystem(containers []ContainerFreeze) []string {
	stored := map[string]int{}
	for i := range s.Artifacts {
		if s.Artifacts[i].Kind == ArtifactRootFilesystem {
			stored[s.Artifacts[i].Container]++
		}
	}
	var missing []string
	for i := range containers {
		name := containers[i].Name
		if stored[name] == 0 {
			missing = append(missing, name)
			continue
		}
		stored[name]--
	}
	return missing
}
