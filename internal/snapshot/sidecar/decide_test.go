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

// newContent is a content that the cluster's half has just made.
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
		"a new content is cut":                                        {nil, gold, create, ""},
		"one that may have been cut is cut again":                     {[]func(content){beingCreated}, gold, create, ""},
		"also without its class, if what was asked is on record":      {[]func(content){requestRecorded}, nil, create, ""},
		"without class and record it says so":                         {[]func(content){beingCreated}, nil, reportProblem, "class gold is not there"},
		"a new one without its class waits for it":                    {nil, nil, reportProblem, "class gold is not there"},
		"a class of another driver is refused":                        {nil, &snapshot.Class{Name: "gold", Driver: "other"}, reportProblem, "is of driver other"},
		"a content that names no class cannot be cut":                 {[]func(content){func(c content) { c.Spec.VolumeSnapshotClassName = nil }}, nil, reportProblem, "names no class"},
		"a content of another driver is not ours":                     {[]func(content){func(c content) { c.Spec.Driver = "other" }}, gold, none, ""},
		"an answer that is written loses its mark":                    {[]func(content){ready, beingCreated}, gold, clearAnnotation, ""},
		"a snapshot that is not ready is followed":                    {[]func(content){uploading}, gold, poll, ""},
		"also without its class":                                      {[]func(content){uploading}, nil, poll, ""},
		"a ready one is left alone":                                   {[]func(content){ready}, gold, none, ""},
		"an import is looked at":                                      {[]func(content){preProvisioned}, nil, poll, ""},
		"a ready import is left alone":                                {[]func(content){preProvisioned, ready}, nil, none, ""},
		"a member without a handle waits for its group":               {[]func(content){groupMember}, nil, none, ""},
		"a member is followed, never cut":                             {[]func(content){groupMember, uploading}, nil, poll, ""},
		"a released content that nobody began with goes":              {[]func(content){deleting}, gold, removeFinalizer, ""},
		"one that may have been cut is asked for until that is known": {[]func(content){deleting, requestRecorded}, nil, resolve, ""},
		"one with a snapshot has it deleted":                          {[]func(content){deleting, ready}, gold, deleteSnapshot, ""},
		"also while it is uploading":                                  {[]func(content){deleting, uploading}, gold, deleteSnapshot, ""},
		"also if the mark was left by a death":                        {[]func(content){deleting, ready, beingCreated}, gold, deleteSnapshot, ""},
		"also when its class is gone":                                 {[]func(content){deleting, ready}, nil, deleteSnapshot, ""},
		"with policy Retain the snapshot stays":                       {[]func(content){deleting, ready, retainPolicy}, gold, removeFinalizer, ""},
		"what may have been cut is found out with policy Retain too":  {[]func(content){deleting, requestRecorded, retainPolicy}, gold, resolve, ""},
		"a member's snapshot is its group's to delete":                {[]func(content){deleting, ready, groupMember}, nil, removeFinalizer, ""},
		"an import is deleted by its handle, looked at or not":        {[]func(content){deleting, preProvisioned}, nil, deleteSnapshot, ""},
		"an import that was never bound needs nobody's word":          {[]func(content){deleted, unbound}, nil, deleteSnapshot, ""},
		"a content that somebody deletes while it is used lives on":   {[]func(content){deleted, ready}, gold, none, ""},
		"and is still cut if it was not":                              {[]func(content){deleted}, gold, create, ""},
		"what is not kept for us has been dealt with":                 {[]func(content){deleting, ready, unprotected}, gold, none, ""},
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

func TestARepetitionAsksForTheSame(t *testing.T) {
	gold := &snapshot.Class{Name: "gold", Driver: driver, Parameters: map[string]string{"tier": "now", "csi.storage.k8s.io/snapshotter-secret-name": "x"}}
	then := (&requestRecord{Name: "then", Parameters: map[string]string{"tier": "then"}}).String()
	tests := map[string]struct {
		change     func(content)
		class      *snapshot.Class
		name, tier string
	}{
		"what is new follows the class":                           {func(content) {}, gold, "snapshot-uid-s", "now"},
		"what may have been made is asked for as it was":          {func(c content) { beingCreated(c); annotate(c, requestAnnotation, then) }, gold, "then", "then"},
		"what was surely not made follows the class as it is now": {func(c content) { annotate(c, requestAnnotation, then) }, gold, "snapshot-uid-s", "now"},
		"without the class, as it was":                            {func(c content) { annotate(c, requestAnnotation, then) }, nil, "then", "then"},
		"what was made is asked for as it was":                    {func(c content) { uploading(c); annotate(c, requestAnnotation, then) }, gold, "then", "then"},
		"what upstream may have made follows the class":           {beingCreated, gold, "snapshot-uid-s", "now"},
		"and without it is asked for by its name":                 {beingCreated, nil, "snapshot-uid-s", ""},
		"a record that cannot be read is none":                    {func(c content) { beingCreated(c); annotate(c, requestAnnotation, "{") }, gold, "snapshot-uid-s", "now"},
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

func TestThePauseGrowsWithTheWait(t *testing.T) {
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
