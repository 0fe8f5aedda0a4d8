package verify

import (
	"bytes"
	"context"
	"fmt"
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

// vouched checks the bundles beside a statement's first one, each of which has to be over the same bytes, and says whether
// any of them, or the first, is by somebody whom the caller named. The report says why not.
func (v *verification) vouched(ctx context.Context, l *link) bool {
	asked := l.asked
	var unread error
	for _, beside := range l.listed.Countersignatures {
		by, err := v.proveBeside(ctx, l, beside)
		asked = asked || by
		if isUnread(err) {
			unread = err
		}
	}
	switch {
	case asked:
		return true
	case unread != nil:
		v.partial = true
		v.report.add(l.name, CheckSignature, &unreadError{fmt.Errorf("the one signature that was asked about could not be read: %w", unread)}, "")
	default:
		v.report.add(l.name, CheckSignature, notAsked(l), "")
	}
	return false
}

// proveBeside checks one bundle beside the first, and is true where somebody whom the caller named signed it.
func (v *verification) proveBeside(ctx context.Context, l *link, beside evidence.Countersignature) (bool, error) {
	name := besideLink(l, beside.Mode)
	data, err := v.readBundle(ctx, name, beside.StoredVersion, l.listed.Kind)
	if beside.SHA256 != "" {
		v.checkKept(ctx, name, beside.StoredVersion, v.record.custody.LockMode)
	}
	if err != nil {
		return false, err
	}
	found, err := v.checkSignature(data)
	if err != nil {
		v.report.add(name, CheckSignature, err, "")
		return false, nil
	}
	found.name = name
	v.addSignature(found)
	return v.report.add(name, CheckStatement, besideError(l, beside, found), "the same bytes") && found.asked, nil
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
	if keyless := found.proof.Issuer != ""; keyless != (beside.Mode == evidence.ModeKeyless) {
		return refuse("it is signed by %s, not in mode %s", found.proof.Signer, beside.Mode)
	}
	return nil
}
