package destination

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Trouble turns an error of the store into the reason and the message of a condition. The message says what an operator
// must do, where one must do something, and ends in the error.
func Trouble(err error) (reason, message string) {
	configured := "WORMConfig " + v1alpha1.NamespaceSystem + "/" + v1alpha1.SingletonName
	var todo string
	switch {
	case errors.Is(err, worm.ErrFull):
		reason, todo = v1alpha1.ReasonStoreFull, "make room in the store or raise its quota"
	case errors.Is(err, worm.ErrDenied):
		reason, todo = v1alpha1.ReasonStoreDenied, "correct this workload's credential, or what the store's policy allows it"
	case errors.Is(err, worm.ErrNoBucket):
		reason = v1alpha1.ReasonStoreNoBucket
		todo = "create the bucket, with Object Lock; the name stands in ForensicsConfig spec.evidence.bucket, else in " + configured + " spec.bucket"
	case errors.Is(err, worm.ErrNotLocked):
		reason, todo = v1alpha1.ReasonStoreNotLocked, "give the bucket Object Lock, or name one that has it"
	case errors.Is(err, ErrNotAsStored):
		reason, todo = v1alpha1.ReasonDigestMismatch, "look who else writes to the store"
	case apierrors.IsNotFound(err):
		reason, todo = v1alpha1.ReasonStoreUnconfigured, "create "+configured
	default:
		return v1alpha1.ReasonStoreUnreachable, err.Error()
	}
	return reason, fmt.Sprintf("%s; it is tried again until then: %s", todo, err.Error())
}
