package kube

import (
	"context"
	"errors"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// present is an API server of which only the present version is asked.
type present struct {
	client.Reader
	version string
	away    bool
	asked   int
}

func (p *present) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	p.asked++
	if p.away {
		return errors.New("the API server is away")
	}
	list.SetResourceVersion(p.version)
	return nil
}

func TestAnObjectIsOldUnlessItHasChangedSinceTheLeadBegan(t *testing.T) {
	for version, want := range map[string]bool{"99": true, "100": true, "101": false, "1000": false, "not a number": true} {
		server := &present{version: "100"}
		f := NewMinResourceVersion(server, &storagev1.VolumeAttachmentList{})
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.version = "5000" // What comes later is not the moment.
		old, err := f.IsOlder(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}})
		if err != nil || old != want {
			t.Errorf("version %s: got %v, %v, want %v", version, old, err, want)
		}
		if server.asked != 1 {
			t.Errorf("the API server was asked %d times", server.asked)
		}
	}
}

func TestAMomentThatIsNotKnownIsAskedForAgain(t *testing.T) {
	server := &present{version: "100", away: true}
	f := NewMinResourceVersion(server, &storagev1.VolumeAttachmentList{})
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "101"}}
	if _, err := f.IsOlder(t.Context(), o); err == nil {
		t.Error("it was told, though nobody knows")
	}
	server.away = false
	if old, err := f.IsOlder(t.Context(), o); old || err != nil {
		t.Errorf("got %v, %v", old, err)
	}
}
