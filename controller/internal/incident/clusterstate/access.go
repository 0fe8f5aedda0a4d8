package clusterstate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// pageSize of a list of bindings. One of 1.5 MiB, all an API server stores, is some 6 MiB once it is decoded, if it has a
	// great many subjects. How many pages are looked through is a matter of the time that is left.
	pageSize = 5
	// maxBindings of one account that are described.
	maxBindings = 200
	// maxRules bounds the rules of all of them in JSON. In YAML, and with the bindings, they stay below maxDocument.
	maxRules = maxDocument / 4
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
	more := 0
	take := func(one binding) {
		if one.Subjects = matching(one.Subjects, is); len(one.Subjects) == 0 {
			return
		}
		if len(found.Bindings) == maxBindings {
			more++
			return
		}
		found.Bindings = append(found.Bindings, one)
	}
	kept := s.left / share
	s.left -= kept
	for _, list := range []func(context.Context, func(binding)) error{s.clusterBindings, s.bindings} {
		if err := list(ctx, take); err != nil {
			s.missing("role bindings", err)
		}
	}
	s.left += kept
	slices.SortFunc(found.Bindings, func(a, b binding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if more > 0 {
		s.gap(gapTruncated, "role bindings of "+found.Account, fmt.Sprintf("%d more than %d", more, maxBindings))
	}
	s.rules(ctx, found.Bindings)
	s.keep("RBACSummary "+found.Account, found)
}

func (s *state) clusterBindings(ctx context.Context, take func(binding)) error {
	var page rbacv1.ClusterRoleBindingList
	return s.pages(ctx, &page, func() {
		for i := range page.Items {
			one := &page.Items[i]
			take(binding{Kind: "ClusterRoleBinding", Name: one.Name, UID: string(one.UID), Subjects: one.Subjects, Role: one.RoleRef})
		}
	})
}

// bindings looks in every namespace: another one may have given the account a role too.
func (s *state) bindings(ctx context.Context, take func(binding)) error {
	var page rbacv1.RoleBindingList
	return s.pages(ctx, &page, func() {
		for i := range page.Items {
			one := &page.Items[i]
			take(binding{
				Kind: "RoleBinding", Namespace: one.Namespace, Name: one.Name, UID: string(one.UID), Subjects: one.Subjects, Role: one.RoleRef,
			})
		}
	})
}

// pages has one page after the other looked at, as long as there is time.
func (s *state) pages(ctx context.Context, page client.ObjectList, look func()) error {
	next := ""
	for read := 0; ; read++ {
		var err error
		if next, err = s.page(ctx, page, look, client.Limit(pageSize), client.Continue(next)); err != nil {
			return fmt.Errorf("after %d pages of %d: %w", read, pageSize, err)
		}
		if next == "" {
			return nil
		}
	}
}

// matching names each subject once, however often the binding does.
func matching(subjects []rbacv1.Subject, is func(rbacv1.Subject) bool) []rbacv1.Subject {
	var found []rbacv1.Subject
	for _, subject := range subjects {
		if is(subject) && !slices.Contains(found, subject) {
			found = append(found, subject)
		}
	}
	return found
}

// ruled is a role's rules, and how many bytes they are in JSON.
type ruled struct {
	rules []rbacv1.PolicyRule
	size  int
}

// rules looks each role up once. A binding whose role cannot be read stays, without rules, and so does one for whose rules
// there is no room.
func (s *state) rules(ctx context.Context, bindings []binding) {
	known, room := map[string]ruled{}, maxRules
	for i := range bindings {
		key := client.ObjectKey{Name: bindings[i].Role.Name}
		if bindings[i].Role.Kind == "Role" {
			key.Namespace = bindings[i].Namespace
		}
		name := title(bindings[i].Role.Kind, key)
		role, ok := known[name]
		if !ok {
			role = s.ruled(ctx, name, key, room)
			known[name] = role
		}
		if role.size > room {
			s.gap(gapTruncated, name, fmt.Sprintf("%d bytes of rules are left out of %s %s", role.size, bindings[i].Kind, bindings[i].Name))
			continue
		}
		room -= role.size
		bindings[i].Rules = role.rules
	}
}

// ruled forgets the rules that the room is too small for: it does not grow.
func (s *state) ruled(ctx context.Context, name string, key client.ObjectKey, room int) ruled {
	rules := s.role(ctx, name, key)
	written, err := json.Marshal(rules)
	if err != nil {
		s.missing(name, fmt.Errorf("measure: %w", err))
		return ruled{}
	}
	if len(written) > room {
		rules = nil
	}
	return ruled{rules: rules, size: len(written)}
}

func (s *state) role(ctx context.Context, name string, key client.ObjectKey) []rbacv1.PolicyRule {
	var role rbacv1.Role
	var clusterRole rbacv1.ClusterRole
	var object client.Object = &role
	if key.Namespace == "" {
		object = &clusterRole
	}
	if err := s.ask(ctx, func(ctx context.Context) error { return s.reader.Get(ctx, key, object) }); err != nil {
		s.missing(name, err)
		return nil
	}
	return append(role.Rules, clusterRole.Rules...)
}
