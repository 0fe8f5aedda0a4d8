package config

import (
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
)

// Ready says whether incidents can be handled with this configuration and this store, nil for none. It names every
// reason against at once, and what is likely not meant although it can be used.
func Ready(spec v1alpha1.ForensicsConfigSpec, store *v1alpha1.WORMConfig) metav1.Condition {
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch problems := append(validate(spec), unencryptable(store)...); {
	case len(problems) > 0:
		ready.Reason, ready.Message = v1alpha1.ReasonConfigInvalid, strings.Join(problems, "; ")
	case store == nil:
		ready.Reason = v1alpha1.ReasonStoreUnconfigured
		ready.Message = fmt.Sprintf("there is no WORMConfig %s/%s: pods are contained, but their evidence cannot be stored; create one with endpoint and bucket",
			v1alpha1.NamespaceSystem, v1alpha1.SingletonName)
	default:
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonConfigValid
		ready.Message = strings.Join(append([]string{"the configuration can be used"}, advice(spec)...), "; ")
	}
	return ready
}

// validate finds what the schema cannot: rules over several fields.
func validate(spec v1alpha1.ForensicsConfigSpec) []string {
	var problems []string
	cleanup := spec.Cleanup
	required := int(ptr.Deref(cleanup.RequiredAcknowledgements, 1))
	if accounts := len(cleanup.AcknowledgeAuthorizedSAs); accounts < required && neverUnfrozen(cleanup) {
		problems = append(problems, fmt.Sprintf(
			"spec.cleanup: %d acknowledgements are required, acknowledgeAuthorizedSAs names %d accounts and autoUnfreezeAfter is 0s: no pod would ever be released",
			required, accounts))
	}
	for i, namespace := range spec.Trigger.NamespaceAllowlist {
		for _, protected := range spec.Trigger.ProtectedNamespaces {
			if namespace == protected {
				problems = append(problems, fmt.Sprintf("spec.trigger.namespaceAllowlist[%d]: %s is in protectedNamespaces as well", i, namespace))
			}
		}
	}
	return append(problems, unreadableNames(spec.Snapshot)...)
}

// unreadableNames is what is wrong with spec.snapshot.redactNames.
func unreadableNames(spec v1alpha1.SnapshotConfig) []string {
	if _, err := regexp.Compile(spec.RedactNames); err != nil {
		return []string{fmt.Sprintf(
			"spec.snapshot.redactNames is no regular expression (RE2): %v; until it is one, incidents redact every value of an environment variable", err)}
	}
	return nil
}

// unencryptable is what is wrong with the age recipients of the store.
func unencryptable(store *v1alpha1.WORMConfig) []string {
	if store == nil || store.Spec.Encryption != v1alpha1.EncryptionAge {
		return nil
	}
	name := fmt.Sprintf("WORMConfig %s/%s spec.ageRecipients", store.Namespace, store.Name)
	recipients := store.Spec.AgeRecipients
	var problems, right []string
	for i, recipient := range recipients {
		if err := destination.CheckRecipient(recipient); err != nil {
			problems = append(problems, fmt.Sprintf("%s[%d] is no age recipient: %v", name, i, err))
			continue
		}
		right = append(right, recipient)
	}
	if err := destination.CheckRecipients(right); err != nil {
		return append(problems, fmt.Sprintf(
			"%s: %v; pods are contained, and their captures fail: nothing is stored without the encryption that was asked for", name, err))
	}
	if len(problems) > 0 {
		problems = append(problems, fmt.Sprintf("incidents encrypt to the other %d", len(right)))
	}
	return problems
}

func neverUnfrozen(cleanup v1alpha1.CleanupConfig) bool {
	return cleanup.AutoUnfreezeAfter != nil && cleanup.AutoUnfreezeAfter.Duration == 0
}

func advice(spec v1alpha1.ForensicsConfigSpec) []string {
	var lines []string
	if len(spec.WhitelistedTypes)+len(spec.Trigger.WhitelistedTypes) == 0 {
		lines = append(lines, "spec.trigger.whitelistedTypes is empty: it matches nothing")
	}
	if spec.DryRun {
		lines = append(lines, "spec.dryRun is set: incidents are recorded, pods are not touched")
	}
	if required, accounts := int(ptr.Deref(spec.Cleanup.RequiredAcknowledgements, 1)), len(spec.Cleanup.AcknowledgeAuthorizedSAs); accounts < required {
		lines = append(lines, fmt.Sprintf("spec.cleanup.acknowledgeAuthorizedSAs names %d accounts where %d must acknowledge: only autoUnfreezeAfter releases",
			accounts, required))
	}
	if spec.Evidence.ObjectLock == v1alpha1.LockGovernance {
		lines = append(lines, "spec.evidence.objectLock is GOVERNANCE: privileged accounts of the store can delete evidence")
	}
	return lines
}
