package clusterstate

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// pageSize of a list of bindings, and how many pages of each kind are looked through: 20,000 bindings.
	pageSize = 500
	maxPages = 40
	// maxBindings of one account that are described.
	maxBindings = 200
)

// access is what the pod's ServiceAccount may do in the cluster.
type access struct {
	Kind string `json:"kind"`
	// Account and Groups are what a binding's subjects were compared with.
	Account  string    `json:"account"`
	Groups   []string  `json:"groups"`
	Bindings []binding `json:"bindings"`
}

// binding names one of the account's subjects, and the rules of the role that it is bound to.
type binding struct {
	Kind      string              `json:"kind"`
	Namespace string              `json:"namespace,omitempty"`
	Name      string              `json:"name"`
	UID       string              `json:"uid"`
	Subjects  []rbacv1.Subject    `json:"subjects"`
	Role      rbacv1.RoleRef      `json:"role"`
	Rules     []rbacv1.PolicyRule `json:"rules"`
}

// access adds the bindings of an account. One list that cannot be read leaves the other.
func (s *state) access(ctx context.Context, namespace, account string) {
	found := access{
		Kind:     "RBACSummary",
		Account:  "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + namespace},
		Bindings: []binding{},
	}
	is := func(subject rbacv1.Subject) bool {
		switch subject.Kind {
		case rbacv1.ServiceAccountKind:
			return subject.Namespace == namespace && subject.Name == account
		case rbacv1.UserKind:
			return subject.Name == found.Account
		case rbacv1.GroupKind:
			return slices.Contains(found.Groups, subject.Name)
		}
		return false
	}
	for _, list := range []func(context.Context, func(rbacv1.Subject) bool) ([]binding, error){s.clusterBindings, s.bindings} {
		bindings, err := list(ctx, is)
		if err != nil {
			s.missing("role bindings", err)
		}
		found.Bindings = append(found.Bindings, bindings...)
	}
	slices.SortFunc(found.Bindings, func(a, b binding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if more := len(found.Bindings) - maxBindings; more > 0 {
		s.gap(gapTruncated, "role bindings of "+found.Account, fmt.Sprintf("%d more than %d", more, maxBindings))
		found.Bindings = found.Bindings[:maxBindings]
	}
	s.rules(ctx, found.Bindings)
	s.documents = append(s.documents, document{"RBACSummary " + found.Account, found})
}

func (s *state) clusterBindings(ctx context.Context, is func(rbacv1.Subject) bool) ([]binding, error) {
	var found []binding
	var page rbacv1.ClusterRoleBindingList
	err := s.pages(ctx, &page, func() {
		for i := range page.Items {
			one := &page.Items[i]
			if subjects := matching(one.Subjects, is); len(subjects) > 0 {
				found = append(found, binding{
					Kind: "ClusterRoleBinding", Name: one.Name, UID: string(one.UID), Subjects: subjects, Role: one.RoleRef,
				})
			}
		}
	})
	return found, err
}

// bindings looks in every namespace: another one may have given the account a role too.
func (s *state) bindings(ctx context.Context, is func(rbacv1.Subject) bool) ([]binding, error) {
	var found []binding
	var page rbacv1.RoleBindingList
	err := s.pages(ctx, &page, func() {
		for i := range page.Items {
			one := &page.Items[i]
			if subjects := matching(one.Subjects, is); len(subjects) > 0 {
				found = append(found, binding{
					Kind: "RoleBinding", Namespace: one.Namespace, Name: one.Name, UID: string(one.UID), Subjects: subjects, Role: one.RoleRef,
				})
			}
		}
	})
	return found, err
}

// pages has one page after the other looked at.
func (s *state) pages(ctx context.Context, page client.ObjectList, look func()) error {
	next := ""
	for range maxPages {
		err := ask(ctx, func(ctx context.Context) error {
			return s.reader.List(ctx, page, client.Limit(pageSize), client.Continue(next))
		})
		if err != nil {
			return err
		}
		look()
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
	s.gap(gapTruncated, "role bindings", fmt.Sprintf("there are more than %d of a kind", maxPages*pageSize))
	return nil
}

func matching(subjects []rbacv1.Subject, is func(rbacv1.Subject) bool) []rbacv1.Subject {
	return slices.DeleteFunc(slices.Clone(subjects), func(subject rbacv1.Subject) bool { return !is(subject) })
}

// rules looks each role up once. A binding whose role cannot be read stays, without rules.
func (s *state) rules(ctx context.Context, bindings []binding) {
	known := map[string][]rbacv1.PolicyRule{}
	for i := range bindings {
		key := client.ObjectKey{Name: bindings[i].Role.Name}
		if bindings[i].Role.Kind == "Role" {
			key.Namespace = bindings[i].Namespace
		}
		name := title(bindings[i].Role.Kind, key)
		if _, ok := known[name]; !ok {
			known[name] = s.role(ctx, name, key)
		}
		bindings[i].Rules = known[name]
	}
}

func (s *state) role(ctx context.Context, name string, key client.ObjectKey) []rbacv1.PolicyRule {
	var role rbacv1.Role
	var clusterRole rbacv1.ClusterRole
	var object client.Object = &role
	if key.Namespace == "" {
		object = &clusterRole
	}
	if err := ask(ctx, func(ctx context.Context) error { return s.reader.Get(ctx, key, object) }); err != nil {
		s.missing(name, err)
		return nil
	}
	return append(role.Rules, clusterRole.Rules...)
}
