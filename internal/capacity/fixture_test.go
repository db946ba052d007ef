package capacity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

const driverName = "csitest.holdfast.io"

// options of a driver whose classes have another provisioner name.
func options() *Options {
	return &Options{
		Enabled: true, Driver: driverName, Provisioner: "storage.example.com/csi", Namespace: "ns", Pod: "driver-0",
		PollInterval: time.Minute, OwnerLevel: -1, Workers: 1, RetryStart: time.Second, RetryMax: time.Hour,
	}
}

// class is a class whose capacity is published.
func class(name string) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: name},
		Provisioner:       "storage.example.com/csi",
		Parameters:        map[string]string{"pool": name},
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}
}

// node is a node in a zone, with its CSINode.
func node(name, zone string) []client.Object {
	return []client.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": zone, "host": name}}},
		&storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: "other.example.com", TopologyKeys: []string{"host"}}, {Name: driverName, TopologyKeys: []string{"zone"}},
			}},
		},
	}
}

// object is the published object of a class in a zone.
func object(name, class, zone string, bytes int64) *storagev1.CSIStorageCapacity {
	s := &state{pair: pair{class, "zone=" + zone}, segment: map[string]string{"zone": zone}, response: capacityResponse(bytes, 0)}
	o := options().object(s)
	o.Name, o.UID, o.ResourceVersion = name, types.UID("uid of "+name), "1"
	return o
}

// capacityResponse is a response to GetCapacity.
func capacityResponse(bytes, largest int64) *csipb.GetCapacityResponse {
	answer := &csipb.GetCapacityResponse{AvailableCapacity: bytes}
	if largest > 0 {
		answer.MaximumVolumeSize = wrapperspb.Int64(largest)
	}
	return answer
}

// A fixture is a Reconciler with a fake cache, API server and driver.
type fixture struct {
	*Reconciler
	*memory
	requests  []*csipb.GetCapacityRequest
	freeBytes int64 // of each segment
	err       error
}

func newFixture(objects ...client.Object) *fixture {
	w := &fixture{memory: &memory{stored: map[string]client.Object{}, byPair: map[string][]string{}, lists: map[string]int{}}, freeBytes: 100}
	w.Reconciler = &Reconciler{
		client: w.memory, apiReader: w.memory, writer: w.memory, options: options(), log: logr.Discard(), now: time.Now,
		segments:       &segmentCache{client: w.memory, driver: driverName},
		hasGetCapacity: func() bool { return true },
		getCapacity: func(_ context.Context, q *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
			w.requests = append(w.requests, q)
			return capacityResponse(w.freeBytes, 0), w.err
		},
	}
	for _, o := range objects {
		w.put(o)
	}
	return w
}

// published are the existing objects, as class, zone and capacity.
func (w *fixture) published() []string {
	var all []string
	for _, o := range w.stored {
		if o, ok := o.(*storagev1.CSIStorageCapacity); ok {
			all = append(all, fmt.Sprintf("%s %s", pairOf(o), o.Capacity))
		}
	}
	slices.Sort(all)
	return all
}

// sendEvent sends an event through the watches of the object's kind. before is nil
// if the object is created, after if it is deleted.
func (w *fixture) sendEvent(t *testing.T, q queue, before, after client.Object) {
	t.Helper()
	subject := after
	if after == nil {
		subject = before
	}
	for _, watch := range w.watches() {
		if reflect.TypeOf(watch.object) != reflect.TypeOf(subject) {
			continue
		}
		switch {
		case before == nil:
			if e := (event.CreateEvent{Object: after}); watch.predicate.Create(e) {
				watch.handler.Create(t.Context(), e, q)
			}
		case after == nil:
			if e := (event.DeleteEvent{Object: before}); watch.predicate.Delete(e) {
				watch.handler.Delete(t.Context(), e, q)
			}
		default:
			if e := (event.UpdateEvent{ObjectOld: before, ObjectNew: after}); watch.predicate.Update(e) {
				watch.handler.Update(t.Context(), e, q)
			}
		}
	}
}

// change stores or deletes an object and sends the event.
func (w *fixture) change(t *testing.T, q queue, before, after client.Object) {
	t.Helper()
	if after != nil {
		w.put(after)
	} else {
		w.remove(before)
	}
	w.sendEvent(t, q, before, after)
}

// memory is both the cache and the API server.
type memory struct {
	mu      sync.Mutex
	stored  map[string]client.Object
	byPair  map[string][]string // keys of objects
	lists   map[string]int      // number of lists by kind
	writes  []string
	created int
}

func key(o client.Object, name string) string { return fmt.Sprintf("%T %s", o, name) }

func (m *memory) put(o client.Object) {
	k := key(o, o.GetName())
	m.stored[k] = o
	if o, ok := o.(*storagev1.CSIStorageCapacity); ok && !slices.Contains(m.byPair[pairOf(o).String()], k) {
		m.byPair[pairOf(o).String()] = append(m.byPair[pairOf(o).String()], k)
	}
}

func (m *memory) remove(o client.Object) {
	k := key(o, o.GetName())
	delete(m.stored, k)
	for p := range m.byPair {
		m.byPair[p] = slices.DeleteFunc(m.byPair[p], func(other string) bool { return other == k })
	}
}

func (m *memory) Get(_ context.Context, name client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.stored[key(into, name.Name)]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, name.Name)
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(found.DeepCopyObject()).Elem())
	return nil
}

func (m *memory) List(_ context.Context, into client.ObjectList, given ...client.ListOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kind := strings.TrimSuffix(fmt.Sprintf("%T", into), "List")
	m.lists[kind]++
	var o client.ListOptions
	o.ApplyOptions(given)
	var found []runtime.Object
	if o.FieldSelector != nil {
		p, _ := o.FieldSelector.RequiresExactMatch(objectsByPair)
		for _, k := range m.byPair[p] {
			found = append(found, m.stored[k])
		}
		return meta.SetList(into, found)
	}
	for _, k := range slices.Sorted(maps.Keys(m.stored)) {
		if strings.HasPrefix(k, kind+" ") {
			found = append(found, m.stored[k])
		}
	}
	return meta.SetList(into, found)
}

func (m *memory) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.stored[key(o, o.GetName())]; taken {
		return apierrors.NewAlreadyExists(schema.GroupResource{}, o.GetName())
	}
	if m.created++; o.GetName() == "" {
		o.SetName(fmt.Sprint(o.GetGenerateName(), m.created))
	}
	m.writes = append(m.writes, "create")
	m.put(o)
	return nil
}

func (m *memory) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.PatchOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, ok := m.stored[key(o, o.GetName())]
	if !ok || there.GetResourceVersion() != o.GetResourceVersion() {
		return apierrors.NewConflict(schema.GroupResource{}, o.GetName(), errors.New("the object has changed"))
	}
	m.writes = append(m.writes, "update "+o.GetName())
	m.put(o)
	return nil
}

func (m *memory) Delete(_ context.Context, o client.Object, _ ...client.DeleteOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes = append(m.writes, "delete "+o.GetName())
	m.remove(o)
	return nil
}

func (m *memory) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return errors.New("Apply is not used")
}

func (m *memory) Update(context.Context, client.Object, ...client.UpdateOption) error {
	return errors.New("Update is not used")
}

func (m *memory) DeleteAllOf(context.Context, client.Object, ...client.DeleteAllOfOption) error {
	return errors.New("DeleteAllOf is not used")
}
