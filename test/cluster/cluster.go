// Package cluster gives tests a real Kubernetes.
//
// Under "devcluster exec" a test uses the cluster that runs around it.
// Otherwise the first test that asks starts one, which all tests of its
// process share and which ends with the process, however that ends. Nothing is
// skipped for what a machine lacks: the test fails and says what is missing.
package cluster

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A Cluster is what one test has of a cluster.
type Cluster struct {
	// Name is the cluster's name, as devcluster's --name wants it.
	Name string
	// Kubeconfig is a file that reaches the cluster as its administrator.
	Kubeconfig string
	// Config reaches the cluster as its administrator, without a client-side throttle.
	Config *rest.Config
	// Client is made from Config.
	Client kubernetes.Interface
	// Namespace is the test's own. It goes, with all that is in it, when the test ends.
	Namespace string
	// Nodes are the names of the cluster's nodes: at least as many as were asked for.
	Nodes []string

	shared *runningCluster
}

// An Option says what a test needs of its cluster.
type Option func(*needs)

type needs struct {
	nodes         int
	apiServerArgs []string
	own           bool
}

// flags are those of "devcluster up".
func (w *needs) flags() []string {
	all := []string{"--nodes", fmt.Sprint(w.nodes)}
	for _, arg := range w.apiServerArgs {
		all = append(all, "--api-server-arg="+arg)
	}
	return all
}

// WithNodes asks for at least n real nodes, which takes root.
func WithNodes(n int) Option { return func(w *needs) { w.nodes = n } }

// WithAPIServerArgs asks for a cluster whose API server has further flags. It is
// one of this process, also under "devcluster exec".
func WithAPIServerArgs(args ...string) Option {
	return func(w *needs) { w.apiServerArgs = append(w.apiServerArgs, args...) }
}

// Own asks for a cluster that no other test is in, also under "devcluster exec".
// It is for what works on all namespaces, and goes when the test ends.
func Own() Option { return func(w *needs) { w.own = true } }

// New returns a cluster with all that the options ask for and a namespace for
// this test. If the test fails, what happened in the namespace is logged.
//
// A test that asked for nodes ends when its namespace is gone, and fails if
// something holds it. That takes five seconds, which Kubernetes gives clients
// to notice; where nothing runs in the namespace nobody waits for it.
func New(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	var want needs
	for _, option := range options {
		option(&want)
	}
	c, err := connect(find(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if c.Nodes, err = c.readyNodes(t.Context(), want.nodes); err != nil {
		t.Fatal(err)
	}
	c.makeNamespace(t, want.nodes > 0 && !want.own)
	return c
}

// NewAPIOnly returns an API server of the test's own, with nothing that acts by
// itself: the test plays the controllers. It is for many objects, which nobody
// then works on and which go with the server.
func NewAPIOnly(t testing.TB) *Cluster {
	t.Helper()
	c, err := connect(startOwn(t, "--api-only"))
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Namespace = namespace.Name
	return c
}

// find is the cluster for a test, running.
func find(t testing.TB, want needs) *runningCluster {
	t.Helper()
	if want.own {
		return startOwn(t, want.flags()...)
	}
	shared, err := clusters.get(want)
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

// owned counts the clusters of tests of their own, for their names.
var owned atomic.Int32

func startOwn(t testing.TB, flags ...string) *runningCluster {
	t.Helper()
	own, err := start(fmt.Sprintf("own-%d-%d", os.Getpid(), owned.Add(1)), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		own.stdin.Close()
		<-own.gone
	})
	return own
}

func connect(shared *runningCluster) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", shared.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{
		Name: shared.name, Kubeconfig: shared.kubeconfig, Config: config, Client: client, shared: shared,
	}, nil
}
