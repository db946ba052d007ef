package sidecar

import (
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

const driver = "csi.example.com"

func reconciler() *Reconciler {
	kind := SingleKind{Names: snapshot.Naming{Prefix: "snapshot", Length: -1}}
	return &Reconciler{kind: kind, keys: kind.Keys(), options: &Options{Driver: driver}, now: time.Now}
}

// newContent returns a content that snapshot-controller has just created.
func newContent() *snapshotv1.VolumeSnapshotContent {
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "uid-c", Finalizers: []string{snapshot.Single.Finalizer}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "ns", Name: "s", UID: "uid-s"},
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: ptr.To("vol")},
			DeletionPolicy:    snapshotv1.VolumeSnapshotContentDelete, Driver: driver, VolumeSnapshotClassName: ptr.To("gold"),
		},
	}
}

type content = *snapshotv1.VolumeSnapshotContent

// Changes of a content.
func beingCreated(c content) { annotate(c, snapshot.Single.BeingCreated, snapshot.Yes) }
func requestRecorded(c content) {
	beingCreated(c)
	annotate(c, requestAnnotation, (&requestRecord{Name: "then"}).String())
}
func ready(c content) {
	c.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("h"), ReadyToUse: ptr.To(true), CreationTime: ptr.To[int64](1)}
}
func uploading(c content)    { ready(c); c.Status.ReadyToUse = ptr.To(false) }
func deleted(c content)      { c.DeletionTimestamp = ptr.To(metav1.Now()) }
func deleting(c content)     { deleted(c); annotate(c, snapshot.Single.BeingDeleted, snapshot.Yes) }
func retainPolicy(c content) { c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain }
func groupMember(c content)  { annotate(c, snapshot.GroupHandleAnnotation, "g") }
func preProvisioned(c content) {
	c.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: ptr.To("h")}
}
func unbound(c content)     { preProvisioned(c); c.Spec.VolumeSnapshotRef.UID = "" }
func unprotected(c content) { c.Finalizers = nil }

func annotate(c content, key, value string) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, key, value) }

func TestDecide(t *testing.T) {
	gold := &snapshot.Class{Name: "gold", Driver: driver}
	tests := map[string]struct {
		changes []func(content)
		class   *snapshot.Class
		want    action
		says    string
	}{
		"a snapshot of a new content is created":                             {nil, gold, create, ""},
		"creating is repeated while the outcome is unknown":                  {[]func(content){beingCreated}, gold, create, ""},
		"also without the class, if the request is recorded":                 {[]func(content){requestRecorded}, nil, create, ""},
		"without class and recorded request it reports a problem":            {[]func(content){beingCreated}, nil, reportProblem, "class gold does not exist"},
		"a new content without its class waits for the class":                {nil, nil, reportProblem, "class gold does not exist"},
		"a class of another driver is rejected":                              {nil, &snapshot.Class{Name: "gold", Driver: "other"}, reportProblem, "is of driver other"},
		"a content that names no class is rejected":                          {[]func(content){func(c content) { c.Spec.VolumeSnapshotClassName = nil }}, nil, reportProblem, "names no class"},
		"a content of another driver is not ours":                            {[]func(content){func(c content) { c.Spec.Driver = "other" }}, gold, none, ""},
		"the annotation is removed once the handle is recorded":              {[]func(content){ready, beingCreated}, gold, clearAnnotation, ""},
		"a snapshot that is not ready is polled":                             {[]func(content){uploading}, gold, poll, ""},
		"also without its class":                                             {[]func(content){uploading}, nil, poll, ""},
		"a ready snapshot needs nothing":                                     {[]func(content){ready}, gold, none, ""},
		"a pre-provisioned snapshot is polled":                               {[]func(content){preProvisioned}, nil, poll, ""},
		"a ready pre-provisioned snapshot needs nothing":                     {[]func(content){preProvisioned, ready}, nil, none, ""},
		"a group member without a handle waits for its group":                {[]func(content){groupMember}, nil, none, ""},
		"a group member is polled, never created":                            {[]func(content){groupMember, uploading}, nil, poll, ""},
		"a deleted content that was never started has its finalizer removed": {[]func(content){deleting}, gold, removeFinalizer, ""},
		"an unknown outcome is resolved before the deletion":                 {[]func(content){deleting, requestRecorded}, nil, resolve, ""},
		"the snapshot of a deleted content is deleted":                       {[]func(content){deleting, ready}, gold, deleteSnapshot, ""},
		"also while it is uploading":                                         {[]func(content){deleting, uploading}, gold, deleteSnapshot, ""},
		"also if a crash left the annotation":                                {[]func(content){deleting, ready, beingCreated}, gold, deleteSnapshot, ""},
		"also if the class does not exist":                                   {[]func(content){deleting, ready}, nil, deleteSnapshot, ""},
		"with policy Retain the snapshot is kept":                            {[]func(content){deleting, ready, retainPolicy}, gold, removeFinalizer, ""},
		"an unknown outcome is resolved with policy Retain too":              {[]func(content){deleting, requestRecorded, retainPolicy}, gold, resolve, ""},
		"a group member's snapshot is deleted with the group":                {[]func(content){deleting, ready, groupMember}, nil, removeFinalizer, ""},
		"a pre-provisioned snapshot is deleted by its handle":                {[]func(content){deleting, preProvisioned}, nil, deleteSnapshot, ""},
		"one that was never bound needs no annotation":                       {[]func(content){deleted, unbound}, nil, deleteSnapshot, ""},
		"a deleted content without being-deleted annotation waits":           {[]func(content){deleted, ready}, gold, none, ""},
		"and its snapshot is still created":                                  {[]func(content){deleted}, gold, create, ""},
		"a content without our finalizer needs nothing":                      {[]func(content){deleting, ready, unprotected}, gold, none, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newContent()
			for _, change := range tt.changes {
				change(c)
			}
			r := reconciler()
			got := r.decide(&state{Content: r.kind.Read(c), class: tt.class})
			if got.action != tt.want {
				t.Fatalf("got %d, want %d (%v)", got.action, tt.want, got.problem)
			}
			if (got.problem == nil) != (tt.says == "") || got.problem != nil && !strings.Contains(got.problem.Error(), tt.says) {
				t.Errorf("it says %v, not %q", got.problem, tt.says)
			}
		})
	}
}

func TestChooseRequest(t *testing.T) {
	gold := &snapshot.Class{Name: "gold", Driver: driver, Parameters: map[string]string{"tier": "now", "csi.storage.k8s.io/snapshotter-secret-name": "x"}}
	then := (&requestRecord{Name: "then", Parameters: map[string]string{"tier": "then"}}).String()
	tests := map[string]struct {
		change     func(content)
		class      *snapshot.Class
		name, tier string
	}{
		"a new request follows the class":                                   {func(content) {}, gold, "snapshot-uid-s", "now"},
		"a request with an unknown outcome is repeated":                     {func(c content) { beingCreated(c); annotate(c, requestAnnotation, then) }, gold, "then", "then"},
		"after a certain failure, the request follows the present class":    {func(c content) { annotate(c, requestAnnotation, then) }, gold, "snapshot-uid-s", "now"},
		"without the class, the recorded request is used":                   {func(c content) { annotate(c, requestAnnotation, then) }, nil, "then", "then"},
		"the request of an existing snapshot is repeated":                   {func(c content) { uploading(c); annotate(c, requestAnnotation, then) }, gold, "then", "then"},
		"without a record, as from upstream, the request follows the class": {beingCreated, gold, "snapshot-uid-s", "now"},
		"without record and class, the request has only the name":           {beingCreated, nil, "snapshot-uid-s", ""},
		"an invalid record is ignored":                                      {func(c content) { beingCreated(c); annotate(c, requestAnnotation, "{") }, gold, "snapshot-uid-s", "now"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newContent()
			tt.change(c)
			r := reconciler()
			got, err := r.chooseRequest(&state{Content: r.kind.Read(c), class: tt.class})
			if err != nil || got.Name != tt.name || got.Parameters["tier"] != tt.tier || len(got.Parameters) > 1 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestPollIntervalGrows(t *testing.T) {
	r := reconciler()
	began := time.Now()
	c := newContent()
	c.CreationTimestamp = metav1.NewTime(began)
	s := &state{Content: r.kind.Read(c)}
	for after, want := range map[time.Duration]time.Duration{
		-time.Minute: 200 * time.Millisecond, 0: 200 * time.Millisecond, 5 * time.Second: 500 * time.Millisecond,
		30 * time.Second: 3 * time.Second, time.Hour: 10 * time.Second,
	} {
		r.now = func() time.Time { return began.Add(after) }
		if got := r.pollInterval(s); got != want {
			t.Errorf("after %s: got %s, want %s", after, got, want)
		}
	}
}

func TestStatusPatchKeepsHandleAndTime(t *testing.T) {
	c := newContent()
	ready(c)
	said := SingleKind{}.Read(c)
	got := SingleKind{}.StatusPatch(&said, &Snapshot{Handle: "other", Created: 5, Size: 7, Ready: true})
	if len(got) != 2 || got["restoreSize"] != int64(7) || got["readyToUse"] != true {
		t.Errorf("got %v", got)
	}
}
