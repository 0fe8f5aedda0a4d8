package v1alpha1

// StoredObjects lists every version in the write-once store that the record names, artifacts' segments first.
func (s *EventResponseStatus) StoredObjects() []StoredObject {
	var objects []StoredObject
	for i := range s.Artifacts {
		objects = append(objects, s.Artifacts[i].Segments...)
	}
	return append(objects, s.Attachments()...)
}

// Attachments lists the stored objects that belong to no artifact: the lists of gaps and of dropped flows.
func (s *EventResponseStatus) Attachments() []StoredObject {
	var objects []StoredObject
	if s.GapsObject != nil {
		objects = append(objects, *s.GapsObject)
	}
	if s.Containment != nil && s.Containment.FlowsObject != nil {
		objects = append(objects, *s.Containment.FlowsObject)
	}
	return objects
}
