package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
)

func TestARepeatedEventIsNotSent(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	events := NewEventsWithRecorder(recorder)
	a := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "a"}}
	b := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "b"}}

	events.Warning(a, "Failed", "no room")
	events.Warning(a, "Failed", "no room")
	events.Warning(b, "Failed", "no room")
	events.Warning(a, "Failed", "no network")
	events.Normal(a, "Succeeded", "made it")
	events.Warning(a, "Failed", "no room")

	close(recorder.Events)
	var got []string
	for e := range recorder.Events {
		got = append(got, e)
	}
	want := []string{
		"Warning Failed no room", "Warning Failed no room", "Warning Failed no network",
		"Normal Succeeded made it", "Warning Failed no room",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestALongMessageIsTruncatedToTheLimitOfTheAPI(t *testing.T) {
	recorder := record.NewFakeRecorder(1)
	NewEventsWithRecorder(recorder).Normal(&corev1.Pod{}, "Reason", strings.Repeat("x", 3000))
	message := strings.TrimPrefix(<-recorder.Events, "Normal Reason ")
	if len(message) != MessageLimit || !strings.HasSuffix(message, "...") {
		t.Errorf("the message has %d bytes and ends in %q", len(message), message[len(message)-5:])
	}
}
