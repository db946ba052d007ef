package provision

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// DriverLabel marks the Leases that are intents of this package; its value
	// is the driver's name made safe, so that drivers can share a namespace.
	DriverLabel = "provision.holdfast.io/driver"
	// operationAnnotation holds the intent.
	operationAnnotation = "provision.holdfast.io/intent"
	// claimAnnotation and sourceAnnotation say whom the intent serves and what it
	// reads, NAMESPACE/NAME and KIND/NAMESPACE/NAME. Indexes and handlers look at
	// every intent, several times, and need not take it apart for that.
	claimAnnotation  = "provision.holdfast.io/claim"
	sourceAnnotation = "provision.holdfast.io/source"
	// volumeAnnotation is the volume's name.
	volumeAnnotation = "provision.holdfast.io/volume"
	// compressFrom is the size in bytes from which an intent is compressed. Most
	// are smaller and stay readable; the topology of a large cluster is not, and
	// annotations are limited to 256 KiB.
	compressFrom = 16 << 10
	gzipPrefix   = "gzip:"

	// NodeLabel marks an intent as one of a node's own provisioner, so that only
	// that one sees it; the annotation has the node's whole name.
	NodeLabel      = "provision.holdfast.io/node"
	nodeAnnotation = NodeLabel
	// sourceLabel finds the intents that read a source, on whichever node.
	sourceLabel = "provision.holdfast.io/source-hash"
	// handleAnnotation is the id of a volume that the driver has made for the intent
	// and that could not be published yet.
	handleAnnotation = "provision.holdfast.io/volume-handle"
	// failingSinceAnnotation is since when the driver has refused the request of an intent,
	// without an answer that leaves its outcome open in between.
	failingSinceAnnotation = "provision.holdfast.io/refused-since"
	// protectedForAnnotation on a snapshot names the last intent that has protected it.
	protectedForAnnotation = "provision.holdfast.io/protected-for"
)

// An Operation is a CreateVolume call that may have been made, with everything
// that it takes to repeat it and to publish its result.
type Operation struct {
	// Request is the whole call but for its secrets.
	Request *csipb.CreateVolumeRequest
	// Secret names the secret of the call, if it has one.
	Secret *corev1.SecretReference
	// Volume is what will be published, but for what only the driver's answer
	// tells: handle, capacity, attributes, node affinity.
	Volume *corev1.PersistentVolume
	// Source is what the volume is filled from, nil for nothing.
	Source *Source
	// Node is the only one whose driver may be asked; "" for any.
	Node string
	// Record is the Lease that it is written in, once it is.
	Record types.NamespacedName
	UID    types.UID // of the Lease
	Since  time.Time // it has been on record
	// Handle is the id of a volume that the driver has made for it; "" for none known.
	Handle string
	// FailingSince is since when the driver has refused the request; zero if it has not.
	FailingSince time.Time
	// FirstAttempt says that the driver has not been asked before: the intent was put on
	// record by this very attempt. It is never on record.
	FirstAttempt bool
	// SourceHeldByClaim says that the source is being deleted and stays because the claim,
	// which is older than that, waits for a volume from it.
	SourceHeldByClaim bool
	// SecretValues are those of the secret, once it is read. They are never on record.
	SecretValues map[string]string
}

// Claim is the key of the claim that the intent serves.
func (op *Operation) Claim() types.NamespacedName {
	return types.NamespacedName{Namespace: op.Volume.Spec.ClaimRef.Namespace, Name: op.Volume.Spec.ClaimRef.Name}
}

func (op *Operation) ClaimUID() types.UID { return op.Volume.Spec.ClaimRef.UID }

// Lease is the record of the intent, for events about it.
func (op *Operation) Lease() *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: op.Record.Namespace, Name: op.Record.Name, UID: op.UID}}
}

// LeaseName is the name of the Lease for a claim.
func LeaseName(claim types.UID) string { return "provision-" + string(claim) }

// record is the form of an intent in its Lease.
type record struct {
	Request json.RawMessage          `json:"request"`
	Secret  *corev1.SecretReference  `json:"secret,omitempty"`
	Volume  *corev1.PersistentVolume `json:"volume"`
	Source  *Source                  `json:"source,omitempty"`
}

func (op *Operation) encode() (string, error) {
	request, err := protojson.Marshal(op.Request)
	if err != nil {
		return "", fmt.Errorf("encoding the request: %w", err)
	}
	text, err := json.Marshal(record{Request: request, Secret: op.Secret, Volume: op.Volume, Source: op.Source})
	if err != nil {
		return "", fmt.Errorf("encoding the intent: %w", err)
	}
	if len(text) < compressFrom {
		return string(text), nil
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return "", fmt.Errorf("compressing the intent: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("compressing the intent: %w", err)
	}
	return gzipPrefix + base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}

func decode(lease *coordinationv1.Lease) (*Operation, error) {
	text, err := decompress(lease.Annotations[operationAnnotation])
	if err != nil {
		return nil, fmt.Errorf("reading Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	var w record
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("reading Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	op := &Operation{
		Request: &csipb.CreateVolumeRequest{}, Secret: w.Secret, Volume: w.Volume, Source: w.Source,
		Node: lease.Annotations[nodeAnnotation], Record: client.ObjectKeyFromObject(lease), UID: lease.UID,
		Since:  ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time,
		Handle: lease.Annotations[handleAnnotation], FailingSince: failingSince(lease),
	}
	if err := protojson.Unmarshal(w.Request, op.Request); err != nil {
		return nil, fmt.Errorf("reading the request in Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	if op.Volume == nil || op.Volume.Spec.ClaimRef == nil || op.Volume.Spec.CSI == nil {
		return nil, fmt.Errorf("reading Lease %s/%s: it lacks the volume", lease.Namespace, lease.Name)
	}
	return op, nil
}

func decompress(text string) ([]byte, error) {
	packed, ok := strings.CutPrefix(text, gzipPrefix)
	if !ok {
		return []byte(text), nil
	}
	r, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	return io.ReadAll(r)
}

// A Store keeps the intents of one driver.
type Store struct {
	client    client.Client
	apiReader client.Reader // past the cache
	namespace string
	driver    string
	node      string // whose driver is asked; "" for any
	// identity names this process.
	identity string
	// active are the claims whose intents are being recorded and carried out
	// right now, and erased the Leases that the cache may still show: neither
	// need wake anybody up. Both only save work. What ends before its intent is
	// off the record is tried again, or woken up by it.
	active, deleted sync.Map
}

// Start says that this process is at work on a claim's intent until end.
func (j *Store) Start(claim types.UID) (end func()) {
	j.active.Store(LeaseName(claim), true)
	return func() { j.active.Delete(LeaseName(claim)) }
}

// IsUnattended tells whether a Lease that the cache shows is one to do something about.
func (j *Store) IsUnattended(lease client.Object) bool {
	_, working := j.active.Load(lease.GetName())
	return !working && !j.IsDeleted(lease)
}

func (j *Store) IsDeleted(lease client.Object) bool {
	_, erased := j.deleted.Load(lease.GetUID())
	return erased
}

// labels of an intent's Lease.
func (j *Store) labels(op *Operation) map[string]string {
	all := map[string]string{DriverLabel: csi.SafeName(j.driver)}
	if j.node != "" {
		all[NodeLabel] = nodeLabelValue(j.node)
	}
	if op.Source != nil {
		all[sourceLabel] = op.Source.Hash()
	}
	return all
}

func nodeLabelValue(node string) string { return kube.NodeLabelValue("node", node) }

// OwnSelector select the intents that a process carries out: those of its node,
// or of no node. The driver of another node would make a second volume.
func OwnSelector(driver, node string) labels.Selector {
	own := labels.SelectorFromSet(labels.Set{DriverLabel: csi.SafeName(driver)})
	operator, values := selection.DoesNotExist, []string(nil)
	if node != "" {
		operator, values = selection.Equals, []string{nodeLabelValue(node)}
	}
	of, err := labels.NewRequirement(NodeLabel, operator, values)
	if err != nil {
		panic(err) // The key is a constant, and the value is made to be one.
	}
	return own.Add(*of)
}

// Write puts an intent on record and returns the one that is: if another
// process was first, that one's stands, for the driver may have been asked. It
// may be another node's: there is one name for each claim.
func (j *Store) Write(ctx context.Context, op *Operation) (recorded *Operation, created bool, err error) {
	text, err := op.encode()
	if err != nil {
		return nil, false, err
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: j.namespace, Name: LeaseName(op.ClaimUID()), Labels: j.labels(op),
			Annotations: map[string]string{operationAnnotation: text, claimAnnotation: op.Claim().String(), volumeAnnotation: op.Volume.Name},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &j.identity, AcquireTime: &metav1.MicroTime{Time: time.Now()}},
	}
	if op.Source != nil {
		lease.Annotations[sourceAnnotation] = op.Source.Key()
	}
	if j.node != "" {
		lease.Annotations[nodeAnnotation] = j.node
	}
	op.annotate(lease)
	err = j.client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		recorded, err = j.Read(ctx, op.ClaimUID())
		return recorded, false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("recording the intent to create volume %s: %w", op.Request.GetName(), err)
	}
	op.Record, op.UID, op.Since, op.Node, op.FirstAttempt = client.ObjectKeyFromObject(lease), lease.UID, lease.Spec.AcquireTime.Time, j.node, true
	return op, true, nil
}

// Read gets an intent from the API server itself.
func (j *Store) Read(ctx context.Context, claim types.UID) (*Operation, error) {
	lease := &coordinationv1.Lease{}
	if err := j.apiReader.Get(ctx, types.NamespacedName{Namespace: j.namespace, Name: LeaseName(claim)}, lease); err != nil {
		return nil, fmt.Errorf("reading the intent of claim %s: %w", claim, err)
	}
	return decode(lease)
}

// Delete takes an intent off the record; one that is gone, or was put on record
// anew since, is a success.
func (j *Store) Delete(ctx context.Context, op *Operation) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: op.Record.Namespace, Name: op.Record.Name}}
	j.deleted.Store(op.UID, true) // Before the cache can show that it is gone.
	err := j.client.Delete(ctx, lease, client.Preconditions{UID: &op.UID})
	if apierrors.IsConflict(err) && !j.mayExist(ctx, op) {
		err = nil
	}
	if client.IgnoreNotFound(err) != nil {
		j.deleted.Delete(op.UID)
		return fmt.Errorf("erasing the intent to create volume %s: %w", op.Request.GetName(), err)
	}
	return nil
}

// mayExist tells whether an intent may still be on record: a conflict can mean other
// things than that another one has its name.
func (j *Store) mayExist(ctx context.Context, op *Operation) bool {
	lease := &coordinationv1.Lease{}
	err := j.apiReader.Get(ctx, op.Record, lease)
	return err == nil && lease.UID == op.UID || client.IgnoreNotFound(err) != nil
}
