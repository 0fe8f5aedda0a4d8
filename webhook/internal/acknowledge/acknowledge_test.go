package acknowledge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
	"ugallu.io/forensics/webhook/internal/acknowledge"
)

const (
	controller  = "system:serviceaccount:ugallu-system:ugallu-forensics"
	responder   = "system:serviceaccount:ugallu-system:ugallu-responder"
	second      = "system:serviceaccount:soc:lead"
	stranger    = "system:serviceaccount:default:default"
	incidentUID = "incident-1"
	triggerUID  = "trigger-1"
)

var digest = strings.Repeat("ab", 32)

func key() []byte { return bytes.Repeat([]byte{7}, 32) }

type change func(*v1alpha1.SecurityEvent)

func event(changes ...change) *v1alpha1.SecurityEvent {
	e := &v1alpha1.SecurityEvent{
		ObjectMeta: metav1.ObjectMeta{Name: "se-1-completed", UID: "event-1", Annotations: map[string]string{"other": "x"}},
		Spec: v1alpha1.SecurityEventSpec{
			Class: v1alpha1.ClassForensic, Type: v1alpha1.EventCaptureCompleted, Severity: v1alpha1.SeverityInfo,
			Incident: &v1alpha1.IncidentRef{UID: incidentUID}, Trigger: &v1alpha1.Ref{Name: "t", UID: triggerUID},
			Evidence: &v1alpha1.EvidenceRef{URL: "s3://b/k", SHA256: digest},
		},
	}
	for _, c := range changes {
		c(e)
	}
	return e
}

func value(v string) change {
	return func(e *v1alpha1.SecurityEvent) { e.Annotations[v1alpha1.AnnotationAcknowledged] = v }
}

func byHand(v string) change {
	return func(e *v1alpha1.SecurityEvent) { e.Annotations[v1alpha1.AnnotationAcknowledgements] = v }
}

func detection(e *v1alpha1.SecurityEvent) {
	e.Spec.Class, e.Spec.Type, e.Spec.Incident = v1alpha1.ClassDetection, "HoneypotTriggered", nil
}

func failed(e *v1alpha1.SecurityEvent) {
	e.Spec.Type, e.Spec.Evidence = v1alpha1.EventCaptureFailed, nil
}

func ofOtherIncident(e *v1alpha1.SecurityEvent) { e.Spec.Incident.UID = "incident-2" }
func withoutTrigger(e *v1alpha1.SecurityEvent)  { e.Spec.Trigger = nil }

func stamped(t *testing.T, users ...string) change {
	t.Helper()
	return func(e *v1alpha1.SecurityEvent) {
		var stamps []v1alpha1.Acknowledgement
		for _, user := range users {
			ack, err := stamp.Sign(key(), v1alpha1.Acknowledgement{
				Username: user, EventUID: string(e.UID), ManifestSHA256: digest, At: metav1.NewMicroTime(time.Unix(1, 0)),
			})
			if err != nil {
				t.Fatal(err)
			}
			stamps = append(stamps, ack)
		}
		byHand(string(marshal(t, stamps)))(e)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func request(t *testing.T, user string, before, after *v1alpha1.SecurityEvent) admission.Request {
	t.Helper()
	req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, UserInfo: authenticationv1.UserInfo{Username: user},
		Object: runtime.RawExtension{Raw: marshal(t, after)},
	}}
	if before != nil {
		req.Operation, req.OldObject = admissionv1.Update, runtime.RawExtension{Raw: marshal(t, before)}
	}
	return req
}

// cluster is what the stamper reads; nil accounts is the default, nil config is none at all.
type cluster struct {
	noConfig bool
	accounts []string
	required int32
}

func (c cluster) reader(t *testing.T) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{&v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IncidentName(triggerUID), UID: types.UID(incidentUID)},
		Spec:       v1alpha1.IncidentSpec{RequiredAcknowledgements: max(1, c.required)},
	}}
	if !c.noConfig {
		objects = append(objects, &v1alpha1.ForensicsConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SingletonName}})
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		// The fake store drops empty lists, which a real one keeps.
		Get: func(ctx context.Context, stored client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			err := stored.Get(ctx, key, object, options...)
			if config, is := object.(*v1alpha1.ForensicsConfig); is {
				config.Spec.Cleanup.AcknowledgeAuthorizedSAs = c.accounts
			}
			return err
		},
	}).Build()
}

func stamper(t *testing.T, c cluster) *acknowledge.Stamper {
	t.Helper()
	now := time.Date(2026, 11, 24, 1, 2, 3, 456789123, time.UTC)
	return acknowledge.NewStamper(c.reader(t), keys, clocktesting.NewFakePassiveClock(now))
}

func TestStamperRefuses(t *testing.T) {
	tests := map[string]struct {
		cluster       cluster
		user          string
		before, after *v1alpha1.SecurityEvent
		want          []string // parts of the refusal
	}{
		"TRUE":          {user: responder, before: event(), after: event(value("TRUE")), want: []string{`"TRUE"`, `exactly "true"`}},
		"True":          {user: responder, before: event(), after: event(value("True")), want: []string{`exactly "true"`}},
		"leading space": {user: responder, before: event(), after: event(value(" true")), want: []string{`" true"`, `exactly "true"`}},
		"one":           {user: responder, before: event(), after: event(value("1")), want: []string{`exactly "true"`}},
		"yes":           {user: responder, before: event(), after: event(value("yes")), want: []string{`exactly "true"`}},
		"false":         {user: responder, before: event(), after: event(value("false")), want: []string{`exactly "true"`}},
		"empty":         {user: responder, before: event(), after: event(value("")), want: []string{`exactly "true"`}},

		"created acknowledged":     {user: responder, after: event(value("true")), want: []string{"when it is created"}},
		"created by controller":    {user: controller, after: event(value("true")), want: []string{"when it is created"}},
		"created TRUE":             {user: responder, after: event(value("TRUE")), want: []string{`exactly "true"`}},
		"created with a stamp":     {user: responder, after: event(stamped(t, responder)), want: []string{"only the admission webhook"}},
		"stamp by hand":            {user: responder, before: event(), after: event(byHand("[]")), want: []string{"only the admission webhook"}},
		"stamp by controller":      {user: controller, before: event(), after: event(byHand("[]")), want: []string{"only the admission webhook"}},
		"stamp with the value":     {user: responder, before: event(), after: event(value("true"), stamped(t, responder)), want: []string{"only the admission webhook"}},
		"stamp altered":            {user: responder, before: event(value("true"), stamped(t, responder)), after: event(value("true"), stamped(t, second)), want: []string{"only the admission webhook"}},
		"stamp removed":            {user: responder, before: event(stamped(t, responder)), after: event(), want: []string{"only the admission webhook"}},
		"acknowledgement removed":  {user: responder, before: event(value("true"), stamped(t, responder)), after: event(stamped(t, responder)), want: []string{"final"}},
		"acknowledgement altered":  {user: responder, before: event(value("true"), stamped(t, responder)), after: event(value("false"), stamped(t, responder)), want: []string{"final"}},
		"on a detection":           {user: responder, before: event(detection), after: event(detection, value("true")), want: []string{"HoneypotTriggered", v1alpha1.EventCaptureCompleted}},
		"a stranger":               {user: stranger, before: event(), after: event(value("true")), want: []string{stranger, "ugallu-system:ugallu-responder", "acknowledgeAuthorizedSAs"}},
		"the controller":           {user: controller, before: event(), after: event(value("true")), want: []string{"ugallu-system:ugallu-responder"}},
		"a user of that name":      {user: "ugallu-system:ugallu-responder", before: event(), after: event(value("true")), want: []string{"names who may"}},
		"the default where others": {cluster: cluster{accounts: []string{"soc:lead"}}, user: responder, before: event(), after: event(value("true")), want: []string{"soc:lead"}},
		"anyone of an empty list":  {cluster: cluster{accounts: []string{}}, user: responder, before: event(), after: event(value("true")), want: []string{"nobody"}},
		"without a configuration":  {cluster: cluster{noConfig: true}, user: responder, before: event(), after: event(value("true")), want: []string{"no ForensicsConfig"}},
		"of a vanished incident":   {user: responder, before: event(ofOtherIncident), after: event(ofOtherIncident, value("true")), want: []string{"nothing is left to release"}},
		"of no trigger":            {user: responder, before: event(withoutTrigger), after: event(withoutTrigger, value("true")), want: []string{"spec.trigger"}},
		"the same account twice": {
			cluster: cluster{accounts: []string{"ugallu-system:ugallu-responder", "soc:lead"}, required: 2}, user: responder,
			before: event(stamped(t, responder)), after: event(value("true"), stamped(t, responder)), want: []string{"already", "2 different accounts"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := stamper(t, tt.cluster).Handle(t.Context(), request(t, tt.user, tt.before, tt.after))
			refused(t, got, tt.want...)
		})
	}
}

func refused(t *testing.T, got admission.Response, want ...string) {
	t.Helper()
	if got.Allowed || got.Result.Code != http.StatusForbidden {
		t.Fatalf("allowed %t, %v", got.Allowed, got.Result)
	}
	for _, part := range want {
		if !strings.Contains(got.Result.Message, part) {
			t.Errorf("%q does not say %q", got.Result.Message, part)
		}
	}
}

func TestStamperLeavesOtherChangesAlone(t *testing.T) {
	other := func(e *v1alpha1.SecurityEvent) { e.Labels = map[string]string{"a": "b"} }
	none := func(e *v1alpha1.SecurityEvent) { e.Annotations = nil }
	tests := map[string]struct{ before, after *v1alpha1.SecurityEvent }{
		"a new event":               {after: event(detection, none)},
		"a new Forensic event":      {after: event(none)},
		"a label":                   {before: event(), after: event(other)},
		"a label, when pending":     {before: event(stamped(t, responder)), after: event(stamped(t, responder), other)},
		"a label, when complete":    {before: event(value("true"), stamped(t, responder)), after: event(value("true"), stamped(t, responder), other)},
		"annotations removed":       {before: event(), after: event(none)},
		"a label without a cluster": {before: event(), after: event(other)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := stamper(t, cluster{noConfig: true}).Handle(t.Context(), request(t, stranger, tt.before, tt.after))
			if !got.Allowed || len(got.Patches) > 0 {
				t.Fatalf("allowed %t, patches %v, %v", got.Allowed, got.Patches, got.Result)
			}
		})
	}
}

// apply sends the request through the stamper and then the checker, and returns what would be stored.
func apply(t *testing.T, c cluster, user string, before, after *v1alpha1.SecurityEvent) *v1alpha1.SecurityEvent {
	t.Helper()
	req := request(t, user, before, after)
	got := stamper(t, c).Handle(t.Context(), req)
	if !got.Allowed {
		t.Fatalf("refused: %s", got.Result.Message)
	}
	patch, err := jsonpatch.DecodePatch(marshal(t, got.Patches))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := patch.Apply(req.Object.Raw)
	if err != nil {
		t.Fatal(err)
	}
	var stored v1alpha1.SecurityEvent
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	checked := acknowledge.NewChecker(keys, controller).Handle(t.Context(), request(t, user, before, &stored))
	if !checked.Allowed {
		t.Fatalf("checker refuses what the stamper made: %s", checked.Result.Message)
	}
	return &stored
}

func stampsOf(t *testing.T, e *v1alpha1.SecurityEvent) []v1alpha1.Acknowledgement {
	t.Helper()
	var stamps []v1alpha1.Acknowledgement
	if err := json.Unmarshal([]byte(e.Annotations[v1alpha1.AnnotationAcknowledgements]), &stamps); err != nil {
		t.Fatal(err)
	}
	return stamps
}

func TestStamperStampsWhoWhenAndWhat(t *testing.T) {
	tests := map[string]struct {
		change   change
		manifest string
	}{
		"a completed capture": {change: func(*v1alpha1.SecurityEvent) {}, manifest: digest},
		"a failed capture":    {change: failed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stored := apply(t, cluster{}, responder, event(tt.change), event(tt.change, value("true")))
			if stored.Annotations[v1alpha1.AnnotationAcknowledged] != "true" || stored.Annotations["other"] != "x" {
				t.Errorf("annotations %v", stored.Annotations)
			}
			stamps := stampsOf(t, stored)
			if len(stamps) != 1 || !stamp.Valid(key(), stamps[0]) {
				t.Fatalf("stamps %+v do not check", stamps)
			}
			got := stamps[0]
			at := time.Date(2026, 11, 24, 1, 2, 3, 456789000, time.UTC)
			if got.Username != responder || got.EventUID != "event-1" || got.ManifestSHA256 != tt.manifest || !got.At.Time.Equal(at) {
				t.Errorf("stamp %+v", got)
			}
		})
	}
}

func TestStamperWithholdsTheFirstOfTwo(t *testing.T) {
	both := cluster{accounts: []string{"ugallu-system:ugallu-responder", "soc:lead"}, required: 2}
	pending := apply(t, both, responder, event(), event(value("true")))
	if _, there := pending.Annotations[v1alpha1.AnnotationAcknowledged]; there {
		t.Fatal("one of two acknowledges already")
	}
	again := pending.DeepCopy()
	value("true")(again)
	complete := apply(t, both, second, pending, again)
	if complete.Annotations[v1alpha1.AnnotationAcknowledged] != "true" {
		t.Fatal("two of two do not acknowledge")
	}
	stamps := stampsOf(t, complete)
	if len(stamps) != 2 || stamps[0].Username != responder || stamps[1].Username != second {
		t.Fatalf("stamps %+v", stamps)
	}
	for _, ack := range stamps {
		if !stamp.Valid(key(), ack) {
			t.Errorf("stamp of %s does not check", ack.Username)
		}
	}
}

func TestStamperCountsNoStampOfAnotherKeyOrEvent(t *testing.T) {
	foreign := func(e *v1alpha1.SecurityEvent) {
		ack, err := stamp.Sign(bytes.Repeat([]byte{9}, 32), v1alpha1.Acknowledgement{Username: second, EventUID: "event-1", ManifestSHA256: digest})
		if err != nil {
			t.Fatal(err)
		}
		byHand(string(marshal(t, []v1alpha1.Acknowledgement{ack})))(e)
	}
	otherEvent := func(e *v1alpha1.SecurityEvent) {
		e.UID = "event-2"
		stamped(t, second)(e)
		e.UID = "event-1"
	}
	for name, previous := range map[string]change{"another key": foreign, "another event": otherEvent, "garbage": byHand("{")} {
		t.Run(name, func(t *testing.T) {
			stored := apply(t, cluster{required: 2}, responder, event(previous), event(previous, value("true")))
			stamps := stampsOf(t, stored)
			if _, there := stored.Annotations[v1alpha1.AnnotationAcknowledged]; there || len(stamps) != 1 || stamps[0].Username != responder {
				t.Fatalf("stamps %+v, annotations %v", stamps, stored.Annotations)
			}
		})
	}
}
