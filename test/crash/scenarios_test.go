package crash

import (
	"context"
	"strings"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// A scenario is one row of the table. Every one goes from a claim, or several,
// to bound volumes and, when the claims are deleted, to nothing.
type scenario struct {
	name string

	// turn is what the world does at one point after the other, with processes
	// that are struck at that point or at a later one. turns says what it is.
	turn  func(context.Context, *run)
	turns string
	// once strikes at the turn only, also in a full sweep; docs/crash.md says why.
	once bool

	claims    int // 1 if 0
	leaders   int // processes that act at once; 1 if 0
	fromStart bool

	driver csitest.Options
	named  bool // the driver's handles are its volumes' names, so they come again
	unsure int  // how many answers to CreateVolume come too late
	full   func(*csipb.CreateVolumeRequest) bool

	restores bool // every run has a VolumeSnapshot to restore from
	slow     bool // the first CreateVolume takes until nothing else happens

	class func(*storagev1.StorageClass)
	claim func(*corev1.PersistentVolumeClaim)

	lag   time.Duration // of what the cache of lagOf is told
	lagOf string        // a resource
}

// lag is longer than the first retries take: they see what was before.
const lag = 400 * time.Millisecond

var scenarios = []*scenario{
	{name: "create", fromStart: true},
	{name: "create, then delete at any moment", turns: deleted, turn: dropClaims},
	{name: "create, delete and create under the same name at any moment", turns: "replaced", turn: replaceClaims},
	{name: "two claims at once", claims: 2},
	{name: "the first consumer's node is full", driver: twoZones, class: waits, full: within("a")},
	{
		name: "the first consumer's node goes at any moment, its create is unsure", turns: "node gone", turn: dropFirstNode,
		driver: twoZones, class: waits, unsure: 1,
	},
	{name: "clone", claims: 2, claim: cloned},
	{name: "clone, then delete it and its source at any moment", claims: 2, claim: cloned, turns: deleted, turn: letClaimsGo},
	{name: "restore", claim: restored, restores: true},
	{name: "restore, then delete it and the snapshot at any moment", claim: restored, restores: true, turns: deleted, turn: letAllGo},
	{name: "two restores from one snapshot", claims: 2, claim: restored, restores: true, slow: true},
	{
		name: "two restores from one snapshot, stale cache of intents", claims: 2, claim: restored, restores: true, slow: true,
		lag: lag, lagOf: "leases",
	},
	{name: "stale cache of claims", turns: deleted, turn: dropClaims, named: true, lag: lag, lagOf: "persistentvolumeclaims"},
	{name: "stale cache of volumes", turns: deleted, turn: dropClaims, named: true, lag: lag, lagOf: "persistentvolumes"},
	{name: "stale cache of intents", turns: deleted, turn: dropClaims, named: true, lag: lag, lagOf: "leases"},
	{name: "two leaders", named: true, leaders: 2},
	{name: "two leaders, then delete at any moment", turns: deleted, turn: dropClaims, once: true, named: true, leaders: 2},
}

const deleted = "claim deleted"

var twoZones = csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}}

// waits makes a class one that waits for the first consumer.
func waits(c *storagev1.StorageClass) {
	c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
}

// late tells whether the run has to play the scheduler.
func (sc *scenario) late() bool { return sc.class != nil && len(sc.driver.Segments) > 0 }

// within tells of a request whether the volume may only be in one zone.
func within(zone string) func(*csipb.CreateVolumeRequest) bool {
	return func(request *csipb.CreateVolumeRequest) bool {
		places := request.GetAccessibilityRequirements().GetRequisite()
		return len(places) == 1 && places[0].GetSegments()[zoneKey] == zone
	}
}

// cloned makes the second claim of a run a clone of its first.
func cloned(c *corev1.PersistentVolumeClaim) {
	if first, ok := strings.CutSuffix(c.Name, "-1"); ok {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: first + "-0"}
	}
}

// letClaimsGo deletes what is still wanted and does not wait: what is being
// cloned stays until somebody has done it.
func letClaimsGo(ctx context.Context, r *run) {
	for _, name := range r.names() {
		r.drop(ctx, name)
	}
}

// restored makes every claim of a run a restore of its snapshot.
func restored(c *corev1.PersistentVolumeClaim) {
	run := c.Name[:strings.LastIndex(c.Name, "-")]
	c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &snapshotv1.SchemeGroupVersion.Group, Kind: "VolumeSnapshot", Name: run}
}

// letAllGo deletes the snapshot too: it stays until nobody reads it any more.
func letAllGo(ctx context.Context, r *run) {
	letClaimsGo(ctx, r)
	r.dropSnapshots(ctx)
}

// dropClaims deletes what is still wanted and waits until it is gone.
func dropClaims(ctx context.Context, r *run) {
	for _, name := range r.names() {
		r.drop(ctx, name)
		for until := time.Now().Add(*patience); time.Now().Before(until); time.Sleep(pulse) {
			_, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
		}
	}
}

func replaceClaims(ctx context.Context, r *run) {
	names := r.names()
	dropClaims(ctx, r)
	for _, name := range names {
		r.create(ctx, name)
	}
}

func dropFirstNode(ctx context.Context, r *run) { r.dropNode(ctx, zones[0]) }
