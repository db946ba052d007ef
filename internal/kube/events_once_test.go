package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestTheSameEventOfManyProcessesIsCreatedOnce(t *testing.T) {
	c := fake.NewClientBuilder().Build()
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "data", UID: "1"}}
	other := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "other", UID: "2"}}
	full := Event{Type: corev1.EventTypeWarning, Reason: "Failed", Message: "no room"}
	gone := Event{Type: corev1.EventTypeWarning, Reason: "Failed", Message: "no class"}
	for range 3 { // Each iteration is another process.
		events := NewEventsWithRecorder(record.NewFakeRecorder(0))
		for _, about := range []*corev1.PersistentVolumeClaim{claim, claim, other} {
			if err := events.EmitOnce(t.Context(), c, about, full); err != nil {
				t.Fatal(err)
			}
		}
		if err := events.EmitOnce(t.Context(), c, claim, gone); err != nil {
			t.Fatal(err)
		}
	}
	list := &corev1.EventList{}
	if err := c.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range list.Items {
		count[e.InvolvedObject.Name+": "+e.Message]++
	}
	if len(list.Items) != 3 || count["data: no room"] != 1 || count["data: no class"] != 1 || count["other: no room"] != 1 {
		t.Errorf("got %v", count)
	}
}

func TestAnEventAboutAClusterScopedObjectIsInDefault(t *testing.T) {
	c := fake.NewClientBuilder().Build()
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "1"}}
	event := Event{Type: corev1.EventTypeWarning, Reason: "Failed", Message: "no node"}
	if err := NewEventsWithRecorder(record.NewFakeRecorder(0)).EmitOnce(t.Context(), c, volume, event); err != nil {
		t.Fatal(err)
	}
	list := &corev1.EventList{}
	if err := c.List(t.Context(), list, client.InNamespace(metav1.NamespaceDefault)); err != nil || len(list.Items) != 1 {
		t.Errorf("got %v, %v", list.Items, err)
	}
}
