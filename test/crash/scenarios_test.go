package crash

import (
	"context"
	"fmt"
	"slices"
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
	"github.com/holdfast-io/holdfast/test/world"
)

// A scenario is one row of the table. Every one goes from a claim, or several,
// to bound volumes and, when the claims are deleted, to nothing.
type scenario struct {
	name string

	// roles are those whose processes are struck, beside those that run and are
	// not; csi-provisioner, and none, if there are no roles.
	roles, beside []string
	// then is what users do with the bound claims, one thing after the other. Each
	// time all must become as they want it. In the end they delete the claims.
	then []act

	// turn is what the world does at one point after the other, with processes
	// that are struck at that point or at a later one. turns says what it is.
	turn  act
	turns string
	// once strikes at the turn only, also in a full sweep; docs/internals/crash.md says why.
	once bool

	claims    int // 1 if 0
	leaders   int // processes that act at once; 1 if 0
	fromStart bool

	driver csitest.Options
	named  bool // the driver's handles are its volumes' names, so they come again
	unsure int  // how many answers to CreateVolume come too late
	full   func(*csipb.CreateVolumeRequest) bool
	// brief gives calls little time in all runs: how long a refusal leaves open what
	// an earlier call has done is a multiple of that.
	brief bool
	limit int64 // bytes to which the driver expands volumes; 0 for no limit

	restores bool // every run has a VolumeSnapshot to restore from

	// With role csi-snapshotter, users make snapshots.
	snapshots int  // of each claim; 1 if 0
	retain    bool // by policy Retain
	secret    bool // the driver is sent a secret
	given     bool // every run has a snapshot at the driver that the cluster does not know
	together  bool // the snapshots are members of a group
	scheduled bool // the snapshots are made by a schedule

	slow bool // the first CreateVolume takes until nothing else happens

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
	{name: "the first consumer's node is full", driver: twoZones, class: waits, full: within("a"), brief: true},
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
	{name: "attach, then detach", roles: attacher, beside: provisioner, driver: anyNode, then: []act{attachTo("a"), detach}},
	{
		name: "attach, then detach at any moment", turns: detached, turn: detach,
		roles: attacher, beside: provisioner, driver: anyNode, then: []act{attachTo("a"), detach},
	},
	{
		name: "attach to one node, then to another", roles: attacher, beside: provisioner, driver: anyNode,
		then: []act{attachTo("a"), detach, attachTo("b"), detach},
	},
	{
		name: "attach, then the node goes", roles: attacher, beside: provisioner, driver: anyNode,
		then: []act{attachTo("a"), dropFirstNode, detach},
	},
	{
		name: "attach, then the node goes and detach at any moment", turns: "node gone", turn: loseNode,
		roles: attacher, beside: provisioner, driver: anyNode, then: []act{attachTo("a"), detach},
	},
	{name: "create and attach, then let all go at once", roles: both, driver: anyNode, then: []act{attachTo("a"), letAllGo}},
	{
		name: "stale cache of attachments", turns: detached, turn: detach, lag: lag, lagOf: "volumeattachments",
		roles: attacher, beside: provisioner, driver: anyNode, then: []act{attachTo("a"), detach},
	},
	{name: "expand", roles: resizer, beside: provisioner, class: world.Expandable, then: []act{request("3Gi")}},
	{
		name: "expand, then request less at any moment", turns: "less requested", turn: request("2Gi"),
		roles: resizer, beside: provisioner, class: world.Expandable, then: []act{request("3Gi")},
	},
	{
		name: "expand, then delete at any moment", turns: deleted, turn: letClaimsGo,
		roles: resizer, beside: provisioner, class: world.Expandable, then: []act{request("3Gi")},
	},
	{
		name: "expand to what cannot be had, then request less", limit: 4 << 30,
		roles: resizer, beside: provisioner, class: world.Expandable, then: []act{requestInVain("10Gi", "2Gi")},
	},
	{
		name: "modify, then want another class at any moment", turns: "another class wanted", turn: want(silver),
		roles: resizer, beside: provisioner, class: world.Expandable, then: []act{want(gold)},
	},
	{
		name: "expand and modify, stale cache of claims", turns: "less requested", turn: request("2Gi"), lag: lag, lagOf: "persistentvolumeclaims",
		roles: resizer, beside: provisioner, class: world.Expandable, then: []act{growAndWant("3Gi", gold)},
	},
	{name: "snapshot", roles: snapshotters, beside: provisioner, then: []act{cut}},
	{name: "snapshot, then delete it at any moment", turns: cutDeleted, turn: letSnapshotsGo, roles: snapshotters, beside: provisioner, then: []act{cut}},
	{name: "two snapshots of one claim", snapshots: 2, roles: snapshotters, beside: provisioner, then: []act{cut}},
	{
		name: "slow snapshot, deleted at any moment", turns: cutDeleted, turn: letSnapshotsGo, once: true, driver: slowly(getSnapshot, listSnapshots),
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{name: "slow snapshot, without GetSnapshot", driver: slowly(listSnapshots), roles: snapshotters, beside: provisioner, then: []act{cut}},
	{name: "slow snapshot, without GetSnapshot and ListSnapshots", driver: slowly(), roles: snapshotters, beside: provisioner, then: []act{cut}},
	{
		name: "snapshot by policy Retain, deleted at any moment", turns: cutDeleted, turn: letSnapshotsGo, once: true, retain: true,
		roles: snapshotters, beside: provisioner, then: []act{cut, letSnapshotsGo},
	},
	{
		name: "snapshot that was there, deleted at any moment", turns: cutDeleted, turn: letSnapshotsGo, once: true, given: true,
		roles: snapshotters, beside: provisioner, then: []act{adopt},
	},
	{
		name: "snapshot that was there by policy Retain", given: true, retain: true,
		roles: snapshotters, beside: provisioner, then: []act{adopt, letSnapshotsGo},
	},
	{
		name: "snapshot, its class goes at any moment", turns: "class gone", turn: loseClass, once: true,
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "snapshot, its secret goes at any moment", turns: "secret gone", turn: loseSecret, once: true, secret: true,
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "snapshot, its claim goes at any moment", turns: deleted, turn: letClaimsGo, once: true,
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "snapshot and restore, the snapshot goes at any moment", turns: cutDeleted, turn: letSnapshotsGo, once: true,
		roles: slices.Concat(provisioner, snapshotters), then: []act{cut, restoreAll},
	},
	{
		name: "snapshot, stale cache of snapshots", turns: cutDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumesnapshots",
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "snapshot, stale cache of contents", turns: cutDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumesnapshotcontents",
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "two snapshots of one claim, stale cache of claims", snapshots: 2, lag: lag, lagOf: "persistentvolumeclaims",
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{
		name: "two snapshots of one claim, stale cache of snapshots", snapshots: 2, lag: lag, lagOf: "volumesnapshots",
		roles: snapshotters, beside: provisioner, then: []act{cut},
	},
	{name: "snapshot, two leaders", leaders: 2, roles: snapshotters, beside: provisioner, then: []act{cut}},
	{
		name: "schedule, triggered twice", claims: 2, scheduled: true,
		roles: snapshotters, beside: provisioner, then: []act{trigger("one"), trigger("two")},
	},
	{name: "group snapshot", claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether}},
	{
		name: "group snapshot, then delete it at any moment", turns: groupDeleted, turn: letSnapshotsGo, once: true,
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "slow group snapshot, deleted at any moment", turns: groupDeleted, turn: letSnapshotsGo, once: true, driver: slowly(getSnapshot, listSnapshots),
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "group snapshot that was there, deleted at any moment", turns: groupDeleted, turn: letSnapshotsGo, once: true, given: true,
		together: true, roles: snapshotters, beside: provisioner, then: []act{adoptTogether},
	},
	{
		name: "group snapshot by policy Retain, deleted at any moment", turns: groupDeleted, turn: letSnapshotsGo, once: true, retain: true,
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether, letSnapshotsGo},
	},
	{
		name: "group snapshot and restore, the group goes at any moment", turns: groupDeleted, turn: letSnapshotsGo, once: true,
		claims: 2, together: true, roles: slices.Concat(provisioner, snapshotters), then: []act{cutTogether, restoreAll},
	},
	{
		name: "group snapshot, stale cache of groups", turns: groupDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumegroupsnapshots",
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "group snapshot, stale cache of group contents", turns: groupDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumegroupsnapshotcontents",
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "group snapshot, stale cache of members", turns: groupDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumesnapshots",
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "group snapshot, stale cache of members' contents", turns: groupDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "volumesnapshotcontents",
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{
		name: "group snapshot, stale cache of claims", turns: groupDeleted, turn: letSnapshotsGo, once: true, lag: lag, lagOf: "persistentvolumeclaims",
		claims: 2, together: true, roles: snapshotters, beside: provisioner, then: []act{cutTogether},
	},
	{name: "group snapshot, two leaders", claims: 2, together: true, leaders: 2, roles: snapshotters, beside: provisioner, then: []act{cutTogether}},
	{name: "two leaders", named: true, leaders: 2},
	{name: "two leaders, then delete at any moment", turns: deleted, turn: dropClaims, once: true, named: true, leaders: 2},
}

// An act is something that users, or the world, do.
type act = func(context.Context, *run)

const deleted, detached, cutDeleted, groupDeleted = "claim deleted", "detached", "snapshot deleted", "group deleted"

// Roles. A volume has to be there before it is attached or grows; how that may
// fail has scenarios of its own.
var (
	provisioner = []string{"csi-provisioner"}
	attacher    = []string{"csi-attacher"}
	resizer     = []string{"csi-resizer"}
	both        = []string{"csi-provisioner", "csi-attacher"}

	snapshotters = []string{"snapshot-controller", "csi-snapshotter"}
)

// struck are the roles that are.
func (sc *scenario) struck() []string {
	if len(sc.roles) == 0 {
		return provisioner
	}
	return sc.roles
}

// acts are all that users do.
func (sc *scenario) acts() []act {
	all := slices.Concat([]act{makeClaims}, sc.then, []act{letAllGo})
	if sc.cuts() {
		all = append(all, giveUp)
	}
	return all
}

// hasNodes tells whether the scenario needs nodes.
func (sc *scenario) hasNodes() bool { return sc.driver.AnyNode || len(sc.driver.Segments) > 0 }

var anyNode = csitest.Options{AnyNode: true}

var twoZones = csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}}

// What a driver may be able to do beside making snapshots.
const (
	getSnapshot   = csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT
	listSnapshots = csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS
)

// slowly is a driver whose snapshots become ready some time after they are cut.
func slowly(extra ...csipb.ControllerServiceCapability_RPC_Type) csitest.Options {
	return csitest.Options{
		SnapshotReadyAfter: 2,
		Controller: append(extra, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT),
	}
}

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

func makeClaims(ctx context.Context, r *run) {
	for i := range max(1, r.scenario.claims) {
		r.create(ctx, fmt.Sprintf("%s-%d", r.name, i))
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

// letAllGo deletes the attachments and the snapshot too: that stays until nobody
// reads it any more.
func letAllGo(ctx context.Context, r *run) {
	detach(ctx, r)
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
