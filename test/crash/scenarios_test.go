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

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A scenario is one row of the table. It starts with creating one or several claims,
// and ends when everything is deleted.
type scenario struct {
	name string

	// roles are tested with faults; csi-provisioner by default. Those in background run
	// without faults.
	roles, background []string
	// steps is what users do with the bound claims, one after the other. After each,
	// everything must become as they want it. At the end they delete the claims.
	steps []step

	// disruption is what the world does at any point, while a process gets a fault at that
	// point or at a later one; disruptionName describes it.
	disruption     step
	disruptionName string
	// once injects faults at the disruption only, in a full sweep too; see
	// docs/internals/crash.md.
	once bool

	claims    int // 1 if 0
	leaders   int // processes that act at the same time; 1 if 0
	fromStart bool

	driver          csitest.Options
	handlesAreNames bool // the driver's handles are its volumes' names, so handles are reused
	lateResponses   int  // how many responses to CreateVolume come too late
	outOfCapacity   func(*csipb.CreateVolumeRequest) bool
	// shortTimeouts gives all calls short timeouts: how long a rejection leaves the
	// outcome of an earlier call open is a multiple of the timeout.
	shortTimeouts bool
	maxSize       int64 // bytes to which the driver expands volumes; 0 for no limit

	restores bool // every run has a VolumeSnapshot to restore from

	// With role csi-snapshotter, users take snapshots.
	snapshots      int  // of each claim; 1 if 0
	retain         bool // with policy Retain
	secret         bool // the driver is sent a secret
	preProvisioned bool // every run has a snapshot at the driver that users import
	grouped        bool // the snapshots are members of a group
	scheduled      bool // a schedule takes the snapshots

	slowFirstCreate bool // the first CreateVolume takes until everything else is idle

	class func(*storagev1.StorageClass)
	claim func(*corev1.PersistentVolumeClaim)

	watchDelay      time.Duration // delays watches of delayedResource
	delayedResource string        // a resource
}

// watchDelay is longer than the first retries take: they read stale data.
const watchDelay = 400 * time.Millisecond

var scenarios = []*scenario{
	{name: "create", fromStart: true},
	{name: "create, then delete at any moment", disruptionName: claimDeleted, disruption: deleteClaimsAndWait},
	{name: "create, delete and create under the same name at any moment", disruptionName: "replaced", disruption: replaceClaims},
	{name: "two claims at once", claims: 2},
	{name: "the first consumer's node is full", driver: twoZones, class: world.WaitForFirstConsumer, outOfCapacity: onlyIn("a"), shortTimeouts: true},
	{
		name: "the first consumer's node is deleted at any moment, after a response that was late", disruptionName: "node deleted", disruption: deleteFirstNode,
		driver: twoZones, class: world.WaitForFirstConsumer, lateResponses: 1,
	},
	{name: "clone", claims: 2, claim: cloneOfFirst},
	{
		name: "clone, then delete it and its source at any moment", disruptionName: claimDeleted, disruption: deleteClaims,
		claims: 2, claim: cloneOfFirst, shortTimeouts: true,
	},
	{name: "restore", claim: restoreOfSnapshot, restores: true},
	{name: "restore, then delete it and the snapshot at any moment", claim: restoreOfSnapshot, restores: true, disruptionName: claimDeleted, disruption: deleteAll},
	{name: "two restores from one snapshot", claims: 2, claim: restoreOfSnapshot, restores: true, slowFirstCreate: true},
	{
		name: "two restores from one snapshot, stale cache of pending operations", claims: 2, claim: restoreOfSnapshot, restores: true, slowFirstCreate: true,
		watchDelay: watchDelay, delayedResource: "leases",
	},
	{name: "stale cache of claims", disruptionName: claimDeleted, disruption: deleteClaimsAndWait, handlesAreNames: true, watchDelay: watchDelay, delayedResource: "persistentvolumeclaims"},
	{name: "stale cache of volumes", disruptionName: claimDeleted, disruption: deleteClaimsAndWait, handlesAreNames: true, watchDelay: watchDelay, delayedResource: "persistentvolumes"},
	{name: "stale cache of pending operations", disruptionName: claimDeleted, disruption: deleteClaimsAndWait, handlesAreNames: true, watchDelay: watchDelay, delayedResource: "leases"},
	{name: "attach, then detach", roles: attacher, background: provisioner, driver: anyNode, steps: []step{attachTo("a"), detach}},
	{
		name: "attach, then detach at any moment", disruptionName: detached, disruption: detach,
		roles: attacher, background: provisioner, driver: anyNode, steps: []step{attachTo("a"), detach},
	},
	{
		name: "attach to one node, then to another", roles: attacher, background: provisioner, driver: anyNode,
		steps: []step{attachTo("a"), detach, attachTo("b"), detach},
	},
	{
		name: "attach, then delete the node", roles: attacher, background: provisioner, driver: anyNode,
		steps: []step{attachTo("a"), deleteFirstNode, detach},
	},
	{
		name: "attach, then delete the node and detach at any moment", disruptionName: "node deleted", disruption: deleteFirstNodeAndDetach,
		roles: attacher, background: provisioner, driver: anyNode, steps: []step{attachTo("a"), detach},
	},
	{name: "create and attach, then delete everything at once", roles: provisionerAndAttacher, driver: anyNode, steps: []step{attachTo("a"), deleteAll}},
	{
		name: "stale cache of attachments", disruptionName: detached, disruption: detach, watchDelay: watchDelay, delayedResource: "volumeattachments",
		roles: attacher, background: provisioner, driver: anyNode, steps: []step{attachTo("a"), detach},
	},
	{name: "expand", roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestSize("3Gi")}},
	{
		name: "expand, then request less at any moment", disruptionName: "less requested", disruption: requestSize("2Gi"),
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestSize("3Gi")},
	},
	{
		name: "expand, then delete at any moment", disruptionName: claimDeleted, disruption: deleteClaims,
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestSize("3Gi")},
	},
	{
		name: "expand beyond the limit, then request less", maxSize: 4 << 30,
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestTooMuch("10Gi", "2Gi", 1)},
	},
	{
		name: "expand beyond the limit, then request less during the retry", maxSize: 4 << 30,
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestTooMuch("10Gi", "2Gi", 2)},
	},
	{
		name: "modify, then want another class at any moment", disruptionName: "another class wanted", disruption: requestClass(silver),
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestClass(gold)},
	},
	{
		name: "expand and modify, stale cache of claims", disruptionName: "less requested", disruption: requestSize("2Gi"), watchDelay: watchDelay, delayedResource: "persistentvolumeclaims",
		roles: resizer, background: provisioner, class: world.Expandable, steps: []step{requestSizeAndClass("3Gi", gold)},
	},
	{name: "snapshot", roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{name: "snapshot, then delete it at any moment", disruptionName: snapshotDeleted, disruption: deleteSnapshots, roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{name: "two snapshots of one claim", snapshots: 2, roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{
		name: "slow snapshot, deleted at any moment", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, driver: slowSnapshots(getSnapshot, listSnapshots),
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{name: "slow snapshot, without GetSnapshot", driver: slowSnapshots(listSnapshots), roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{name: "slow snapshot, without GetSnapshot and ListSnapshots", driver: slowSnapshots(), roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{
		name: "snapshot with policy Retain, deleted at any moment", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, retain: true,
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots, deleteSnapshots},
	},
	{
		name: "pre-provisioned snapshot, deleted at any moment", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, preProvisioned: true,
		roles: snapshotters, background: provisioner, steps: []step{importSnapshot},
	},
	{
		name: "pre-provisioned snapshot with policy Retain", preProvisioned: true, retain: true,
		roles: snapshotters, background: provisioner, steps: []step{importSnapshot, deleteSnapshots},
	},
	{
		name: "snapshot, its class is deleted at any moment", disruptionName: "class deleted", disruption: deleteClasses, once: true,
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "snapshot, its secret is deleted at any moment", disruptionName: "secret deleted", disruption: deleteSecret, once: true, secret: true,
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "snapshot, its claim is deleted at any moment", disruptionName: claimDeleted, disruption: deleteClaims, once: true,
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "snapshot and restore, the snapshot is deleted at any moment", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, shortTimeouts: true,
		roles: slices.Concat(provisioner, snapshotters), steps: []step{takeSnapshots, restoreAll},
	},
	{
		name: "snapshot, stale cache of snapshots", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumesnapshots",
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "snapshot, stale cache of contents", disruptionName: snapshotDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumesnapshotcontents",
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "two snapshots of one claim, stale cache of claims", snapshots: 2, watchDelay: watchDelay, delayedResource: "persistentvolumeclaims",
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{
		name: "two snapshots of one claim, stale cache of snapshots", snapshots: 2, watchDelay: watchDelay, delayedResource: "volumesnapshots",
		roles: snapshotters, background: provisioner, steps: []step{takeSnapshots},
	},
	{name: "snapshot, two leaders", leaders: 2, roles: snapshotters, background: provisioner, steps: []step{takeSnapshots}},
	{
		name: "schedule, triggered twice", claims: 2, scheduled: true,
		roles: snapshotters, background: provisioner, steps: []step{triggerSchedule("one"), triggerSchedule("two")},
	},
	{name: "group snapshot", claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot}},
	{
		name: "group snapshot, then delete it at any moment", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true,
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "slow group snapshot, deleted at any moment", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, driver: slowSnapshots(getSnapshot, listSnapshots),
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "pre-provisioned group snapshot, deleted at any moment", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, preProvisioned: true,
		grouped: true, roles: snapshotters, background: provisioner, steps: []step{importGroup},
	},
	{
		name: "group snapshot with policy Retain, deleted at any moment", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, retain: true,
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot, deleteSnapshots},
	},
	{
		name: "group snapshot and restore, the group is deleted at any moment", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, shortTimeouts: true,
		claims: 2, grouped: true, roles: slices.Concat(provisioner, snapshotters), steps: []step{takeGroupSnapshot, restoreAll},
	},
	{
		name: "group snapshot, stale cache of groups", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumegroupsnapshots",
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "group snapshot, stale cache of group contents", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumegroupsnapshotcontents",
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "group snapshot, stale cache of members", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumesnapshots",
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "group snapshot, stale cache of members' contents", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "volumesnapshotcontents",
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{
		name: "group snapshot, stale cache of claims", disruptionName: groupDeleted, disruption: deleteSnapshots, once: true, watchDelay: watchDelay, delayedResource: "persistentvolumeclaims",
		claims: 2, grouped: true, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot},
	},
	{name: "group snapshot, two leaders", claims: 2, grouped: true, leaders: 2, roles: snapshotters, background: provisioner, steps: []step{takeGroupSnapshot}},
	{name: "two leaders", handlesAreNames: true, leaders: 2},
	{name: "two leaders, then delete at any moment", disruptionName: claimDeleted, disruption: deleteClaimsAndWait, once: true, handlesAreNames: true, leaders: 2},
}

// A step is an action of users, or of the world.
type step = func(context.Context, *run)

const claimDeleted, detached, snapshotDeleted, groupDeleted = "claim deleted", "detached", "snapshot deleted", "group deleted"

// Roles. A volume has to be there before it is attached or grows; how that may
// fail has scenarios of its own.
var (
	// The roles. A volume must exist before it is attached or expanded; other scenarios
	// test how that may fail.
	provisioner            = []string{"csi-provisioner"}
	attacher               = []string{"csi-attacher"}
	resizer                = []string{"csi-resizer"}
	provisionerAndAttacher = []string{"csi-provisioner", "csi-attacher"}

	snapshotters = []string{"snapshot-controller", "csi-snapshotter"}
)

// testedRoles returns the roles that get faults.
func (sc *scenario) testedRoles() []string {
	if len(sc.roles) == 0 {
		return provisioner
	}
	return sc.roles
}

// allSteps returns all steps of the users.
func (sc *scenario) allSteps() []step {
	all := slices.Concat([]step{createClaims}, sc.steps, []step{deleteAll})
	if sc.takesSnapshots() {
		all = append(all, deleteRetained)
	}
	return all
}

// hasNodes reports whether the scenario needs nodes.
func (sc *scenario) hasNodes() bool { return sc.driver.AnyNode || len(sc.driver.Segments) > 0 }

var anyNode = csitest.Options{AnyNode: true}

var twoZones = csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}}

// Optional capabilities of drivers that take snapshots.
const (
	getSnapshot   = csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT
	listSnapshots = csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS
)

// slowSnapshots is a driver whose snapshots become ready some time after they are
// taken.
func slowSnapshots(extra ...csipb.ControllerServiceCapability_RPC_Type) csitest.Options {
	return csitest.Options{
		SnapshotReadyAfter: 2,
		Controller: append(extra, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT),
	}
}

// playsScheduler reports whether the run has to play the scheduler.
func (sc *scenario) playsScheduler() bool { return sc.class != nil && len(sc.driver.Segments) > 0 }

// onlyIn matches requests for a volume in one zone only.
func onlyIn(zone string) func(*csipb.CreateVolumeRequest) bool {
	return func(request *csipb.CreateVolumeRequest) bool {
		places := request.GetAccessibilityRequirements().GetRequisite()
		return len(places) == 1 && places[0].GetSegments()[zoneKey] == zone
	}
}

// cloneOfFirst makes the second claim of a run a clone of its first.
func cloneOfFirst(c *corev1.PersistentVolumeClaim) {
	if first, ok := strings.CutSuffix(c.Name, "-1"); ok {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: first + "-0"}
	}
}

func createClaims(ctx context.Context, r *run) {
	for i := range max(1, r.scenario.claims) {
		r.createClaim(ctx, fmt.Sprintf("%s-%d", r.name, i))
	}
}

// deleteClaims deletes the wanted claims without waiting: the source of a clone stays
// until the clone is done.
func deleteClaims(ctx context.Context, r *run) {
	for _, name := range r.wantedClaims() {
		r.deleteClaim(ctx, name)
	}
}

// restoreOfSnapshot makes every claim of a run a restore of its snapshot.
func restoreOfSnapshot(c *corev1.PersistentVolumeClaim) {
	run := c.Name[:strings.LastIndex(c.Name, "-")]
	c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &snapshotv1.SchemeGroupVersion.Group, Kind: "VolumeSnapshot", Name: run}
}

// deleteAll deletes the claims, the attachments and the snapshots without waiting: a
// snapshot stays while it is being restored.
func deleteAll(ctx context.Context, r *run) {
	detach(ctx, r)
	deleteClaims(ctx, r)
	r.deleteSnapshots(ctx)
}

// deleteClaimsAndWait deletes the wanted claims and waits until they are gone.
func deleteClaimsAndWait(ctx context.Context, r *run) {
	for _, name := range r.wantedClaims() {
		r.deleteClaim(ctx, name)
		for until := time.Now().Add(*settleTimeout); time.Now().Before(until); time.Sleep(pollInterval) {
			_, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
		}
	}
}

func replaceClaims(ctx context.Context, r *run) {
	names := r.wantedClaims()
	deleteClaimsAndWait(ctx, r)
	for _, name := range names {
		r.createClaim(ctx, name)
	}
}

func deleteFirstNode(ctx context.Context, r *run) { r.deleteNode(ctx, zones[0]) }
