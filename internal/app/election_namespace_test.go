package app

import (
	"context"
	"errors"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/spf13/pflag"
)

func TestWhereTheLeaseIs(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "pods")
	broken := errors.New("the API server is away")
	tests := map[string]struct {
		args      []string
		may       map[string]bool
		err       error
		namespace string
		elects    bool
	}{
		"by default it is in the default namespace":                       {nil, map[string]bool{"kube-system": true, "pods": true}, nil, "kube-system", true},
		"without permission there it is in the pod's namespace":           {nil, map[string]bool{"pods": true}, nil, "pods", true},
		"without permission anywhere there is no election":                {nil, nil, nil, "", false},
		"nothing is decided while the API server is away":                 {nil, nil, broken, "kube-system", false},
		"--leader-election means the pod's, as in upstream's program":     {[]string{"--leader-election"}, map[string]bool{"kube-system": true}, nil, "", true},
		"--leader-election needs no permission to be obeyed":              {[]string{"--leader-election=true"}, nil, nil, "", true},
		"a given namespace is taken":                                      {[]string{"--leader-election-namespace=own"}, nil, nil, "own", true},
		"a given namespace is taken with --leader-election, too":          {[]string{"--leader-election", "--leader-election-namespace=own"}, nil, nil, "own", true},
		"the default namespace is taken as given if somebody asks for it": {[]string{"--leader-election", "--leader-election-namespace=kube-system"}, nil, nil, "kube-system", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := LeaderElectionOptions{Enabled: true, Namespace: "kube-system"}
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			o.AddFlags(fs)
			if err := fs.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			namespace, elects, err := o.chooseNamespace(t.Context(), func(_ context.Context, namespace string) (bool, error) {
				return tt.may[namespace], tt.err
			})
			if namespace != tt.namespace || elects != tt.elects || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v, %v", namespace, elects, err)
			}
		})
	}
}

func TestWhetherALeaseMayBeHad(t *testing.T) {
	resource := coordinationv1.Resource("leases")
	forbidden := apierrors.NewForbidden(resource, "lease", errors.New("no rule"))
	tests := map[string]struct {
		exists  bool
		refused map[string]error // by verb
		want    bool
		wantErr bool
	}{
		"it does not exist and may be created":                {want: true},
		"it does not exist and may not be created":            {refused: map[string]error{"create": forbidden}},
		"it may not be read":                                  {exists: true, refused: map[string]error{"get": forbidden}},
		"it exists and may be written":                        {exists: true, want: true},
		"it exists and may not be written":                    {exists: true, refused: map[string]error{"update": forbidden}},
		"another replica writes it at the same moment":        {exists: true, refused: map[string]error{"update": apierrors.NewConflict(resource, "lease", nil)}, want: true},
		"another replica creates it at the same moment":       {refused: map[string]error{"create": apierrors.NewAlreadyExists(resource, "lease")}, want: true},
		"the namespace does not exist":                        {refused: map[string]error{"create": apierrors.NewNotFound(resource, "ns")}},
		"the API server is overloaded, which decides nothing": {refused: map[string]error{"get": apierrors.NewTooManyRequests("later", 1)}, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			clients := fake.NewClientset()
			if tt.exists {
				clients = fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"}})
			}
			for verb, err := range tt.refused {
				clients.PrependReactor(verb, "leases", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
			}
			e := &candidate{name: "lease", leases: clients.CoordinationV1()}
			got, err := e.mayLead(t.Context(), "ns")
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("got %v, %v", got, err)
			}
			for _, action := range clients.Actions() {
				if w, ok := action.(interface{ GetCreateOptions() metav1.CreateOptions }); ok && len(w.GetCreateOptions().DryRun) == 0 {
					t.Error("the Lease was created")
				}
				if w, ok := action.(interface{ GetUpdateOptions() metav1.UpdateOptions }); ok && len(w.GetUpdateOptions().DryRun) == 0 {
					t.Error("the Lease was written")
				}
			}
		})
	}
}
