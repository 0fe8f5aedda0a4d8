package attestor

import (
	"crypto/x509"
	"errors"
	"fmt"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

// blame is the reason for a failure of the notary, and the failure with what a person can change about it. What only
// time can change has the reason away.
func blame(err error, away string) (string, error) {
	switch {
	case errors.Is(err, attest.ErrUnknownKey):
		return v1alpha1.ReasonKeyNotTrusted, fmt.Errorf(
			"%w: if it is yours, add it to the trusted-root ConfigMap, a key as <name>.pub, an identity as <name>.identity", err)
	case errors.Is(err, attest.ErrToken):
		return v1alpha1.ReasonConfigInvalid, fmt.Errorf("%w: see what the attestor's Deployment mounts there", err)
	case errors.Is(err, attest.ErrRefused), errors.Is(err, attest.ErrClock), errors.Is(err, attest.ErrShortLived):
		return v1alpha1.ReasonConfigInvalid, err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return v1alpha1.ReasonConfigInvalid, fmt.Errorf("%w: put the CA of that server's certificate into spec.caBundle", err)
	}
	return away, err
}

// invalidBundle is the failure of a bundle that does not verify. It verified when it was logged: either it was changed
// since, or what is trusted was.
func invalidBundle(err error) error {
	return failure(v1alpha1.ReasonBundleInvalid, fmt.Errorf("%w: if what is trusted was changed since the statement was logged, put the "+
		"former log, authority, key or identity back into the trusted-root ConfigMap, beside the new one", err))
}

func notaryFailure(err error, away string) error {
	reason, err := blame(err, away)
	return failure(reason, err)
}
