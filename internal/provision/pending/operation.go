package pending

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// compressFrom is the size in bytes from which the record of an operation is
// compressed. Most are smaller and stay readable. The topology of a large cluster is
// larger, and annotations are limited to 256 KiB.
//
// maxDecompressed bounds what a record may have when it is decompressed: ten times that of
// a cluster with ten thousand nodes.
const (
	compressFrom    = 16 << 10
	maxDecompressed = 8 << 20
	gzipPrefix      = "gzip:"
)

// An Operation is a CreateVolume call that may have been made, with everything that
// is needed to repeat the call and to create the PersistentVolume.
type Operation struct {
	// Request is the call without its secrets.
	Request *csipb.CreateVolumeRequest
	// Secret names the secret of the call, nil for none.
	Secret *corev1.SecretReference
	// Volume is the PersistentVolume without what the driver's response adds: handle,
	// capacity, attributes, node affinity.
	Volume *corev1.PersistentVolume
	// Source is what the volume is filled from, nil for nothing.
	Source *source.Source
	// Node is the only node whose driver may be called, "" for any.
	Node string
	// Record and UID are those of the Lease, once it is written.
	Record types.NamespacedName
	UID    types.UID
	// Since is when the operation was recorded.
	Since time.Time
	// Handle is that of the volume that the driver has created, "" if unknown.
	Handle string
	// FailingSince is since when all calls have failed with a code that does not leave
	// the outcome of that call open. It is zero if the last call did not fail so.
	FailingSince time.Time

	// FirstAttempt is whether the driver has not been called yet: this very attempt has
	// recorded the operation. It is not recorded.
	FirstAttempt bool
	// SourceHeldByClaim is whether the source is being deleted and stays because the
	// claim, which is older than the deletion, waits for a volume from it. It is not
	// recorded.
	SourceHeldByClaim bool
	// SecretValues are those of the secret, once it is read. They are not recorded.
	SecretValues map[string]string
}

// Claim returns the key of the claim that the volume is for.
func (op *Operation) Claim() types.NamespacedName {
	return types.NamespacedName{Namespace: op.Volume.Spec.ClaimRef.Namespace, Name: op.Volume.Spec.ClaimRef.Name}
}

// ClaimUID returns the UID of that claim.
func (op *Operation) ClaimUID() types.UID { return op.Volume.Spec.ClaimRef.UID }

// Lease returns the identity of the operation's Lease, for events about it.
func (op *Operation) Lease() *coordinationv1.Lease {
	return identityOf(op.Record.Namespace, op.Record.Name, op.UID)
}

func identityOf(namespace, name string, uid types.UID) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
}

// record is the JSON form of an operation in its Lease.
type record struct {
	Request json.RawMessage          `json:"request"`
	Secret  *corev1.SecretReference  `json:"secret,omitempty"`
	Volume  *corev1.PersistentVolume `json:"volume"`
	Source  *source.Source           `json:"source,omitempty"`
}

func (op *Operation) encode() (string, error) {
	request, err := protojson.Marshal(op.Request)
	if err != nil {
		return "", fmt.Errorf("encoding the request: %w", err)
	}
	text, err := json.Marshal(record{Request: request, Secret: op.Secret, Volume: op.Volume, Source: op.Source})
	if err != nil {
		return "", fmt.Errorf("encoding the operation: %w", err)
	}
	if len(text) < compressFrom {
		return string(text), nil
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return "", fmt.Errorf("compressing the operation: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("compressing the operation: %w", err)
	}
	return gzipPrefix + base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}

// decode reads the operation of a driver from its Lease. The error is an [InvalidError] if
// the Lease records none, and errOtherDriver if it is another driver's.
func decode(lease *coordinationv1.Lease, driver string) (*Operation, error) {
	text, err := decompress(lease.Annotations[operationAnnotation])
	if err != nil {
		return nil, invalid(lease, "%v", err)
	}
	var w record
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, invalid(lease, "%v", err)
	}
	op := &Operation{
		Request: &csipb.CreateVolumeRequest{}, Secret: w.Secret, Volume: w.Volume, Source: w.Source,
		Node: lease.Annotations[nodeAnnotation], Record: client.ObjectKeyFromObject(lease), UID: lease.UID,
		Since:  ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time,
		Handle: lease.Annotations[handleAnnotation], FailingSince: failingSince(lease),
	}
	if err := protojson.Unmarshal(w.Request, op.Request); err != nil {
		return nil, invalid(lease, "its request cannot be read: %v", err)
	}
	if op.Volume == nil || op.Volume.Spec.ClaimRef == nil || op.Volume.Spec.CSI == nil {
		return nil, invalid(lease, "it lacks the volume")
	}
	return op, op.validate(lease, driver)
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
	all, err := io.ReadAll(io.LimitReader(r, maxDecompressed+1))
	if err == nil && len(all) > maxDecompressed {
		err = fmt.Errorf("it has more than %d bytes", maxDecompressed)
	}
	return all, err
}
