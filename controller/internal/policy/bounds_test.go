package policy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/internal/apitest"
)

// pager is an API server whose lists of policies are watched, and may fail.
type pager struct {
	// most policies that an answer had.
	most, answers int
	// answered is called before each answer after the first, which it may replace by an error.
	answered func(context.Context) error
}

func (p *pager) list(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
	whole, ok := list.(*unstructured.UnstructuredList)
	if !ok {
		return fmt.Errorf("list of %T", list)
	}
	if p.answers++; p.answers > 1 && p.answered != nil {
		if err := p.answered(ctx); err != nil {
			return err
		}
	}
	err := c.List(ctx, list, opts...)
	p.most = max(p.most, len(whole.Items))
	return err
}

// TestRecordOfOtherPoliciesIsBounded: whoever may edit a namespace writes policies into it, of any number and size.
func TestRecordOfOtherPoliciesIsBounded(t *testing.T) {
	config := apitest.Run(t, &envtest.Environment{})
	f := newFixture(t, config)
	if err := f.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	createForeign(t, f.client)
	base, err := client.NewWithWatch(config, client.Options{Scheme: f.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"lookalike", "selecting-0", "selecting-1", "selecting-2", "selecting-3"}
	broken := apierrors.NewInternalError(errors.New("broken"))
	over, refused := apierrors.NewResourceExpired("too old"), apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no"))
	for name, tt := range map[string]struct {
		answered func(context.Context, *pager) error
		want     []string
		omitted  int32
	}{
		"all":                   {func(context.Context, *pager) error { return nil }, all, 0},
		"a list that expires":   {func(_ context.Context, p *pager) error { return map[int]error{3: over}[p.answers] }, all, 0},
		"lists that all expire": {func(_ context.Context, p *pager) error { return map[int]error{3: over, 6: over}[p.answers] }, all[:2], 1},
		"a server that refuses": {func(_ context.Context, p *pager) error { return map[int]error{3: refused}[p.answers] }, all[:2], 1},
		"a server that hangs":   {func(ctx context.Context, _ *pager) error { <-ctx.Done(); return ctx.Err() }, all[:1], 1},
		"a server that hangs once": {
			func(ctx context.Context, p *pager) error {
				if p.answers == 3 {
					<-ctx.Done()
				}
				return ctx.Err()
			}, all, 0,
		},
		"a server with hiccups": {
			func(_ context.Context, p *pager) error {
				return map[int]error{3: broken, 4: broken, 6: broken}[p.answers]
			}, all, 0,
		},
		"a server that is broken": {
			func(_ context.Context, p *pager) error { return map[bool]error{true: broken}[p.answers > 2] }, all[:2], 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := &pager{}
			server.answered = func(ctx context.Context) error { return tt.answered(ctx, server) }
			live := interceptor.NewClient(base, interceptor.Funcs{List: server.list})
			one := f
			one.policies = policy.New(f.client, live, policy.NewDetector(found), clock.RealClock{})
			applied := one.ensure(t, nil)
			if got := names(applied); !slices.Equal(got, tt.want) || applied.OthersOmitted != tt.omitted {
				t.Errorf("others %v and %d omitted, want %v and %d", got, applied.OthersOmitted, tt.want, tt.omitted)
			}
			if server.most != 1 {
				t.Errorf("%d policies are in memory at a time", server.most)
			}
			readOnce(t, one, server, applied)
		})
	}
	repeatsWhatComesBeforeTheLists(t, f, base, found, all)
}

// served is what an API server says that it serves. It says so of a kind that it has no policies of, too.
type served struct {
	policy.Resources
	// questions about it so far, of which broken ones, after that about the backend, are not answered.
	questions, broken int
}

func (s *served) ServerResourcesForGroupVersionWithContext(ctx context.Context, groupVersion string) (*metav1.APIResourceList, error) {
	if s.questions++; s.questions > 1 && s.questions <= 1+s.broken {
		return nil, errors.New("broken")
	}
	if groupVersion == "policy.networking.k8s.io/v1alpha2" {
		return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Kind: "ClusterNetworkPolicy"}}}, nil
	}
	return s.Resources.ServerResourcesForGroupVersionWithContext(ctx, groupVersion)
}

// repeatsWhatComesBeforeTheLists: where the namespace stays unread, what is served and may select by its labels is omitted.
func repeatsWhatComesBeforeTheLists(t *testing.T, f fixture, base client.WithWatch, found policy.Resources, all []string) {
	t.Helper()
	const always = 1000
	for name, tt := range map[string]struct {
		namespace, discovery int
		want                 []string
		omitted              int32
		// questions about what is served: one for the backend, and one, or every try at it, for each of four group versions.
		questions int
	}{
		"a namespace after hiccups":     {namespace: 2, want: all, questions: 5},
		"a discovery after hiccups":     {discovery: 2, want: all, questions: 7},
		"a namespace that is not read":  {namespace: always, want: all, omitted: 1, questions: 5},
		"a discovery that stays broken": {discovery: always, omitted: 6, questions: 13},
	} {
		t.Run(name, func(t *testing.T) {
			left := tt.namespace
			live := interceptor.NewClient(base, interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
					if _, ok := o.(*metav1.PartialObjectMetadata); ok && left > 0 {
						left--
						return apierrors.NewTooManyRequests("later", 0)
					}
					return c.Get(ctx, key, o, opts...)
				},
			})
			one := f
			server := &served{Resources: found, broken: tt.discovery}
			one.policies = policy.New(f.client, live, policy.NewDetector(server), clock.RealClock{})
			applied := one.ensure(t, nil)
			if server.questions != tt.questions {
				t.Errorf("%d questions about what is served, want %d", server.questions, tt.questions)
			}
			if got := names(applied); !slices.Equal(got, tt.want) || applied.OthersOmitted != tt.omitted {
				t.Errorf("others %v and %d omitted, want %v and %d", got, applied.OthersOmitted, tt.want, tt.omitted)
			}
		})
	}
}

func names(applied *v1alpha1.AppliedPolicy) []string {
	var names []string
	for _, ref := range applied.Others {
		names = append(names, ref.Name)
	}
	return names
}

// readOnce: until the policy is on record nothing is read again, and the next incident of the pod has it read anew.
func readOnce(t *testing.T, f fixture, server *pager, applied *v1alpha1.AppliedPolicy) {
	t.Helper()
	before := server.answers
	if again := f.ensure(t, nil); !equality.Semantic.DeepEqual(again.Others, applied.Others) || server.answers != before {
		t.Errorf("%d more lists, others %v", server.answers-before, again.Others)
	}
	server.answered = nil
	f.ensure(t, applied)
	if f.ensure(t, nil); server.answers == before {
		t.Error("what is on record is not forgotten")
	}
}

// createForeign makes four policies that select the pod, as large as their rules without content make them, one that does
// not, and one of another name with the label of ours.
func createForeign(t *testing.T, c client.Client) {
	t.Helper()
	create := func(name, app string, rules int, labels map[string]string) {
		t.Helper()
		err := c.Create(t.Context(), &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
				Ingress:     make([]networkingv1.NetworkPolicyIngressRule, rules),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		create(fmt.Sprintf("selecting-%d", i), "victim", 100_000, nil)
	}
	create("another", "other", 0, nil)
	create("lookalike", "other", 0, map[string]string{v1alpha1.LabelPodUID: podUID})
}
