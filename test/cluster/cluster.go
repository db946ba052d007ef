// Package cluster gives tests a real Kubernetes.
//
// Under "devcluster exec" a test uses that cluster. Otherwise the first test starts one.
// All tests of the process share it, and it ends with the process, even if that is
// killed. No test is skipped because the machine lacks something: it fails and says
// what is missing.
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

// A Cluster is a cluster as one test uses it.
type Cluster struct {
	// Name is the cluster's name for devcluster --name.
	Name string
	// Kubeconfig is a file that reaches the cluster as its administrator.
	Kubeconfig string
	// Config reaches the cluster as its administrator, without a client-side throttle.
	Config *rest.Config
	// Client is made from Config.
	Client kubernetes.Interface
	// Namespace belongs to the test. It is deleted with everything in it when the test
	// ends.
	Namespace string
	// Nodes are the names of the cluster's ready nodes, at least as many as the test asked
	// for.
	Nodes []string

	shared *runningCluster
}

// An Option is a requirement of a test for its cluster.
type Option func(*needs)

type needs struct {
	nodes         int
	apiServerArgs []string
	own           bool
}

// flags returns the flags of "devcluster up".
func (w *needs) flags() []string {
	all := []string{"--nodes", fmt.Sprint(w.nodes)}
	for _, arg := range w.apiServerArgs {
		all = append(all, "--api-server-arg="+arg)
	}
	return all
}

// WithNodes requires at least n real nodes, which take root.
func WithNodes(n int) Option { return func(w *needs) { w.nodes = n } }

// WithAPIServerArgs requires a cluster whose API server has additional flags. This
// process starts it, also under "devcluster exec".
func WithAPIServerArgs(args ...string) Option {
	return func(w *needs) { w.apiServerArgs = append(w.apiServerArgs, args...) }
}

// Own requires a cluster that no other test uses, also under "devcluster exec". It is
// for programs that work on all namespaces. The cluster ends with the test.
func Own() Option { return func(w *needs) { w.own = true } }

// New returns a cluster that meets the options, with a namespace for this test. If the
// test fails, the events, pods and logs of the namespace are logged.
//
// A test that asked for nodes ends when its namespace is gone, and fails if something
// blocks that. This takes the five seconds that Kubernetes gives clients to notice the
// deletion. A test without nodes does not wait: nothing runs in its namespace.
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

// NewAPIOnly returns an API server of the test's own, without any controllers: the
// test plays them. It is for many objects, which disappear with the server.
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

// find returns a running cluster for a test.
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

// owned counts the clusters that tests own, for their names.
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
