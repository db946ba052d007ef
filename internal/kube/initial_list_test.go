package kube

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/event"
)

func TestEventsOfTheInitialListAreSkipped(t *testing.T) {
	p := SkipInitialList()
	if p.Create(event.CreateEvent{IsInInitialList: true}) {
		t.Error("an event of the initial list passes")
	}
	if !p.Create(event.CreateEvent{}) || !p.Update(event.UpdateEvent{}) || !p.Delete(event.DeleteEvent{}) {
		t.Error("a later event does not pass")
	}
}
