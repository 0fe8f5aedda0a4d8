package v1alpha1

// Condition types. Every condition carries a reason from this file and a message that tells an operator what to do.
const (
	// ConditionMatched on an event is True when it opened an incident; False carries the reason why not.
	ConditionMatched = "Matched"
	// ConditionAttestationOverdue on an event is True when it waits for its seal longer than it should.
	ConditionAttestationOverdue = "AttestationOverdue"

	// ConditionComplete on a response is True when the step is done, False when it ended otherwise.
	ConditionComplete = "Complete"

	// ConditionClusterState on a response is False when the manifest was made without the cluster state.
	ConditionClusterState = "ClusterState"

	// ConditionContained on an incident is True while the pod is cut off; it is a state, not a milestone.
	ConditionContained = "Contained"
	// ConditionCaptured is True once every artifact is stored.
	ConditionCaptured = "Captured"
	// ConditionUploaded is True once the manifest is stored and read back.
	ConditionUploaded = "Uploaded"
	// ConditionAttested is True once every response so far is sealed.
	ConditionAttested = "Attested"
	// ConditionAcknowledged is True once enough authorised accounts acknowledged.
	ConditionAcknowledged = "Acknowledged"
	// ConditionReleased is True once the pod is let go.
	ConditionReleased = "Released"
	// ConditionFailed is True once a step before the manifest failed for good.
	ConditionFailed = "Failed"

	// ConditionReady on a configuration is True when it can be used as it stands.
	ConditionReady = "Ready"

	// ConditionReadBack on a bundle is True once every object named was read back with the asserted digest.
	ConditionReadBack = "ReadBack"
	// ConditionSigned on a bundle is True once the envelope is persisted.
	ConditionSigned = "Signed"
	// ConditionLogged on a bundle is True once the log's entry and a timestamp are in the bundle.
	ConditionLogged = "Logged"
	// ConditionSealed on a bundle is True once the bundle is locked in the write-once store.
	ConditionSealed = "Sealed"
)

// Condition reasons that several writers share. Reasons of a mismatch stand in controller/internal/match.
const (
	ReasonIncidentOpened    = "IncidentOpened"
	ReasonWaiting           = "Waiting"
	ReasonRunning           = "Running"
	ReasonSucceeded         = "Succeeded"
	ReasonPartial           = "Partial"
	ReasonFailed            = "Failed"
	ReasonDeadlineExceeded  = "DeadlineExceeded"
	ReasonOrderRefused      = "OrderRefused"
	ReasonReleased          = "Released"
	ReasonDeadlineReached   = "DeadlineReached"
	ReasonCaptureFailed     = "CaptureFailed"
	ReasonStampInvalid      = "StampInvalid"
	ReasonPolicyOnly        = "PolicyOnly"
	ReasonPodGone           = "PodGone"
	ReasonNodeGone          = "NodeGone"
	ReasonDryRun            = "DryRun"
	ReasonOverdue           = "Overdue"
	ReasonSealed            = "Sealed"
	ReasonConfigValid       = "ConfigValid"
	ReasonConfigInvalid     = "ConfigInvalid"
	ReasonStoreUnconfigured = "StoreUnconfigured"
	ReasonStoreUnreachable  = "StoreUnreachable"
	ReasonDigestMismatch    = "DigestMismatch"
	ReasonSignerUnavailable = "SignerUnavailable"
	ReasonLogUnavailable    = "LogUnavailable"
	// ReasonStoreFull: make room in the write-once store, or raise its quota.
	ReasonStoreFull = "StoreFull"
	// ReasonStoreDenied: the store refuses the workload's credential; correct it, or what its policy allows.
	ReasonStoreDenied = "StoreDenied"
	// ReasonStoreNoBucket: the bucket does not exist; make it, with Object Lock, or correct its name.
	ReasonStoreNoBucket = "StoreNoBucket"
	// ReasonStoreNotLocked: the bucket has no Object Lock; name one that has.
	ReasonStoreNotLocked = "StoreNotLocked"
	// ReasonNothingStored on ReadBack: the attested object names nothing in the write-once store.
	ReasonNothingStored = "NothingStored"
	// ReasonKeyNotTrusted on Signed, Logged and Ready: add the signing key's public part, the identity or the
	// certificate authority to the trusted-root ConfigMap.
	ReasonKeyNotTrusted = "KeyNotTrusted"
	// ReasonBundleInvalid on Sealed: the bundle does not verify against the trusted root, so it is not stored. On Signed of a
	// custody record: a statement that it would list does not name the one before it, or what is staged is no record.
	ReasonBundleInvalid = "BundleInvalid"
	// ReasonDigestOpen on Signed, which is True: the store could not be asked whether a bundle of the statement lies there
	// already, or something else lies there, as the message says. Until the bundle is stored its digest may change, and the
	// statement after it waits.
	ReasonDigestOpen = "DigestOpen"
	// ReasonSubjectGone on Signed: the object to attest, or one that a custody record would list, was deleted before it was
	// signed; or a Forensic event or response is not the one that its incident names.
	ReasonSubjectGone = "SubjectGone"
	// ReasonModeWithdrawn on Signed and Logged of a bundle that countersigns: AttestorConfig neither lists its mode nor has
	// the servers for it any more. The statement is sealed without it, and says so.
	ReasonModeWithdrawn = "ModeWithdrawn"
)
