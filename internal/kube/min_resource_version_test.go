package kube

import (
	"context"
	"errors"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// versionReader is an API server whose lists have a resource version.
type versionReader struct {
	client.Reader
	version string
	down    bool
	lists   int
}

func (r *versionReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	r.lists++
	if r.down {
		return errors.New("the API server is unreachable")
	}
	list.SetResourceVersion(r.version)
	return nil
}

func TestAnObjectIsOldUnlessItHasChangedSinceTheTermStarted(t *testing.T) {
	for version, want := range map[string]bool{"99": true, "100": true, "101": false, "1000": false, "not a number": true} {
		server := &versionReader{version: "100"}
		f := NewMinResourceVersion(server, &storagev1.VolumeAttachmentList{})
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.version = "5000" // Later versions do not matter.
		old, err := f.IsOlder(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}})
		if err != nil || old != want {
			t.Errorf("version %s: got %v, %v, want %v", version, old, err, want)
		}
		if server.lists != 1 {
			t.Errorf("%d requests to the API server, want 1", server.lists)
		}
	}
}

func TestReadingTheVersionIsRetried(t *testing.T) {
	server := &versionReader{version: "100", down: true}
	f := NewMinResourceVersion(server, &storagev1.VolumeAttachmentList{})
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "101"}}
	if _, err := f.IsOlder(t.Context(), o); err == nil {
		t.Error("an unknown version is no error")
	}
	server.down = false
	if old, err := f.IsOlder(t.Context(), o); old || err != nil {
		t.Errorf("got %v, %v", old, err)
	}
}
