package checkpoints

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/checkpoint"
	"github.com/holdfast-io/holdfast/internal/crds"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/node"
	enginePort "github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/s3server"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	retryStart = 10 * time.Millisecond
	retryMax   = 100 * time.Millisecond
	attempts   = 3
	// watchDelay is how old a stale cache is: older than the first retries.
	watchDelay = 150 * time.Millisecond
	secretName = "secret"
	bucketName = "checkpoints"
)

// shared is what all environments use: an API server without controllers, and an S3 server.
type shared struct {
	*cluster.Cluster
	scheme *runtime.Scheme
	mapper meta.RESTMapper
	s3     *s3server.Server
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{Cluster: cluster.NewAPIOnly(t), scheme: runtime.NewScheme(), s3: s3server.Start(t, s3server.Options{})}
	if err := errors.Join(corev1.AddToScheme(s.scheme), v1alpha1.AddToScheme(s.scheme)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.s3.Dir, bucketName), 0o700); err != nil {
		t.Fatal(err)
	}
	s.installCRDs(t)
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Namespace", "Node", "Pod", "Secret", "ServiceAccount"} {
		m.Add(corev1.SchemeGroupVersion.WithKind(kind), scopeOf(kind))
	}
	for _, kind := range []string{"Checkpoint", "CheckpointPolicy", "CheckpointNode"} {
		m.Add(v1alpha1.GroupVersion.WithKind(kind), scopeOf(kind))
		m.Add(v1alpha1.GroupVersion.WithKind(kind+"List"), scopeOf(kind))
	}
	s.mapper = m
	return s
}

func (s *shared) installCRDs(t *testing.T) {
	t.Helper()
	var text bytes.Buffer
	if err := crds.Write(&text, v1alpha1.GroupVersion.Group); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.Config, client.Options{Scheme: s.scheme})
	if err != nil {
		t.Fatal(err)
	}
	for decoder := yaml.NewYAMLOrJSONDecoder(&text, text.Len()); ; {
		crd := &unstructured.Unstructured{}
		if err := decoder.Decode(&crd.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), crd); err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range []client.ObjectList{&v1alpha1.CheckpointList{}, &v1alpha1.CheckpointNodeList{}, &v1alpha1.CheckpointPolicyList{}} {
		world.Eventually(t, func(ctx context.Context) error { return c.List(ctx, list) })
	}
}

// An environment is where the runs of one scenario take place, one after another: a
// namespace, two nodes, and the processes under test.
type environment struct {
	*shared
	scenario  *scenario
	namespace string
	api       client.Client
	trace     trace
	secret    []byte       // the key with which archives are encrypted
	events    atomic.Int64 // that the processes have sent in the run

	operators []*process
	nodes     []*testNode

	mu       sync.Mutex
	run      *run
	failures map[string]error // by what fails: the failures of the scenario that are still to come
	freezes  map[types.UID]int32
	damages  bool // the next write is to be damaged
}

// A testNode is a node whose containers are files.
type testNode struct {
	name  string
	dir   string // has the state of the engine and the store
	fake  *runtimetest.Fake
	agent *process
}

func (n *testNode) storeDir() string { return filepath.Join(n.dir, "store") }

var environments atomic.Int64

func newEnvironment(t *testing.T, s *shared, sc *scenario) *environment {
	t.Helper()
	e := &environment{shared: s, scenario: sc, namespace: fmt.Sprintf("env-%d", environments.Add(1)), secret: make([]byte, archive.KeySize)}
	rand.Read(e.secret)
	var err error
	if e.api, err = client.New(s.Config, client.Options{Scheme: s.scheme, Mapper: s.mapper}); err != nil {
		t.Fatal(err)
	}
	e.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: e.namespace}})
	e.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: "default"}})
	e.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: secretName},
		Data:       map[string][]byte{"accessKeyID": []byte(s3server.AccessKeyID), "secretAccessKey": []byte(s3server.SecretAccessKey), "key": e.secret},
	})
	for _, role := range []string{"agent", "other agent"} {
		n := &testNode{name: fmt.Sprintf("%s-%d", e.namespace, len(e.nodes)), dir: t.TempDir()}
		n.fake = runtimetest.NewFake(filepath.Join(n.dir, "node"))
		e.nodes = append(e.nodes, n)
		e.create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
		n.agent = newProcess(t, e, e.newAgent(n, role))
	}
	for i := range max(sc.operators, 1) {
		e.operators = append(e.operators, newProcess(t, e, e.newOperator(i)))
	}
	for _, n := range e.nodes {
		e.waitReady(t.Context(), t, n)
	}
	return e
}

func (e *environment) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := e.api.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// waitReady waits until the agent of a node says that it can make checkpoints.
func (e *environment) waitReady(ctx context.Context, t *testing.T, n *testNode) {
	t.Helper()
	for deadline := time.Now().Add(world.Timeout); ; time.Sleep(pollInterval) {
		published := &v1alpha1.CheckpointNode{}
		err := e.api.Get(ctx, client.ObjectKey{Name: n.name}, published)
		if err == nil && meta.IsStatusConditionTrue(published.Status.Conditions, v1alpha1.ConditionReady) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("node %s does not become ready: %v", n.name, err)
		}
	}
}

// setupMutex: the metrics of the operator are those of the whole process.
var setupMutex sync.Mutex

func (e *environment) newOperator(number int) *process {
	p := &process{role: "operator"}
	if number > 0 {
		p.role = "other operator"
	}
	p.options = func(o *ctrl.Options) { checkpoint.CacheOptions([]string{e.namespace}, &o.Cache) }
	p.setup = func(ctx context.Context, m ctrl.Manager, events *kube.Events, _ *life) error {
		setupMutex.Lock()
		defer setupMutex.Unlock()
		return checkpoint.Setup(ctx, m, events, &checkpoint.Options{Workers: 1, RetryStart: retryStart, RetryMax: retryMax})
	}
	return p
}

func (e *environment) newAgent(n *testNode, role string) *process {
	o := &node.Options{
		Node: n.name, LocalPath: n.storeDir(), Attempts: attempts, UploadDeadline: time.Hour, ProbeInterval: time.Hour,
		Workers: 1, RetryStart: retryStart, RetryMax: retryMax,
	}
	p := &process{role: role}
	p.options = func(into *ctrl.Options) { node.CacheOptions(o, &into.Cache) }
	p.setup = func(ctx context.Context, m ctrl.Manager, events *kube.Events, l *life) error {
		n.fake.SetHook(l.hook)
		engine := n.fake.Engine()
		if e.scenario.onDisk {
			engine = onDisk{engine}
		}
		of := *o
		of.Engines = []enginePort.Engine{engine}
		stores := e.stores(n)
		stores.Wrap = func(s store.Store) store.Store { return &sweptStore{s, l} }
		return node.Setup(ctx, m, events, stores, &of)
	}
	return p
}

// stores are those of a node; for the checks, without points.
func (e *environment) stores(n *testNode) node.Stores {
	return node.Stores{Secrets: e.api, Node: n.name, LocalPath: n.storeDir(), Egress: egress.Policy{AllowEndpoints: []string{"127.0.0.1"}}}
}

// newClient returns the client of a manager. Its processes see only the nodes of their own
// environment: those of others are not in the same cluster, as it were.
func (e *environment) newClient(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.New(config, options)
	return &nodeFilter{c, e.namespace}, err
}

type nodeFilter struct {
	client.Client
	prefix string
}

func (f *nodeFilter) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	err := f.Client.List(ctx, list, options...)
	nodes, ok := list.(*v1alpha1.CheckpointNodeList)
	if err != nil || !ok {
		return err
	}
	var own []v1alpha1.CheckpointNode
	for i := range nodes.Items {
		if strings.HasPrefix(nodes.Items[i].Name, f.prefix+"-") {
			own = append(own, nodes.Items[i])
		}
	}
	nodes.Items = own
	return nil
}

// start prepares a run.
func (e *environment) start(r *run, s injection) {
	e.mu.Lock()
	e.run, e.freezes, e.failures = r, map[types.UID]int32{}, maps.Clone(e.scenario.failures)
	e.damages = e.scenario.damages
	e.mu.Unlock()
	e.events.Store(0)
	e.trace.start(s)
}

// disrupt runs the scenario's disruption.
func (e *environment) disrupt() {
	e.mu.Lock()
	r := e.run
	e.mu.Unlock()
	e.trace.note("%s", e.scenario.disruptionName)
	r.do(func() { e.scenario.disruption(context.Background(), r) })
}

// staysAway reports whether a process has no successor for now.
func (e *environment) staysAway(p *process) bool {
	e.mu.Lock()
	r := e.run
	e.mu.Unlock()
	return r.isAway(p)
}

// failure returns the scenario's failure of a call that has not come yet.
func (e *environment) failure(what string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.failures[what]
	delete(e.failures, what)
	if err != nil {
		e.trace.note("%s fails: %v", what, err)
	}
	return err
}

// damaged returns what a store keeps of what is written to it.
func (e *environment) damaged(b []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.damages || len(b) == 0 {
		return b
	}
	e.damages = false
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func (e *environment) countFreeze(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.freezes != nil {
		e.freezes[types.UID(id)]++
	}
}

// deletePod deletes a pod at once.
func (e *environment) deletePod(ctx context.Context, name string) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: name}}
	return client.IgnoreNotFound(e.api.Delete(ctx, pod, client.GracePeriodSeconds(0)))
}

// createPod creates a pod with running containers on the first node.
func (e *environment) createPod(ctx context.Context, name string) (*corev1.Pod, error) {
	n := e.nodes[0]
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: name},
		Spec:       corev1.PodSpec{NodeName: n.name},
	}
	for i := range max(e.scenario.containers, 1) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: "counter"})
	}
	if err := e.api.Create(ctx, pod); err != nil {
		return nil, err
	}
	pod.Status.Phase = corev1.PodRunning
	for _, c := range pod.Spec.Containers {
		started, err := n.fake.StartContainer(enginePort.Container{Namespace: e.namespace, Pod: name, PodUID: string(pod.UID), Name: c.Name})
		if err != nil {
			return nil, err
		}
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, ContainerID: "fake://" + started.ID, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	return pod, e.api.Status().Update(ctx, pod)
}

// stopContainers ends the containers of a pod.
func (e *environment) stopContainers(pod *corev1.Pod) error {
	var errs []error
	for _, c := range containersOf(pod) {
		if err := e.nodes[0].fake.Stop(c); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func containersOf(pod *corev1.Pod) []enginePort.Container {
	var all []enginePort.Container
	for _, s := range pod.Status.ContainerStatuses {
		all = append(all, enginePort.Container{
			Namespace: pod.Namespace, Pod: pod.Name, PodUID: string(pod.UID), Name: s.Name, ID: strings.TrimPrefix(s.ContainerID, "fake://"),
		})
	}
	return all
}

// takeNodeAway takes the first node away: its agent, its Node and what the agent has published.
func (e *environment) takeNodeAway(ctx context.Context) error {
	n := e.nodes[0]
	n.agent.hold()
	var errs []error
	for _, o := range []client.Object{&corev1.Node{}, &v1alpha1.CheckpointNode{}} {
		o.SetName(n.name)
		errs = append(errs, client.IgnoreNotFound(e.api.Delete(ctx, o)))
	}
	return errors.Join(errs...)
}

// restoreNode brings a new node with the name of the one that was lost.
func (e *environment) restoreNode(ctx context.Context, t *testing.T) {
	t.Helper()
	n := e.nodes[0]
	for _, dir := range []string{filepath.Join(n.dir, "node"), n.storeDir()} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.api.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	n.agent.release()
	e.waitReady(ctx, t, n)
}

// scopeOf returns the scope of a kind, as the API server would.
func scopeOf(kind string) meta.RESTScope {
	switch strings.TrimSuffix(kind, "List") {
	case "Namespace", "Node", "CheckpointPolicy", "CheckpointNode":
		return meta.RESTScopeRoot
	default:
		return meta.RESTScopeNamespace
	}
}
