package snapshot

import (
	"crypto/sha256"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestNamesAtTheDriver(t *testing.T) {
	const uid = types.UID("01234567-89ab-cdef-0123-456789abcdef")
	for length, want := range map[int]string{-1: "snapshot-" + string(uid), 8: "snapshot-01234567", 12: "snapshot-0123456789ab", 32: "snapshot-0123456789abcdef0123456789abcdef"} {
		got, err := Naming{Prefix: "snapshot", Length: length}.Name(uid)
		if got != want || err != nil {
			t.Errorf("%d: got %s, %v", length, got, err)
		}
	}
	if _, err := (Naming{Prefix: "snapshot", Length: -1}).Name(""); err == nil {
		t.Error("a reference without a UID has a name")
	}
	for _, n := range []Naming{{"", -1}, {"s", 0}, {"s", 7}, {"s", 33}, {"s", -2}} {
		if n.Validate("snapshot") == nil {
			t.Errorf("%+v is accepted", n)
		}
	}
	for _, n := range []Naming{{"s", -1}, {"s", 8}, {"s", 32}} {
		if err := n.Validate("snapshot"); err != nil {
			t.Error(err)
		}
	}
}

func TestSecretsOfAClass(t *testing.T) {
	class := map[string]string{
		"csi.storage.k8s.io/snapshotter-secret-name":           "s-${volumesnapshot.name}-${volumesnapshotcontent.name}",
		"csi.storage.k8s.io/snapshotter-secret-namespace":      "${volumesnapshot.namespace}",
		"csi.storage.k8s.io/snapshotter-list-secret-name":      "l-${volumesnapshotcontent.name}",
		"csi.storage.k8s.io/snapshotter-list-secret-namespace": "system",
		"tier": "gold",
	}
	ref := corev1.ObjectReference{Namespace: "ns", Name: "n"}
	got, err := Snapshotter.Resolve(class, Tokens("c", ref))
	if err != nil || got.Name != "s-n-c" || got.Namespace != "ns" {
		t.Errorf("got %v, %v", got, err)
	}
	got, err = Lister.Resolve(class, Tokens("c", corev1.ObjectReference{}))
	if err != nil || got.Name != "l-c" || got.Namespace != "system" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Snapshotter.Resolve(class, Tokens("c", corev1.ObjectReference{})); err == nil {
		t.Error("a token without a value was resolved")
	}
	if got, err := GroupSnapshotter.Resolve(class, GroupTokens("c", ref)); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	left, err := DriverParameters(class)
	if err != nil || len(left) != 1 || left["tier"] != "gold" {
		t.Errorf("the driver's parameters are %v, %v", left, err)
	}
	class["csi.storage.k8s.io/snapshoter-secret-name"] = "typo"
	if _, err := DriverParameters(class); err == nil {
		t.Error("a typo in a reserved key is accepted")
	}
}

// Other programs, and users, find members by these names.
func TestMemberNamesAreUpstreams(t *testing.T) {
	of, content := MemberNames("uid", "volume")
	if len(of) != len("snapshot-")+64 || content != "snapcontent-"+of[len("snapshot-"):] {
		t.Errorf("got %s, %s", of, content)
	}
	if want := fmt.Sprintf("snapshot-%x", sha256.Sum256([]byte("uidvolume"))); of != want {
		t.Errorf("got %s, want %s", of, want)
	}
}

func TestGroupOfAcceptsAnyVersion(t *testing.T) {
	for version, member := range map[string]bool{
		"groupsnapshot.storage.k8s.io/v1": true, "groupsnapshot.storage.k8s.io/v1beta2": true, "groups.example.com/v1": false,
	} {
		s := &metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{APIVersion: version, Kind: "VolumeGroupSnapshot", Name: "g"}}}
		if got := GroupOf(s); (got != nil) != member {
			t.Errorf("%s: %v", version, got)
		}
	}
}
