package verify

// Questions that are asked of links. docs/verify.md explains each.
const (
	// CheckDigest: the bytes are those on record.
	CheckDigest = "digest"
	// CheckLock: the store keeps this version, locked as on record.
	CheckLock = "lock"
	// CheckForm: canonical JSON of the expected shape, under the key that its digest gives.
	CheckForm = "form"
	// CheckSignature: signed by whom the caller trusts, logged, and time-stamped while the signer's certificate was valid.
	CheckSignature = "signature"
	// CheckStatement: the statement is about what it is listed for, and its subjects are the digests of that.
	CheckStatement = "statement"
	// CheckPrevious: it names the payload of the statement before it.
	CheckPrevious = "previous"
	// CheckReadBack: the store returned to somebody else what the node asserts.
	CheckReadBack = "read-back"
	// CheckStream: the segments, joined, are the stream that was signed.
	CheckStream = "stream"
	// CheckMerkle: the lines of the index have the root that was signed.
	CheckMerkle = "merkle"
	// CheckListed: record and statements name the same objects.
	CheckListed = "listed"
	// CheckForeign: an object that lies among custody records, and is none. It is named, and decides nothing.
	CheckForeign = "foreign"
)

// Links that are not named after an object.
const (
	LinkChain    = "chain"
	LinkManifest = "manifest"
	LinkFacts    = "facts"
)

// Questions about LinkChain.
const (
	// CheckOrder: every statement follows what it depends on, and none is there twice.
	CheckOrder = "order"
	// CheckComplete: no step is missing.
	CheckComplete = "complete"
	// CheckRecords: there is one proven custody record of each number, and the later one keeps what the earlier one lists.
	CheckRecords = "records"
)

// Questions about LinkFacts: what several statements say together.
const (
	CheckSameIncident     = "same-incident"
	CheckSamePod          = "same-pod"
	CheckContainedFirst   = "contained-before-captured"
	CheckFrozenThroughout = "captured-while-frozen"
)

// Questions about LinkManifest, beside its form, digest and lock.
const (
	// CheckAnnounced: the upload and the event that announces it name these bytes.
	CheckAnnounced = "announced"
	// CheckAgrees: it says what the signed responses say.
	CheckAgrees = "agrees"
)
