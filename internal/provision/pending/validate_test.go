package pending

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"runtime"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

const victim = "99999999-8888-7777-6666-555555555555"

func TestALeaseThatNoProvisionerHasWrittenIsNotCarriedOut(t *testing.T) {
	tests := map[string]struct {
		change func(*Operation)
		says   string // "" if it is carried out
	}{
		"as it was written":                      {func(*Operation) {}, ""},
		"with the UID without dashes":            {func(op *Operation) { rename(op, "csi-"+strings.ReplaceAll(uid, "-", "")) }, ""},
		"with a part of the UID":                 {func(op *Operation) { rename(op, "team-a-11111111") }, ""},
		"the volume of another claim":            {func(op *Operation) { rename(op, "pvc-"+victim) }, "not made from the UID"},
		"the volume of another claim, shortened": {func(op *Operation) { rename(op, "pvc-99999999") }, "not made from the UID"},
		"a name without an end":                  {func(op *Operation) { rename(op, "pvc-") }, "not made from the UID"},
		"another name for the driver":            {func(op *Operation) { op.Request.Name = "pvc-" + victim }, "requests volume"},
		"a claim with another UID":               {func(op *Operation) { op.Volume.Spec.ClaimRef.UID = victim; rename(op, "pvc-"+victim) }, "for the claim with UID"},
		"a claim without a UID":                  {func(op *Operation) { op.Volume.Spec.ClaimRef.UID = ""; rename(op, "pvc-") }, "for the claim with UID"},
		"a negative size":                        {func(op *Operation) { op.Request.CapacityRange = &csipb.CapacityRange{RequiredBytes: -1} }, "size"},
		"a negative limit":                       {func(op *Operation) { op.Request.CapacityRange = &csipb.CapacityRange{LimitBytes: -1} }, "size"},
		"secrets in the request":                 {func(op *Operation) { op.Request.Secrets = map[string]string{"a": "b"} }, "secrets"},
		"the handle of a volume":                 {func(op *Operation) { op.Volume.Spec.CSI.VolumeHandle = "vol-1" }, "handle"},
		"another driver":                         {func(op *Operation) { op.Volume.Spec.CSI.Driver = "csitest-holdfast-io" }, "of driver csitest-holdfast-io"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			op := operation()
			tt.change(op)
			text, err := op.encode()
			if err != nil {
				t.Fatal(err)
			}
			_, err = decode(lease(text), driver)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// The names of such an operation end with the UID of its claim, which is empty.
func TestALeaseForAClaimWithoutUIDIsNotCarriedOut(t *testing.T) {
	op := operation()
	op.Volume.Spec.ClaimRef.UID = ""
	rename(op, "pvc-")
	text, err := op.encode()
	if err != nil {
		t.Fatal(err)
	}
	forged := lease(text)
	forged.Name = LeaseName("")
	var bad *InvalidError
	if _, err := decode(forged, driver); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
}

func rename(op *Operation, name string) { op.Request.Name, op.Volume.Name = name, name }

func TestTheAnnotationsOfALeaseAreThoseOfItsOperation(t *testing.T) {
	text, err := operation().encode()
	if err != nil {
		t.Fatal(err)
	}
	for annotation, value := range map[string]string{claimAnnotation: "team/other", volumeAnnotation: "pvc-" + victim} {
		forged := lease(text)
		forged.Annotations[annotation] = value
		var bad *InvalidError
		if _, err := decode(forged, driver); !errors.As(err, &bad) || !strings.Contains(err.Error(), annotation) {
			t.Errorf("with another %s: %v", annotation, err)
		}
	}
}

// The size of a claim does not change while it waits.
func TestAnOperationHasTheSizeOfItsClaim(t *testing.T) {
	claim := func(storage, volume string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "data", UID: uid}, Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName: volume, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(storage)}},
		}}
	}
	tests := map[string]struct {
		claim *corev1.PersistentVolumeClaim
		bad   bool
	}{
		"the size of the claim":                    {claim("1Gi", ""), false},
		"another size":                             {claim("2Gi", ""), true},
		"a claim that has a volume and has grown":  {claim("2Gi", "pvc-"+uid), false},
		"no claim":                                 {nil, false},
		"another claim of the name":                {func() *corev1.PersistentVolumeClaim { c := claim("2Gi", ""); c.UID = victim; return c }(), false},
		"a claim of which the cache keeps no size": {func() *corev1.PersistentVolumeClaim { c := claim("2Gi", ""); c.Spec.Resources.Requests = nil; return c }(), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			op := operation()
			if err := op.validateFor(tt.claim); (err != nil) != tt.bad {
				t.Errorf("got %v", err)
			}
			if found, err := storeWith(t, op).Find(t.Context(), op.Claim(), tt.claim); (err != nil) != tt.bad || (found == nil) != tt.bad {
				t.Errorf("found %+v, %v", found, err)
			}
		})
	}
}

func TestACompressedRecordIsBounded(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	for range 200 { // 200 MiB in 200 KiB.
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bomb := gzipPrefix + base64.StdEncoding.EncodeToString(packed.Bytes())
	var bad *InvalidError
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := decode(lease(bomb), driver); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if limit := uint64(8 * maxDecompressed); allocated > limit {
		t.Errorf("reading it allocates %d bytes, want at most %d", allocated, limit)
	}
}

// a.b and a-b had the same label.
func TestDriversWithSimilarNamesHaveDifferentOperations(t *testing.T) {
	const dots, dashes = "a.b", "a-b"
	op := operation()
	label := func(driver string) labels.Set { return NewStore(Options{Driver: driver}).leaseLabels(op) }
	for name, tt := range map[string]struct {
		reader string
		set    labels.Set
		want   bool
	}{
		"its own":                               {dots, label(dots), true},
		"its own, of an earlier version":        {dots, labels.Set{DriverLabel: csi.SafeName(dots)}, true},
		"the other driver does not see its own": {dashes, label(dots), false},
	} {
		if got := OwnSelector(tt.reader, "").Matches(tt.set); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	of := source.Source{Kind: source.KindSnapshot, Namespace: "team", Name: "s"}
	earlier := labels.Set{DriverLabel: csi.SafeName(dots), sourceLabel: of.Hash()}
	if o := (&client.ListOptions{}); !applied(Readers(dots, of), o).LabelSelector.Matches(earlier) {
		t.Error("a reader of an earlier version does not protect its source")
	}
}

func applied(o client.ListOption, to *client.ListOptions) *client.ListOptions {
	o.ApplyToList(to)
	return to
}

// storeWith returns the store of a driver in a namespace with these operations.
func storeWith(t *testing.T, all ...*Operation) *Store {
	t.Helper()
	var objects []client.Object
	for _, op := range all {
		text, err := op.encode()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: LeaseName(op.ClaimUID()), Annotations: map[string]string{operationAnnotation: text, claimAnnotation: "team/data"},
		}})
	}
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...).
		WithIndex(&coordinationv1.Lease{}, byClaim, func(o client.Object) []string { return []string{o.GetAnnotations()[claimAnnotation]} }).Build()
	return NewStore(Options{Client: c, APIReader: c, Namespace: "ns", Driver: driver})
}

func TestFindSkipsTheOperationsOfOtherDrivers(t *testing.T) {
	theirs := operation()
	theirs.Volume.Spec.CSI.Driver, theirs.Volume.Spec.ClaimRef.UID = "csitest-holdfast-io", victim
	rename(theirs, "pvc-"+victim)
	s := storeWith(t, theirs, operation())
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "data", UID: uid}}
	op, err := s.Find(t.Context(), client.ObjectKeyFromObject(claim), claim) // The claim's own operation is the last one.
	if err != nil || op == nil || op.ClaimUID() != uid {
		t.Errorf("got %+v, %v", op, err)
	}
	if _, err := s.Read(t.Context(), victim); !errors.Is(err, errOtherDriver) {
		t.Errorf("reading the other driver's: %v", err)
	}
}
