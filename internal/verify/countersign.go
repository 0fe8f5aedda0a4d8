package verify

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// bundleSuffix of the keys of bundles.
const bundleSuffix = ".sigstore.json"

// modes in which a statement can be countersigned.
var modes = []string{evidence.ModeKeyless, evidence.ModeTransit}

// countersigned is the key of the bundle that another one lies beside, and the mode; both are empty for a bundle that lies
// beside none.
func countersigned(key string) (first, mode string) {
	for _, mode := range modes {
		if before, ok := strings.CutSuffix(key, "."+mode+bundleSuffix); ok {
			return before + bundleSuffix, mode
		}
	}
	return "", ""
}

// signers are a sort of those who sign.
type signers string

const (
	byKey      signers = "keys"
	byIdentity signers = "identities"
)

// signers are the sort that a bundle is signed by.
func (l *link) signers() signers {
	if l.proof.Issuer != "" {
		return byIdentity
	}
	return byKey
}

// signersIn is the sort that signs in a mode.
func signersIn(mode string) signers {
	if mode == evidence.ModeKeyless {
		return byIdentity
	}
	return byKey
}

// named are the sorts that the caller named somebody of.
func (v *verification) named() []signers {
	var found []signers
	keys, identities := v.prover.Sorts()
	if keys {
		found = append(found, byKey)
	}
	if identities {
		found = append(found, byIdentity)
	}
	return found
}

// vouched checks the bundles beside a statement's first one, each of which has to be over the same bytes, and says whether
// there is one by somebody of each sort that the caller named. The report says why not.
func (v *verification) vouched(ctx context.Context, l *link) bool {
	proven, unread := []*link{l}, map[signers]error{}
	for _, beside := range l.listed.Countersignatures {
		found, err := v.proveBeside(ctx, l, beside)
		if isUnread(err) {
			unread[signersIn(beside.Mode)] = err
		}
		if found != nil {
			proven = append(proven, found)
		}
	}
	err := v.lacks(proven, unread)
	v.partial = v.partial || isUnread(err)
	return err == nil || v.report.add(l.name, CheckSignature, err, "")
}

// lacks says what bundles over one statement, the first one before the others, lack: each sort that the caller named has to
// be among those who signed, so that a thief of one mode proves nothing to whoever asks about both.
func (v *verification) lacks(proven []*link, unread map[signers]error) error {
	named := v.named()
	for _, sort := range named {
		signs := func(l *link) bool { return l.asked && l.signers() == sort }
		switch {
		case slices.ContainsFunc(proven, signs):
		case unread[sort] != nil:
			return &unreadError{fmt.Errorf("the signature by one of the %s asked about could not be read: %w", sort, unread[sort])}
		case len(named) == 1:
			return notAsked(proven[0])
		default:
			return refuse("%s, and by none of the %s asked about: a statement needs a signature of each sort that is named; an incident "+
				"that was sealed in one mode, or whose modes were changed in its middle, is verified with that sort alone", signed(proven[0]), sort)
		}
	}
	return nil
}

// proveBeside checks one bundle beside the first, and returns it where it is as it should be.
func (v *verification) proveBeside(ctx context.Context, l *link, beside evidence.Countersignature) (*link, error) {
	name := besideLink(l, beside.Mode)
	data, err := v.readBundle(ctx, name, beside.StoredVersion, l.listed.Kind)
	v.checkKept(ctx, name, beside.StoredVersion, v.lockMode())
	if err != nil {
		return nil, err
	}
	found, err := v.checkSignature(data)
	if err != nil {
		v.report.add(name, CheckSignature, err, "")
		return nil, err
	}
	found.name = name
	v.addSignature(found)
	err = besideError(l, beside, found)
	if !v.report.add(name, CheckStatement, err, "the same bytes") {
		return nil, err
	}
	return found, nil
}

func besideLink(l *link, mode string) string { return l.name + " in " + mode }

// besideError compares a bundle beside the first with what it has to be.
func besideError(l *link, beside evidence.Countersignature, found *link) error {
	if first, mode := countersigned(beside.Key); first != l.listed.Bundle.Key || mode != beside.Mode {
		return refuse("it lies at %s, which is not the place of a signature in mode %q beside %s", beside.Key, beside.Mode, l.listed.Bundle.Key)
	}
	if !bytes.Equal(found.proof.Payload, l.proof.Payload) {
		return refuse("its payload has sha256 %s, it countersigns %s", found.digest, l.digest)
	}
	if found.signers() != signersIn(beside.Mode) {
		return refuse("it is signed by %s, not in mode %s", found.proof.Signer, beside.Mode)
	}
	if found.signers() == l.signers() {
		return refuse("it is signed by %s, in the same mode as the bundle that it countersigns", found.proof.Signer)
	}
	return nil
}
