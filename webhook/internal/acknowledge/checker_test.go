package acknowledge_test

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/webhook/internal/acknowledge"
)

func TestCheckerRefusesWhatTheStamperDidNotMake(t *testing.T) {
	ofOtherEvent := func(e *v1alpha1.SecurityEvent) {
		e.UID = "event-2"
		stamped(t, responder)(e)
		e.UID = "event-1"
	}
	tests := map[string]struct {
		user          string
		before, after *v1alpha1.SecurityEvent
		want          string
	}{
		"a Forensic event of anyone else": {user: responder, after: event(), want: "spec.class"},
		"created acknowledged":            {user: controller, after: event(value("true")), want: "when it is created"},
		"created with a stamp":            {user: controller, after: event(stamped(t, responder)), want: "only the admission webhook"},
		"acknowledged without a stamp":    {user: responder, before: event(), after: event(value("true")), want: "without a stamp"},
		"acknowledgement removed":         {user: responder, before: event(value("true"), stamped(t, responder)), after: event(stamped(t, responder)), want: "without a stamp"},
		"stamp of another event":          {user: responder, before: event(), after: event(value("true"), ofOtherEvent), want: "only the admission webhook"},
		"stamp of another account":        {user: responder, before: event(), after: event(value("true"), stamped(t, second)), want: "only the admission webhook"},
		"two stamps at once":              {user: responder, before: event(), after: event(value("true"), stamped(t, second, responder)), want: "only the admission webhook"},
		"one account twice":               {user: responder, before: event(stamped(t, responder)), after: event(value("true"), stamped(t, responder, responder)), want: "only the admission webhook"},
		"a stamp lost":                    {user: responder, before: event(stamped(t, second)), after: event(value("true"), stamped(t, responder)), want: "only the admission webhook"},
		"stamps removed":                  {user: responder, before: event(stamped(t, second)), after: event(), want: "only the admission webhook"},
		"garbage":                         {user: responder, before: event(), after: event(value("true"), byHand("{")), want: "only the admission webhook"},
		"a stamp with TRUE":               {user: responder, before: event(), after: event(value("TRUE"), stamped(t, responder)), want: `exactly "true"`},
		"a stamp on a final one":          {user: second, before: event(value("true"), stamped(t, responder)), after: event(stamped(t, responder, second)), want: "final"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := acknowledge.NewChecker(keys, controller).Handle(t.Context(), request(t, tt.user, tt.before, tt.after))
			refused(t, got, tt.want)
		})
	}
}

func TestCheckerAdmitsTheControllersEventsAndDetections(t *testing.T) {
	tests := map[string]struct {
		user  string
		event *v1alpha1.SecurityEvent
	}{
		"the controller's Forensic event": {user: controller, event: event()},
		"a detection of anyone":           {user: stranger, event: event(detection)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := acknowledge.NewChecker(keys, controller).Handle(t.Context(), request(t, tt.user, nil, tt.event))
			if !got.Allowed {
				t.Fatal(got.Result.Message)
			}
		})
	}
}

func keys(context.Context) ([]byte, error) { return key(), nil }

// TestVoidAcknowledgementCanBeTakenOffAndMadeAnew plays what follows a change of the key: a stamp that does not check
// must not stand in the way for ever.
func TestVoidAcknowledgementCanBeTakenOffAndMadeAnew(t *testing.T) {
	foreign := byHand(`[{"username":"` + responder + `","eventUID":"event-1","mac":"00"}]`)
	for name, old := range map[string]change{"another key's stamp": foreign, "no stamp": byHand("[]")} {
		t.Run(name, func(t *testing.T) {
			void, off := event(value("true"), old), event(old)
			handlers := map[string]admission.Handler{
				"stamper": stamper(t, cluster{}), "checker": acknowledge.NewChecker(keys, controller),
			}
			for half, handler := range handlers {
				if got := handler.Handle(t.Context(), request(t, responder, void, off)); !got.Allowed || len(got.Patches) > 0 {
					t.Errorf("%s: taking it off gave %+v", half, got)
				}
				if got := handler.Handle(t.Context(), request(t, responder, void, event(value("false"), old))); got.Allowed {
					t.Errorf("%s: a void acknowledgement could be altered", half)
				}
			}
			if got := handlers["stamper"].Handle(t.Context(), request(t, responder, off, event(value("true"), old))); !got.Allowed || len(got.Patches) == 0 {
				t.Errorf("acknowledging anew gave %+v", got)
			}
		})
	}
}
