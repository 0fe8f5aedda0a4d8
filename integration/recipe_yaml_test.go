//go:build integration

package integration

// recipeConfig is the recipe's ForensicsConfig with its indentation repaired.
const recipeConfig = `apiVersion: security.ugallu.io/v1alpha1
kind: ForensicsConfig
metadata: { name: default }
spec:
  trigger:
    classes: [Detection, Anomaly]
    minSeverities: [high, critical]
    requireAttested: true
    namespaceAllowlist: []
  whitelistedTypes:
    - PrivilegedPodChange
    - HostPathMount
    - ExecIntoPod
    - HoneypotTriggered
    - CrossTenantSecretAccess
    - CrossTenantExec
  cleanup:
    autoUnfreezeAfter: 4h
  evidence:
    bucket: ugallu-forensics
    objectLock: COMPLIANCE
    retainDays: 365
`

// recipeEvent is the recipe's synthetic event with its indentation repaired.
const recipeEvent = `apiVersion: security.ugallu.io/v1alpha1
kind: SecurityEvent
metadata:
  generateName: synth-
  namespace: ugallu-system
spec:
  type: HoneypotTriggered
  class: Detection
  severity: critical
  source:
    operator: ugallu-forensics-recipe
    cluster: sandbox
  subject:
    kind: Pod
    namespace: forensics-sandbox
    name: forensics-victim
  description: synthetic detection for the recipe
`
