package capacity

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestObject(t *testing.T) {
	s := &state{
		pair: pair{"fast", "zone=a"}, segment: map[string]string{"zone": "a"}, response: capacityResponse(3<<30, 1<<30),
		owner: &metav1.OwnerReference{Kind: "DaemonSet", Name: "driver"},
	}
	o := options().object(s)
	if want := map[string]string{"csi.storage.k8s.io/drivername": driverName, "csi.storage.k8s.io/managed-by": "external-provisioner"}; !cmp.Equal(want, o.Labels) {
		t.Error(cmp.Diff(want, o.Labels))
	}
	if o.Namespace != "ns" || o.GenerateName != "csisc-" || !strings.HasPrefix(o.Name, "csisc-") {
		t.Errorf("it is %s/%s", o.Namespace, o.Name)
	}
	if diff := cmp.Diff(&metav1.LabelSelector{MatchLabels: map[string]string{"zone": "a"}}, o.NodeTopology); diff != "" {
		t.Error(diff)
	}
	if o.StorageClassName != "fast" || o.Capacity.String() != "3Gi" || o.MaximumVolumeSize.String() != "1Gi" {
		t.Errorf("it says %s, %s, %s", o.StorageClassName, o.Capacity, o.MaximumVolumeSize)
	}
	if diff := cmp.Diff([]metav1.OwnerReference{*s.owner}, o.OwnerReferences); diff != "" {
		t.Error(diff)
	}
	if !options().isOurs(o) {
		t.Error("it is not ours")
	}
}

func TestNamesAreUniquePerDriverClassAndSegment(t *testing.T) {
	name := func(driver, class, segment string) string {
		o := options()
		o.Driver = driver
		return o.object(&state{pair: pair{class, segment}}).Name
	}
	names := map[string]bool{
		name("d", "c", "s"): true, name("e", "c", "s"): true, name("d", "e", "s"): true, name("d", "c", "e"): true, name("d", "cs", ""): true,
	}
	if len(names) != 5 {
		t.Errorf("five objects have the names %v", names)
	}
	if got := name("d", "c", "s"); got != "csisc-475e0fd7076461a5" {
		t.Errorf("objects have the new name %s, which another version would not find", got)
	}
}

func TestPairOf(t *testing.T) {
	in := metav1.LabelSelectorRequirement{Key: "zone", Operator: metav1.LabelSelectorOpIn, Values: []string{"a"}}
	tests := map[string]struct {
		topology *metav1.LabelSelector
		want     string
	}{
		"labels":                   {&metav1.LabelSelector{MatchLabels: map[string]string{"zone": "a", "rack": "1"}}, "rack=1,zone=a"},
		"an empty selector":        {&metav1.LabelSelector{}, ""},
		"no selector":              {nil, "other: <none>"},
		"an expression":            {&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}}, "other: zone in (a)"},
		"an expression and labels": {&metav1.LabelSelector{MatchLabels: map[string]string{"zone": "a"}, MatchExpressions: []metav1.LabelSelectorRequirement{in}}, "other: zone=a,zone in (a)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := pairOf(&storagev1.CSIStorageCapacity{StorageClassName: "fast", NodeTopology: tt.topology})
			if want := (pair{"fast", tt.want}); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A driver may reject parameters that it does not know.
func TestReservedParametersAreNotSentToTheDriver(t *testing.T) {
	c := class("fast")
	c.Parameters = map[string]string{"pool": "ssd", "csi.storage.k8s.io/fstype": "xfs", "csi.storage.k8s.io/provisioner-secret-name": "key"}
	q := request(&state{class: c, segment: map[string]string{"zone": "a"}})
	if diff := cmp.Diff(map[string]string{"pool": "ssd"}, q.GetParameters()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"zone": "a"}, q.GetAccessibleTopology().GetSegments()); diff != "" {
		t.Error(diff)
	}
	if len(c.Parameters) != 3 {
		t.Error("the class in the cache was changed")
	}
	if q := request(&state{class: c, segment: map[string]string{}}); q.GetAccessibleTopology() != nil {
		t.Errorf("the request for a driver without topology has %v", q.GetAccessibleTopology())
	}
}

func TestIsSelected(t *testing.T) {
	tests := map[string]struct {
		options func(*Options)
		class   func(*storagev1.StorageClass)
		want    bool
	}{
		"a class of ours with delayed binding": {func(*Options) {}, func(*storagev1.StorageClass) {}, true},
		"a class of another provisioner":       {func(*Options) {}, func(c *storagev1.StorageClass) { c.Provisioner = driverName }, false},
		"a class with immediate binding":       {func(*Options) {}, func(c *storagev1.StorageClass) { c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate) }, false},
		"a class without binding mode":         {func(*Options) {}, func(c *storagev1.StorageClass) { c.VolumeBindingMode = nil }, false},
		"any binding mode, with the flag":      {func(o *Options) { o.Immediate = true }, func(c *storagev1.StorageClass) { c.VolumeBindingMode = nil }, true},
		"a class that the flags name":          {func(o *Options) { o.Classes = []string{"fast"} }, func(*storagev1.StorageClass) {}, true},
		"a class that the flags do not name":   {func(o *Options) { o.Classes = []string{"slow"} }, func(*storagev1.StorageClass) {}, false},
		"another provisioner, with the flag":   {func(o *Options) { o.Immediate = true }, func(c *storagev1.StorageClass) { c.Provisioner = "x" }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, c := options(), class("fast")
			tt.options(o)
			tt.class(c)
			if got := o.isSelected(c); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
