package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	pollInterval = 20 * time.Millisecond
	// leakAfter of all processes after which a volume that nothing in the cluster
	// tells of is a leak: nobody will ever ask for it again.
	leakAfter = 3 * time.Second
	// nudgeAfter is the silence after which other controllers are helped along.
	nudgeAfter = 500 * time.Millisecond
)

// A run is a scenario played once, with at most one strike.
type run struct {
	*environment
	name string // what its claims' names begin with

	stepMu           sync.Mutex
	wanted           map[string]types.UID // claims that their users want, by name
	lastNode         map[string]string    // by claim: the node that was last selected for it
	wantedSnapshots  map[string]bool      // VolumeSnapshots that their users want, by name
	createdSnapshots []types.UID          // VolumeSnapshots that users have made
	wantedGroups     map[string]types.UID // VolumeGroupSnapshots that their users want, by name
	createdGroups    []types.UID          // VolumeGroupSnapshots that users have made
	members          map[string]bool      // VolumeSnapshots that are in a group, or shall be
	// retained are VolumeSnapshotContents that may stay, and whether they must;
	// retainedGroups are contents of groups.
	retained, retainedGroups map[string]bool

	trigger  string // the last one that users have given their schedule; none if they have none
	triggers int    // how many they have given

	importDeleted     bool              // given was taken out of the cluster again
	preProvisioned    string            // the handle of what is at the driver, and unknown to the cluster
	wantedAttachments map[string]string // VolumeAttachments that are wanted, by name: the driver's id of the node
}

// result is what was found when a run was over or given up.
type result struct {
	leaks []string // volumes that nothing tells of
	stuck []string // objects that are not as they should be
	other error
}

func (r *result) ok() bool { return len(r.leaks) == 0 && len(r.stuck) == 0 && r.other == nil }

func (r *result) String() string {
	var lines []string
	for _, l := range r.leaks {
		lines = append(lines, "leaked: "+l)
	}
	for _, s := range r.stuck {
		lines = append(lines, "stuck: "+s)
	}
	if r.other != nil {
		lines = append(lines, "wrong: "+r.other.Error())
	}
	return strings.Join(lines, "\n")
}

// execute does what the scenario's users do, and waits each time until all is as
// they want it.
func (r *run) execute(ctx context.Context, s injection) result {
	r.trace.start(injection{}) // What is prepared is no point of the last run.
	if err := errors.Join(r.createNodes(ctx), r.createSourceSnapshot(ctx), r.createSnapshotClass(ctx), r.createPreProvisioned(ctx)); err != nil {
		return result{other: err}
	}
	defer r.deleteContent(context.WithoutCancel(ctx))
	for _, c := range r.controllers {
		if r.scenario.fromStart {
			c.kill()
		}
		c.startNewLog()
	}
	r.mu.Lock()
	r.createsReceived, r.createsDone, r.violations, r.events, r.snapshotsForbidden = 0, 0, nil, 0, false
	clear(r.unknownOutcomes)
	clear(r.requestedNames)
	r.disrupt = func() { r.runStep(func() { r.scenario.disruption(ctx, r) }) }
	r.mu.Unlock()
	r.trace.start(s)
	if r.scenario.fromStart {
		for _, c := range r.controllers {
			c.start()
		}
	}
	for _, act := range r.scenario.allSteps() {
		r.runStep(func() { act(ctx, r) })
		if found := r.waitSettled(ctx); !found.ok() {
			return found
		}
	}
	return result{other: r.checkEventCount()}
}

// runStep does what users do, one thing after another: a strike may come while
// claims are being made.
func (r *run) runStep(what func()) {
	r.stepMu.Lock()
	defer r.stepMu.Unlock()
	what()
}

// createClaim makes a claim as the scenario says.
func (r *run) createClaim(ctx context.Context, name string) {
	r.createClaimWith(ctx, name, r.scenario.claim)
}

// createClaimWith makes a claim that is wanted from now on.
func (r *run) createClaimWith(ctx context.Context, name string, change func(*corev1.PersistentVolumeClaim)) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{runLabel: r.name}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &r.Namespace,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if change != nil {
		change(claim)
	}
	made, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if err != nil {
		r.reportViolation(err)
		return
	}
	r.trace.note("claim %s was made", name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted[name] = made.UID
}

// deleteClaim deletes a claim, which nobody wants from now on.
func (r *run) deleteClaim(ctx context.Context, name string) {
	r.mu.Lock()
	delete(r.wanted, name)
	r.mu.Unlock()
	err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.reportViolation(err)
	}
	r.trace.note("claim %s was deleted", name)
}

// wantedClaims are the wanted claims.
func (r *run) wantedClaims() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.wanted {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// waitSettled waits until all is as wanted and the processes have come to rest. It
// gives up with what is wrong.
func (r *run) waitSettled(ctx context.Context) result {
	deadline := time.Now().Add(*settleTimeout)
	for {
		found := r.observe(ctx)
		switch {
		case found.other != nil:
			return found
		case found.ok() && r.trace.isIdle(r.scenario.watchDelay+pollInterval):
			return found
		case len(found.leaks) > 0 && len(found.stuck) == 0 && r.trace.isIdle(leakAfter):
			return found
		case time.Now().After(deadline):
			if found.ok() {
				found.other = errors.New("the processes do not come to rest")
			}
			return found
		}
		time.Sleep(pollInterval)
	}
}

// observe compares the cluster and the driver with what is wanted. On the way it
// does what the scheduler would do, and hurries the controllers of Kubernetes.
func (r *run) observe(ctx context.Context) result {
	r.mu.Lock()
	broken, want, kept, places := errors.Join(r.violations...), maps.Clone(r.wanted), maps.Clone(r.wantedSnapshots), maps.Clone(r.wantedAttachments)
	groups, members, retained, retainedGroups := maps.Clone(r.wantedGroups), maps.Clone(r.members), maps.Clone(r.retained), maps.Clone(r.retainedGroups)
	r.mu.Unlock()

	// The driver first: a volume that is on record later was so before, too.
	there := &clusterState{environment: r.environment, driverVolumes: r.Driver.Volumes(), driverSnapshots: r.Driver.Snapshots(), driverGroups: r.Driver.Groups()}
	if err := errors.Join(broken, there.read(ctx, r)); err != nil {
		return result{other: err}
	}
	if r.scenario.playsScheduler() {
		for i := range there.claims {
			r.schedule(ctx, &there.claims[i])
		}
	}
	if r.trace.isIdle(nudgeAfter) {
		r.nudgeControllers(ctx, there)
	}
	asScheduled, missing := there.scheduledSnapshots(ctx, r, want)
	maps.Copy(kept, asScheduled)
	found := there.compare(want)
	found.stuck = append(found.stuck, missing...)
	found.stuck = append(found.stuck, there.compareSnapshots(kept)...)
	found.stuck = append(found.stuck, there.compareSizes()...)
	there.compareAttachments(places, &found)
	there.compareContents(r, kept, retained, &found)
	there.compareGroups(groups, retainedGroups, members, &found)
	return found
}

// nudgeControllers touches volumes that are not Released yet when their claim has gone. The
// PV controller may miss that its claim goes while it is binding the two, and
// looks again every 15 seconds; nobody else has anything to do about them. What
// snapshots need is there again when nothing but that is missing.
func (r *run) nudgeControllers(ctx context.Context, there *clusterState) {
	if err := r.createSnapshotClass(ctx); err != nil {
		r.reportViolation(err)
	}
	for _, v := range there.volumes {
		gone := !slices.ContainsFunc(there.claims, func(c corev1.PersistentVolumeClaim) bool { return c.UID == v.Spec.ClaimRef.UID })
		if !gone || v.Status.Phase == corev1.VolumeReleased {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/touched":%q}}}`, time.Now())
		_, err := r.Client.CoreV1().PersistentVolumes().Patch(ctx, v.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		r.trace.note("volume %s, whose claim has gone, was touched: %v", v.Name, err)
	}
}

// clusterState is all that there is of a world's claims.
type clusterState struct {
	*environment
	driverVolumes     []csitest.Volume
	claims            []corev1.PersistentVolumeClaim
	volumes           []corev1.PersistentVolume
	pendingOperations []coordinationv1.Lease

	snapshots       []snapshotv1.VolumeSnapshot
	contents        []snapshotv1.VolumeSnapshotContent
	driverSnapshots []csitest.Snapshot // at the driver

	groups        []groupv1.VolumeGroupSnapshot
	groupContents []groupv1.VolumeGroupSnapshotContent
	driverGroups  []csitest.Group // at the driver

	attachments []storagev1.VolumeAttachment
}

func (s *clusterState) read(ctx context.Context, r *run) error {
	claims, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	intents, err := r.Client.CoordinationV1().Leases(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	s.claims, s.pendingOperations = claims.Items, intents.Items
	if s.volumes, err = r.ListPVs(ctx); err != nil {
		return err
	}
	if s.attachments, err = r.listAttachments(ctx); err != nil {
		return err
	}
	if s.scenario.takesSnapshots() {
		if s.contents, err = r.ListContents(ctx, r.api); err != nil {
			return err
		}
		if err := s.readGroups(ctx); err != nil {
			return err
		}
	}
	s.snapshots, err = r.listSnapshots(ctx)
	return err
}

// compare tells what is not as wanted.
func (s *clusterState) compare(want map[string]types.UID) result {
	var found result
	wrong := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	bound := map[types.UID]int{}
	for _, v := range s.volumes {
		owner := v.Spec.ClaimRef
		switch {
		case owner == nil || want[owner.Name] != owner.UID:
			wrong("PersistentVolume %s is there, %s, and nobody wants it", v.Name, v.Status.Phase)
		case !slices.ContainsFunc(s.driverVolumes, func(at csitest.Volume) bool { return s.handle(at) == v.Spec.CSI.VolumeHandle }):
			wrong("PersistentVolume %s says %s, which the driver does not have", v.Name, v.Spec.CSI.VolumeHandle)
		case v.Status.Phase != corev1.VolumeBound:
			wrong("PersistentVolume %s is %s", v.Name, v.Status.Phase)
		default:
			bound[owner.UID]++
		}
	}
	left := map[string]types.UID{}
	for _, c := range s.claims {
		left[c.Name] = c.UID
		switch {
		case want[c.Name] != c.UID:
			wrong("claim %s is there, %s, and nobody wants it", c.Name, c.Status.Phase)
		case s.cannotBeRestored(&c):
		case c.Status.Phase != corev1.ClaimBound || bound[c.UID] != 1:
			wrong("claim %s is %s with %d volumes", c.Name, c.Status.Phase, bound[c.UID])
		}
	}
	for name, uid := range want {
		if left[name] != uid {
			wrong("claim %s is gone and was wanted", name)
		}
	}
	for _, i := range s.pendingOperations {
		wrong("intent %s is on record", i.Name)
	}
	for _, at := range s.driverVolumes {
		if !s.isReferenced(at) {
			found.leaks = append(found.leaks, fmt.Sprintf("%s, named %s", at.ID, at.Name))
		}
	}
	return found
}

// isReferenced tells whether anything in the cluster leads to a volume at the driver: a
// PersistentVolume, an intent, or a claim that has none yet and for which a
// volume of that name would be asked for again.
func (s *clusterState) isReferenced(at csitest.Volume) bool {
	return slices.ContainsFunc(s.volumes, func(v corev1.PersistentVolume) bool { return v.Spec.CSI.VolumeHandle == s.handle(at) }) ||
		slices.ContainsFunc(s.pendingOperations, func(i coordinationv1.Lease) bool {
			return strings.HasSuffix(at.Name, strings.TrimPrefix(i.Name, "provision"))
		}) ||
		slices.ContainsFunc(s.claims, func(c corev1.PersistentVolumeClaim) bool {
			return c.Spec.VolumeName == "" && strings.HasSuffix(at.Name, string(c.UID))
		})
}

// schedule selects a node for a claim that has none, as the scheduler would
// for its pod: another one than the last time, and one that is there.
func (r *run) schedule(ctx context.Context, claim *corev1.PersistentVolumeClaim) {
	if claim.Annotations[kube.AnnSelectedNode] != "" || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return
	}
	for _, zone := range zones {
		name := r.node(zone)
		if name == r.lastNode[claim.Name] {
			continue
		}
		if _, err := r.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			continue
		}
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, kube.AnnSelectedNode, name)
		if _, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err == nil {
			r.lastNode[claim.Name] = name
			r.trace.note("claim %s was scheduled to zone %s", claim.Name, zone)
		}
		return // If it has changed, the next look decides again.
	}
}

// Nodes of a stage with topology: one in each zone.
const zoneKey = "topology.csitest.holdfast.io/zone"

var zones = []string{"a", "b"}

func (s *environment) node(zone string) string { return s.Namespace + "-" + zone }

// createNodes makes the stage's nodes, those that the last run has deleted.
func (s *environment) createNodes(ctx context.Context) error {
	if !s.scenario.hasNodes() {
		return nil
	}
	for _, zone := range zones {
		_, err := s.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: s.node(zone), Labels: map[string]string{zoneKey: zone}},
			// No pod of anybody else's may come here.
			Spec: corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "example.com/made-up", Effect: corev1.TaintEffectNoSchedule}}},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		_, err = s.Client.StorageV1().CSINodes().Create(ctx, &storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{Name: s.node(zone)},
			Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: s.Name, NodeID: zone, TopologyKeys: []string{zoneKey}}}},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// deleteNode lets a node go for good.
func (s *environment) deleteNode(ctx context.Context, zone string) {
	err := errors.Join(
		s.Client.CoreV1().Nodes().Delete(ctx, s.node(zone), metav1.DeleteOptions{}),
		s.Client.StorageV1().CSINodes().Delete(ctx, s.node(zone), metav1.DeleteOptions{}))
	if err != nil && !apierrors.IsNotFound(err) {
		s.trace.note("node in zone %s: %v", zone, err)
		return
	}
	s.trace.note("the node in zone %s is gone", zone)
}
