package kube

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/event"
)

func TestWhatIsThereAtTheStartIsNoNews(t *testing.T) {
	news := SkipInitialList()
	if news.Create(event.CreateEvent{IsInInitialList: true}) {
		t.Error("what is there at the start is let through")
	}
	if !news.Create(event.CreateEvent{}) || !news.Update(event.UpdateEvent{}) || !news.Delete(event.DeleteEvent{}) {
		t.Error("what happens later is not let through")
	}
}
