package order

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestThePlanNamesThePodsDeadlineWhereItKillsFirst(t *testing.T) {
	frozen := metav1.NewMicroTime(time.Unix(1000, 0))
	began := metav1.NewTime(time.Unix(400, 0))
	http := &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(80)}}, FailureThreshold: 3, PeriodSeconds: 10,
	}
	once := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, FailureThreshold: 1}
	const byProbe = "livenessProbe by httpGet of port 80, 3 failures 10 s apart"
	tests := map[string]struct {
		probe    *corev1.Probe
		deadline *int64
		began    *metav1.Time
		frozen   *metav1.MicroTime
		want     string
		at       int64
	}{
		"no probe":                {nil, new(int64(900)), &began, &frozen, "the pod's activeDeadlineSeconds of 900", 1300},
		"after the probe":         {http, new(int64(900)), &began, &frozen, byProbe, 1020},
		"before the probe":        {http, new(int64(610)), &began, &frozen, "the pod's activeDeadlineSeconds of 610", 1010},
		"beside one that may":     {once, new(int64(900)), &began, &frozen, "the pod's activeDeadlineSeconds of 900; may be killed: livenessProbe by exec", 1300},
		"no deadline":             {http, nil, &began, &frozen, byProbe, 1020},
		"the start is not known":  {nil, new(int64(900)), nil, &frozen, "", 0},
		"the container runs":      {http, new(int64(900)), &began, nil, "", 0},
		"neither probe nor limit": {nil, nil, &began, &frozen, "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{
				Spec: corev1.PodSpec{
					ActiveDeadlineSeconds: tt.deadline, Containers: []corev1.Container{{Name: "web", LivenessProbe: tt.probe}},
				},
				Status: corev1.PodStatus{StartTime: tt.began},
			}
			got := v1alpha1.ContainerFreeze{Name: "web", FrozenAt: tt.frozen}
			explainKill(pod, &got)
			if !strings.HasPrefix(got.ProbeKill, tt.want) || (got.ProbeKill == "") != (tt.want == "") {
				t.Errorf("%q, want %q", got.ProbeKill, tt.want)
			}
			if (got.ProbeKillExpectedAt != nil) != (tt.at != 0) || tt.at != 0 && got.ProbeKillExpectedAt.Unix() != tt.at {
				t.Errorf("at %v, want %d", got.ProbeKillExpectedAt, tt.at)
			}
		})
	}
}

// TestPodfreezeRecordsThePodsDeadline since it is what has the memory of a pod without probes captured.
func TestPodfreezeRecordsThePodsDeadline(t *testing.T) {
	w := newWorld(t)
	began := metav1.NewTime(time.Now().Truncate(time.Second))
	w.change(func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds, pod.Status.StartTime = new(int64(600)), &began })
	record, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	for _, container := range record.Status.Containment.Containers {
		if at := container.ProbeKillExpectedAt; at == nil || !at.Time.Equal(began.Add(10*time.Minute)) {
			t.Errorf("container %s dies at %v", container.Name, at)
		}
	}
}
