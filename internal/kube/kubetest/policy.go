// Package kubetest has an API server's responses for unit tests with a fake client.
package kubetest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// DeniedByPolicy is the response to a request that a ValidatingAdmissionPolicy denies. Without
// a reason of its own, such a policy denies requests as Invalid.
func DeniedByPolicy(resource, name string) error {
	const text = "ValidatingAdmissionPolicy 'frozen' with binding 'frozen' denied request: not now"
	err := apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name, errors.New(text))
	err.ErrStatus.Reason, err.ErrStatus.Code = metav1.StatusReasonInvalid, http.StatusUnprocessableEntity
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Message: text}}
	return err
}

// LacksPermission is the response to a request for which the account has no permission.
func LacksPermission(verb, resource, name string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name,
		errors.New(`User "system:serviceaccount:ns:controller" cannot `+verb+` resource "`+resource+`" in API group ""`))
}

// A Policy denies writes through a client.
type Policy struct {
	// Response is the error of a denied write. Without it, nothing is denied.
	Response error
	// Denies selects writes by verb, which is that of RBAC; nil is all. Writes of a status
	// have the subresource.
	Denies func(verb, subresource string, o client.Object) bool
	denied atomic.Int32
}

// Denied returns how many writes were denied.
func (p *Policy) Denied() int { return int(p.denied.Load()) }

func (p *Policy) check(verb, subresource string, o client.Object) error {
	if p.Response == nil || p.Denies != nil && !p.Denies(verb, subresource, o) {
		return nil
	}
	p.denied.Add(1)
	return p.Response
}

// Apply returns a client whose writes the policy denies.
func (p *Policy) Apply(c client.WithWatch) client.WithWatch {
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return p.unless("create", "", o, func() error { return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return p.unless("delete", "", o, func() error { return c.Delete(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return p.unless("update", "", o, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return p.unless("patch", "", o, func() error { return c.Patch(ctx, o, patch, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return p.unless("patch", sub, o, func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
	})
}

func (p *Policy) unless(verb, subresource string, o client.Object, do func() error) error {
	if err := p.check(verb, subresource, o); err != nil {
		return err
	}
	return do()
}

// WantEvent ends the test unless one of the recorded events has all parts.
func WantEvent(t *testing.T, recorder *record.FakeRecorder, parts ...string) {
	t.Helper()
	var all []string
	for len(recorder.Events) > 0 {
		one := <-recorder.Events
		all = append(all, one)
		if containsAll(one, parts) {
			return
		}
	}
	t.Fatalf("no event has %q, there are %q", parts, all)
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
