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
	// IntentLabel marks the Leases that are intents of this package; its value
	// is the driver's name made safe, so that drivers can share a namespace.
	IntentLabel = "provision.holdfast.io/driver"
	// intentAnnotation holds the intent.
	intentAnnotation = "provision.holdfast.io/intent"
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
	// refusedAnnotation is since when the driver has refused the request of an intent,
	// without an answer that leaves its outcome open in between.
	refusedAnnotation = "provision.holdfast.io/refused-since"
	// touchAnnotation on a snapshot names the last intent that has protected it.
	touchAnnotation = "provision.holdfast.io/protected-for"
)

// An intent is a CreateVolume call that may have been made, with everything
// that it takes to repeat it and to publish its result.
type intent struct {
	// request is the whole call but for its secrets.
	request *csipb.CreateVolumeRequest
	// secret names the secret of the call, if it has one.
	secret *corev1.SecretReference
	// volume is what will be published, but for what only the driver's answer
	// tells: handle, capacity, attributes, node affinity.
	volume *corev1.PersistentVolume
	// source is what the volume is filled from, nil for nothing.
	source *source
	// node is the only one whose driver may be asked; "" for any.
	node string
	// record is the Lease that it is written in, once it is.
	record types.NamespacedName
	uid    types.UID // of the Lease
	since  time.Time // it has been on record
	// handle is the id of a volume that the driver has made for it; "" for none known.
	handle string
	// refused is since when the driver has refused the request; zero if it has not.
	refused time.Time
	// first says that the driver has not been asked before: the intent was put on
	// record by this very attempt. It is never on record.
	first bool
	// keptByClaim says that the source is being deleted and stays because the claim,
	// which is older than that, waits for a volume from it.
	keptByClaim bool
	// values are those of the secret, once it is read. They are never on record.
	values map[string]string
}

// claim is the key of the claim that the intent serves.
func (i *intent) claim() types.NamespacedName {
	return types.NamespacedName{Namespace: i.volume.Spec.ClaimRef.Namespace, Name: i.volume.Spec.ClaimRef.Name}
}

func (i *intent) claimUID() types.UID { return i.volume.Spec.ClaimRef.UID }

// lease is the record of the intent, for events about it.
func (i *intent) lease() *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: i.record.Namespace, Name: i.record.Name, UID: i.uid}}
}

// intentName is the name of the Lease for a claim.
func intentName(claim types.UID) string { return "provision-" + string(claim) }

// written is the form of an intent in its Lease.
type written struct {
	Request json.RawMessage          `json:"request"`
	Secret  *corev1.SecretReference  `json:"secret,omitempty"`
	Volume  *corev1.PersistentVolume `json:"volume"`
	Source  *source                  `json:"source,omitempty"`
}

func (i *intent) encode() (string, error) {
	request, err := protojson.Marshal(i.request)
	if err != nil {
		return "", fmt.Errorf("encoding the request: %w", err)
	}
	text, err := json.Marshal(written{Request: request, Secret: i.secret, Volume: i.volume, Source: i.source})
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

func decodeIntent(lease *coordinationv1.Lease) (*intent, error) {
	text, err := unpack(lease.Annotations[intentAnnotation])
	if err != nil {
		return nil, fmt.Errorf("reading Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	var w written
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("reading Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	i := &intent{
		request: &csipb.CreateVolumeRequest{}, secret: w.Secret, volume: w.Volume, source: w.Source,
		node: lease.Annotations[nodeAnnotation], record: client.ObjectKeyFromObject(lease), uid: lease.UID,
		since:  ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time,
		handle: lease.Annotations[handleAnnotation], refused: refusedSince(lease),
	}
	if err := protojson.Unmarshal(w.Request, i.request); err != nil {
		return nil, fmt.Errorf("reading the request in Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	if i.volume == nil || i.volume.Spec.ClaimRef == nil || i.volume.Spec.CSI == nil {
		return nil, fmt.Errorf("reading Lease %s/%s: it lacks the volume", lease.Namespace, lease.Name)
	}
	return i, nil
}

func unpack(text string) ([]byte, error) {
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

// A journal keeps the intents of one driver.
type journal struct {
	client    client.Client
	live      client.Reader // past the cache
	namespace string
	driver    string
	node      string // whose driver is asked; "" for any
	// holder names this process.
	holder string
	// working are the claims whose intents are being recorded and carried out
	// right now, and erased the Leases that the cache may still show: neither
	// need wake anybody up. Both only save work. What ends before its intent is
	// off the record is tried again, or woken up by it.
	working, erased sync.Map
}

// begin says that this process is at work on a claim's intent until end.
func (j *journal) begin(claim types.UID) (end func()) {
	j.working.Store(intentName(claim), true)
	return func() { j.working.Delete(intentName(claim)) }
}

// news tells whether a Lease that the cache shows is one to do something about.
func (j *journal) news(lease client.Object) bool {
	_, working := j.working.Load(lease.GetName())
	return !working && !j.isErased(lease)
}

func (j *journal) isErased(lease client.Object) bool {
	_, erased := j.erased.Load(lease.GetUID())
	return erased
}

// labels of an intent's Lease.
func (j *journal) labels(i *intent) map[string]string {
	all := map[string]string{IntentLabel: csi.SafeName(j.driver)}
	if j.node != "" {
		all[NodeLabel] = nodeValue(j.node)
	}
	if i.source != nil {
		all[sourceLabel] = i.source.hash()
	}
	return all
}

func nodeValue(node string) string { return kube.NodeLabelValue("node", node) }

// ownIntents select the intents that a process carries out: those of its node,
// or of no node. The driver of another node would make a second volume.
func ownIntents(driver, node string) labels.Selector {
	own := labels.SelectorFromSet(labels.Set{IntentLabel: csi.SafeName(driver)})
	operator, values := selection.DoesNotExist, []string(nil)
	if node != "" {
		operator, values = selection.Equals, []string{nodeValue(node)}
	}
	of, err := labels.NewRequirement(NodeLabel, operator, values)
	if err != nil {
		panic(err) // The key is a constant, and the value is made to be one.
	}
	return own.Add(*of)
}

// write puts an intent on record and returns the one that is: if another
// process was first, that one's stands, for the driver may have been asked. It
// may be another node's: there is one name for each claim.
func (j *journal) write(ctx context.Context, i *intent) (recorded *intent, fresh bool, err error) {
	text, err := i.encode()
	if err != nil {
		return nil, false, err
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: j.namespace, Name: intentName(i.claimUID()), Labels: j.labels(i),
			Annotations: map[string]string{intentAnnotation: text, claimAnnotation: i.claim().String(), volumeAnnotation: i.volume.Name},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &j.holder, AcquireTime: &metav1.MicroTime{Time: time.Now()}},
	}
	if i.source != nil {
		lease.Annotations[sourceAnnotation] = i.source.key()
	}
	if j.node != "" {
		lease.Annotations[nodeAnnotation] = j.node
	}
	i.annotate(lease)
	err = j.client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		recorded, err = j.read(ctx, i.claimUID())
		return recorded, false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("recording the intent to create volume %s: %w", i.request.GetName(), err)
	}
	i.record, i.uid, i.since, i.node, i.first = client.ObjectKeyFromObject(lease), lease.UID, lease.Spec.AcquireTime.Time, j.node, true
	return i, true, nil
}

// read gets an intent from the API server itself.
func (j *journal) read(ctx context.Context, claim types.UID) (*intent, error) {
	lease := &coordinationv1.Lease{}
	if err := j.live.Get(ctx, types.NamespacedName{Namespace: j.namespace, Name: intentName(claim)}, lease); err != nil {
		return nil, fmt.Errorf("reading the intent of claim %s: %w", claim, err)
	}
	return decodeIntent(lease)
}

// erase takes an intent off the record; one that is gone, or was put on record
// anew since, is a success.
func (j *journal) erase(ctx context.Context, i *intent) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: i.record.Namespace, Name: i.record.Name}}
	j.erased.Store(i.uid, true) // Before the cache can show that it is gone.
	err := j.client.Delete(ctx, lease, client.Preconditions{UID: &i.uid})
	if apierrors.IsConflict(err) && !j.still(ctx, i) {
		err = nil
	}
	if client.IgnoreNotFound(err) != nil {
		j.erased.Delete(i.uid)
		return fmt.Errorf("erasing the intent to create volume %s: %w", i.request.GetName(), err)
	}
	return nil
}

// still tells whether an intent may still be on record: a conflict can mean other
// things than that another one has its name.
func (j *journal) still(ctx context.Context, i *intent) bool {
	lease := &coordinationv1.Lease{}
	err := j.live.Get(ctx, i.record, lease)
	return err == nil && lease.UID == i.uid || client.IgnoreNotFound(err) != nil
}
