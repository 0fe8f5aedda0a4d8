package manifests_test

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

type mistake struct {
	object *unstructured.Unstructured
	names  []string // what the refusal names
}

// wrong objects, each valid but for one thing. Every CEL rule that looks at one version of an object is among them.
func wrong() map[string]mistake {
	all := map[string]mistake{}
	for _, some := range []map[string]mistake{wrongEvents(), wrongResponses(), wrongForensics(), wrongSnapshots(), wrongPlatform(), wrongEncryption()} {
		for name, one := range some {
			all[name] = one
		}
	}
	return all
}

func wrongEvents() map[string]mistake {
	event := func(path string, value any, names ...string) mistake {
		return mistake{object("SecurityEvent", "wrong", with(eventSpec(), path, value)), names}
	}
	return map[string]mistake{
		"class":                      event("class", "Detections", "spec.class", `"Detections"`, `"Detection"`),
		"no class":                   event("class", nil, "spec.class", "Required"),
		"severity":                   event("severity", "HIGH", "spec.severity", `"HIGH"`, `"critical"`),
		"empty type":                 event("type", "", "spec.type"),
		"no type":                    event("type", nil, "spec.type", "Required"),
		"type with a space":          event("type", "Honeypot triggered", "spec.type"),
		"no subject":                 event("subject", nil, "spec.subject", "Required"),
		"a subject without a name":   event("subject.name", nil, "spec.subject.name", "Required"),
		"a subject of an empty name": event("subject.name", "", "spec.subject.name"),
		"a subject without a kind":   event("subject.kind", nil, "spec.subject.kind", "Required"),
		"no source":                  event("source", nil, "spec.source", "Required"),
		"Forensic without incident":  event("class", "Forensic", "spec.incident is required"),
		"a reserved type":            event("type", "IncidentCaptureCompleted", "spec.type", "Forensic"),
		"an incident named":          event("incident", fields{"uid": "u"}, "spec.incident", "Forensic"),
		"a trigger named":            event("trigger", fields{"name": "n", "uid": "u"}, "spec.trigger", "Forensic"),
		"a reserved name":            {object("SecurityEvent", "se-0123456789abcdef-completed", eventSpec()), []string{"metadata.name", "Forensic"}},
		"a url that is not S3's": event("evidence", fields{"url": "https://x/y", "sha256": hex, "versionId": "1", "size": int64(1), "mediaType": "m"},
			"spec.evidence.url"),
	}
}

func wrongResponses() map[string]mistake {
	response := func(actionType, member string, names ...string) mistake {
		return mistake{object("EventResponse", "wrong", responseSpec(actionType, member)), names}
	}
	return map[string]mistake{
		"podFreeze missing":          response("PodFreeze", "", "spec.action", "podFreeze is required"),
		"filesystemSnapshot missing": response("FilesystemSnapshot", "", "spec.action", "filesystemSnapshot is required"),
		"evidenceUpload missing":     response("EvidenceUpload", "", "spec.action", "evidenceUpload is required"),
		"podUnfreeze missing":        response("PodUnfreeze", "", "spec.action", "podUnfreeze is required"),
		"podFreeze beside":           response("PodUnfreeze", "podFreeze", "spec.action", "podFreeze is required for type PodFreeze, and forbidden"),
		"filesystemSnapshot beside":  response("PodFreeze", "filesystemSnapshot", "filesystemSnapshot is required for type FilesystemSnapshot, and forbidden"),
		"evidenceUpload beside":      response("PodFreeze", "evidenceUpload", "evidenceUpload is required for type EvidenceUpload, and forbidden"),
		"podUnfreeze beside":         response("PodFreeze", "podUnfreeze", "podUnfreeze is required for type PodUnfreeze, and forbidden"),
		"an unknown action":          response("PodDelete", "", "spec.action.type"),
		"incident name": {
			object("EventResponse", "wrong", with(responseSpec("PodFreeze", "podFreeze"), "incidentName", "x")), []string{"spec.incidentName"},
		},
		"attested kind":               {object("AttestationBundle", "wrong", with(bundleSpec(), "attestedFor.kind", "Pod")), []string{"spec.attestedFor.kind"}},
		"a record without its number": {object("AttestationBundle", "wrong", with(bundleSpec(), "attestedFor.kind", "Incident")), []string{"number is required for kind Incident"}},
		"the number of no record":     {object("AttestationBundle", "wrong", with(bundleSpec(), "number", int64(1))), []string{"and forbidden otherwise"}},
		"a countersignature of no mode": {
			object("AttestationBundle", "wrong", with(bundleSpec(), "countersigns", fields{"name": "ab-first", "mode": "other"})), []string{"spec.countersigns.mode"},
		},
		"a countersignature of nothing": {
			object("AttestationBundle", "wrong", with(bundleSpec(), "countersigns", fields{"mode": "fulcio-keyless"})), []string{"spec.countersigns.name"},
		},
		"a third record": {
			object("AttestationBundle", "wrong", with(with(bundleSpec(), "attestedFor.kind", "Incident"), "number", int64(3))), []string{"spec.number"},
		},
		"three acknowledgements": {
			object("Incident", "wrong", with(incidentSpec(), "requiredAcknowledgements", int64(3))), []string{"spec.requiredAcknowledgements"},
		},
		"an incident without a pod's uid": {object("Incident", "wrong", with(incidentSpec(), "pod.uid", nil)), []string{"spec.pod.uid", "Required"}},
	}
}

func wrongForensics() map[string]mistake {
	config := func(path string, value any, names ...string) mistake {
		return mistake{object("ForensicsConfig", "default", with(fields{}, path, value)), names}
	}
	return map[string]mistake{
		"a second ForensicsConfig":    {object("ForensicsConfig", "other", fields{}), []string{"metadata.name must be default"}},
		"no classes":                  config("trigger.classes", []any{}, "spec.trigger.classes"),
		"class of trigger":            config("trigger.classes", []any{"detection"}, "spec.trigger.classes[0]"),
		"event age of zero":           config("trigger.maxEventAge", "0s", "spec.trigger.maxEventAge", "must be positive"),
		"unfreezing in the past":      config("cleanup.autoUnfreezeAfter", "-1s", "spec.cleanup.autoUnfreezeAfter", "must not be negative"),
		"an account without a colon":  config("cleanup.acknowledgeAuthorizedSAs", []any{"responder"}, "spec.cleanup.acknowledgeAuthorizedSAs[0]"),
		"an account by its user name": config("cleanup.acknowledgeAuthorizedSAs", []any{"system:serviceaccount:a:b"}, "spec.cleanup.acknowledgeAuthorizedSAs[0]"),
		"no acknowledgements":         config("cleanup.requiredAcknowledgements", int64(0), "spec.cleanup.requiredAcknowledgements"),
		"lock mode":                   config("evidence.objectLock", "compliance", "spec.evidence.objectLock"),
		"kept for no day":             config("evidence.retainDays", int64(0), "spec.evidence.retainDays"),
		"capture of no time":          config("snapshot.maxDuration", "0s", "spec.snapshot.maxDuration", "must be positive"),
		"an empty type in the list":   config("trigger.whitelistedTypes", []any{""}, "spec.trigger.whitelistedTypes[0]"),
		"no bandwidth":                config("snapshot.maxBandwidth", "0", "spec.snapshot", "maxBandwidth must be positive"),
		"negative bandwidth":          config("snapshot.maxBandwidth", "-1Mi", "spec.snapshot", "maxBandwidth must be positive"),
		"an unknown redaction":        config("snapshot.redactEnvironment", "Some", "spec.snapshot.redactEnvironment", `"Some"`),
		"matching no names":           config("snapshot.redactEnvironment", "Matching", "spec.snapshot", "redactNames is required for redactEnvironment Matching"),
		"names beside all":            config("snapshot", fields{"redactEnvironment": "All", "redactNames": "X"}, "spec.snapshot", "redactNames is required for redactEnvironment Matching, and forbidden otherwise"),
		"names alone":                 config("snapshot.redactNames", "X", "spec.snapshot", "redactNames is required for redactEnvironment Matching, and forbidden otherwise"),
	}
}

// wrongSnapshots are orders and incidents: the same rules hold for what is copied from the configurations.
func wrongSnapshots() map[string]mistake {
	all := map[string]mistake{}
	for name, tt := range map[string]struct {
		path  string
		value any
		says  string
	}{
		"no bandwidth":         {"maxBandwidth", "0", "maxBandwidth must be positive"},
		"matching no names":    {"redactEnvironment", "Matching", "redactNames is required for redactEnvironment Matching"},
		"names alone":          {"redactNames", "X", "redactNames is required for redactEnvironment Matching, and forbidden otherwise"},
		"SSE-KMS without key":  {"destination.encryption", "SSEKMS", "kmsKeyID is required for encryption SSEKMS"},
		"a key alone":          {"destination.kmsKeyID", "key-1", "kmsKeyID is required for encryption SSEKMS, and forbidden otherwise"},
		"age without anybody":  {"destination.encryption", "Age", "ageRecipients are required for encryption Age"},
		"recipients alone":     {"destination.ageRecipients", []any{ageRecipient}, "ageRecipients are required for encryption Age, and forbidden otherwise"},
		"an unknown algorithm": {"destination.encryption", "PGP", "destination.encryption"},
	} {
		order := with(responseSpec("FilesystemSnapshot", "filesystemSnapshot"), "action.filesystemSnapshot."+tt.path, tt.value)
		all["an order: "+name] = mistake{object("EventResponse", "wrong", order), []string{"spec.action.filesystemSnapshot", tt.says}}
		all["an incident: "+name] = mistake{
			object("Incident", "wrong", with(incidentSpec(), "snapshot."+tt.path, tt.value)), []string{"spec.snapshot", tt.says},
		}
	}
	return all
}

func wrongEncryption() map[string]mistake {
	worm := func(change fields, names ...string) mistake {
		spec := wormSpec()
		for path, value := range change {
			spec = with(spec, path, value)
		}
		return mistake{object("WORMConfig", "default", spec), names}
	}
	return map[string]mistake{
		"an unknown encryption":   worm(fields{"encryption": "PGP"}, "spec.encryption", `"PGP"`),
		"SSE-KMS without a key":   worm(fields{"encryption": "SSEKMS"}, "kmsKeyID is required for encryption SSEKMS"),
		"a key without SSE-KMS":   worm(fields{"kmsKeyID": "key-1"}, "kmsKeyID is required for encryption SSEKMS, and forbidden otherwise"),
		"a key beside age":        worm(fields{"encryption": "Age", "ageRecipients": []any{ageRecipient}, "kmsKeyID": "key-1"}, "kmsKeyID is required for encryption SSEKMS, and forbidden otherwise"),
		"an empty key":            worm(fields{"encryption": "SSEKMS", "kmsKeyID": ""}, "spec.kmsKeyID"),
		"age without recipients":  worm(fields{"encryption": "Age"}, "ageRecipients are required for encryption Age"),
		"age with nobody":         worm(fields{"encryption": "Age", "ageRecipients": []any{}}, "spec.ageRecipients"),
		"recipients without age":  worm(fields{"ageRecipients": []any{ageRecipient}}, "ageRecipients are required for encryption Age, and forbidden otherwise"),
		"a recipient of ssh":      worm(fields{"encryption": "Age", "ageRecipients": []any{"ssh-ed25519 AAAA"}}, "spec.ageRecipients[0]"),
		"a secret key":            worm(fields{"encryption": "Age", "ageRecipients": []any{"AGE-SECRET-KEY-1"}}, "spec.ageRecipients[0]"),
		"a recipient named twice": worm(fields{"encryption": "Age", "ageRecipients": []any{ageRecipient, ageRecipient}}, "spec.ageRecipients[1]", "Duplicate"),
	}
}

func wrongPlatform() map[string]mistake {
	return map[string]mistake{
		"a second WORMConfig":     {object("WORMConfig", "other", wormSpec()), []string{"metadata.name must be default"}},
		"a second AttestorConfig": {object("AttestorConfig", "other", attestorSpec()), []string{"metadata.name must be default"}},
		"a second TTLConfig":      {object("TTLConfig", "other", fields{}), []string{"metadata.name must be default"}},
		"http": {
			object("WORMConfig", "default", with(wormSpec(), "endpoint", "http://minio:9000")),
			[]string{"endpoint must be https:// unless insecureAllowHTTP is true"},
		},
		"http that is not allowed": {
			object("WORMConfig", "default", with(with(wormSpec(), "endpoint", "http://minio:9000"), "insecureAllowHTTP", false)),
			[]string{"endpoint must be https:// unless insecureAllowHTTP is true"},
		},
		"an endpoint with a path": {object("WORMConfig", "default", with(wormSpec(), "endpoint", "https://minio/x")), []string{"spec.endpoint"}},
		"no signing mode":         {object("AttestorConfig", "default", with(attestorSpec(), "signingModes", []any{})), []string{"spec.signingModes"}},
		"a signing mode twice": {
			object("AttestorConfig", "default", with(attestorSpec(), "signingModes", []any{"openbao-transit", "openbao-transit"})),
			[]string{"spec.signingModes[1]", "Duplicate value"},
		},
		"three signing modes": {
			object("AttestorConfig", "default", with(attestorSpec(), "signingModes", []any{"openbao-transit", "fulcio-keyless", "other"})),
			[]string{"spec.signingModes", "must have at most 2 items"},
		},
		"both signing modes, fulcio missing": {
			object("AttestorConfig", "default", with(attestorSpec(), "signingModes", []any{"openbao-transit", "fulcio-keyless"})),
			[]string{"fulcio is required for the signing mode fulcio-keyless"},
		},
		"transit missing": {
			object("AttestorConfig", "default", with(attestorSpec(), "transit", nil)),
			[]string{"transit is required for the signing mode openbao-transit"},
		},
		"negative retention": {object("TTLConfig", "default", fields{"retainAfterRelease": "-1s"}), []string{"spec.retainAfterRelease", "must not be negative"}},
	}
}
