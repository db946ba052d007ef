package e2e

import (
	"context"
	"fmt"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// checkSingleAttachment fails the test if two VolumeAttachments of one volume exist at
// the same time, from now on until the test ends.
func (w localWorld) checkSingleAttachment(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	api := w.Client.StorageV1().VolumeAttachments()
	list, err := api.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := api.Watch(context.WithoutCancel(ctx), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { // The test's context has ended already.
		changes.Stop()
		<-done
	})
	go func() {
		defer close(done)
		holders := map[string]string{} // volume to VolumeAttachment
		for change := range changes.ResultChan() {
			if change.Type == watch.Error && ctx.Err() != nil {
				return // The test has ended; a stopped watch may return an error.
			}
			if err := trackHolder(holders, change); err != nil {
				t.Error(err)
			}
		}
		if ctx.Err() == nil {
			t.Error("the watch of VolumeAttachments has ended before the test")
		}
	}()
}

// trackHolder records in holders which VolumeAttachment each volume has. It fails if a
// new one comes before the last one is gone.
func trackHolder(holders map[string]string, change watch.Event) error {
	a, ok := change.Object.(*storagev1.VolumeAttachment)
	if !ok {
		return fmt.Errorf("the watch of VolumeAttachments returns %+v", change)
	}
	volume := ptr.Deref(a.Spec.Source.PersistentVolumeName, "")
	if holder, held := holders[volume]; held && holder != a.Name {
		return fmt.Errorf("%s is attached to %s while %s exists", volume, a.Spec.NodeName, holder)
	}
	if change.Type == watch.Deleted {
		delete(holders, volume)
	} else {
		holders[volume] = a.Name
	}
	return nil
}

func TestTrackHolder(t *testing.T) {
	of := func(kind watch.EventType, volume, name string) watch.Event {
		return watch.Event{Type: kind, Object: &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       storagev1.VolumeAttachmentSpec{Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}},
		}}
	}
	tests := map[string]struct {
		changes []watch.Event
		ok      bool
	}{
		"one after the other":            {[]watch.Event{of(watch.Added, "v", "a"), of(watch.Deleted, "v", "a"), of(watch.Added, "v", "b")}, true},
		"another volume does not matter": {[]watch.Event{of(watch.Added, "v", "a"), of(watch.Added, "w", "b")}, true},
		"one in deletion still counts":   {[]watch.Event{of(watch.Added, "v", "a"), of(watch.Modified, "v", "a"), of(watch.Added, "v", "b")}, false},
		"an error is reported":           {[]watch.Event{{Type: watch.Error, Object: &metav1.Status{}}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			holders, ok := map[string]string{}, true
			for _, change := range tt.changes {
				ok = trackHolder(holders, change) == nil && ok
			}
			if ok != tt.ok {
				t.Errorf("got %t", ok)
			}
		})
	}
}
