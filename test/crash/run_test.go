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
	// leakAfter is how long all processes are silent before a volume without a reference
	// in the cluster counts as leaked: nobody will ever request it again.
	leakAfter = 3 * time.Second
	// nudgeAfter is how long all processes are silent before the run nudges Kubernetes'
	// controllers.
	nudgeAfter = 500 * time.Millisecond
)

// A run executes a scenario once, with at most one injection.
type run struct {
	*environment
	name string // prefix of its claims' names

	stepMu           sync.Mutex
	wanted           map[string]types.UID // claims that their users want, by name
	lastNode         map[string]string    // by claim: the node that was selected last
	wantedSnapshots  map[string]bool      // VolumeSnapshots that their users want, by name
	createdSnapshots []types.UID          // VolumeSnapshots that users have made
	wantedGroups     map[string]types.UID // VolumeGroupSnapshots that their users want, by name
	createdGroups    []types.UID          // VolumeGroupSnapshots that users have made
	members          map[string]bool      // VolumeSnapshots that are, or will be, in a group
	// retained has the VolumeSnapshotContents that may stay, and whether they must;
	// retainedGroups has the contents of groups.
	retained, retainedGroups map[string]bool

	trigger  string // the schedule's last trigger; empty without a schedule
	triggers int    // how many triggers there were

	importDeleted     bool              // the import of preProvisioned was deleted
	preProvisioned    string            // handle of the snapshot or group that users import
	wantedAttachments map[string]string // VolumeAttachments that are wanted, by name: the driver's id of the node
}

// result is what was found when a run ended or gave up.
type result struct {
	leaks []string // volumes without a reference in the cluster
	stuck []string // objects that are not in the wanted state
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

// execute performs the users' steps, and waits after each until everything is as they
// want it.
func (r *run) execute(ctx context.Context, s injection) result {
	r.trace.start(injection{}) // The preparation belongs to no run.
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

// runStep performs one step at a time: a disruption may come while claims are being
// created.
func (r *run) runStep(what func()) {
	r.stepMu.Lock()
	defer r.stepMu.Unlock()
	what()
}

// createClaim creates a claim of the scenario.
func (r *run) createClaim(ctx context.Context, name string) {
	r.createClaimWith(ctx, name, r.scenario.claim)
}

// createClaimWith creates a claim, which users want from now on.
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
	r.trace.note("claim %s was created", name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted[name] = made.UID
}

// deleteClaim deletes a claim, which nobody wants any more.
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

// wantedClaims returns the names of the wanted claims.
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

// waitSettled waits until everything is as wanted and the processes are idle. When it
// times out it returns what is wrong.
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
				found.other = errors.New("the processes do not become idle")
			}
			return found
		}
		time.Sleep(pollInterval)
	}
}

// observe compares the cluster and the driver with what is wanted. It also plays the
// scheduler and nudges Kubernetes' controllers.
func (r *run) observe(ctx context.Context) result {
	r.mu.Lock()
	violations, want, wantedSnapshots, attachments := errors.Join(r.violations...), maps.Clone(r.wanted), maps.Clone(r.wantedSnapshots), maps.Clone(r.wantedAttachments)
	groups, members, retained, retainedGroups := maps.Clone(r.wantedGroups), maps.Clone(r.members), maps.Clone(r.retained), maps.Clone(r.retainedGroups)
	r.mu.Unlock()

	// Read the driver first: a volume with a reference later had one before, too.
	there := &clusterState{environment: r.environment, driverVolumes: r.Driver.Volumes(), driverSnapshots: r.Driver.Snapshots(), driverGroups: r.Driver.Groups()}
	if err := errors.Join(violations, there.read(ctx, r)); err != nil {
		return result{other: err}
	}
	there.dropDeleted()
	if r.scenario.playsScheduler() {
		for i := range there.claims {
			r.schedule(ctx, &there.claims[i])
		}
	}
	if r.trace.isIdle(nudgeAfter) {
		r.nudgeControllers(ctx, there)
	}
	asScheduled, missing := there.scheduledSnapshots(ctx, r, want)
	maps.Copy(wantedSnapshots, asScheduled)
	found := there.compare(want)
	found.stuck = append(found.stuck, missing...)
	found.stuck = append(found.stuck, there.compareSnapshots(wantedSnapshots)...)
	found.stuck = append(found.stuck, there.compareSizes()...)
	there.compareAttachments(attachments, &found)
	there.compareContents(r, wantedSnapshots, retained, &found)
	there.compareGroups(groups, retainedGroups, members, &found)
	return found
}

// nudgeControllers patches volumes that are not Released although their claim is gone.
// The PV controller may miss that a claim is deleted while it is being bound, and
// resyncs only every 15 seconds. It also creates missing snapshot classes again.
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
		r.trace.note("volume %s, whose claim is gone, was patched: %v", v.Name, err)
	}
}

// clusterState is everything that exists in the cluster and at the driver.
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

// dropDeleted drops what was deleted at the driver while the cluster was read: it may
// have had its reference when the driver was read.
func (s *clusterState) dropDeleted() {
	volumes, snapshots, groups := s.Driver.Volumes(), s.Driver.Snapshots(), s.Driver.Groups()
	s.driverVolumes = slices.DeleteFunc(s.driverVolumes, func(v csitest.Volume) bool {
		return !slices.ContainsFunc(volumes, func(now csitest.Volume) bool { return now.ID == v.ID })
	})
	s.driverSnapshots = slices.DeleteFunc(s.driverSnapshots, func(v csitest.Snapshot) bool {
		return !slices.ContainsFunc(snapshots, func(now csitest.Snapshot) bool { return now.ID == v.ID })
	})
	s.driverGroups = slices.DeleteFunc(s.driverGroups, func(v csitest.Group) bool {
		return !slices.ContainsFunc(groups, func(now csitest.Group) bool { return now.ID == v.ID })
	})
}

func (s *clusterState) read(ctx context.Context, r *run) error {
	claims, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	leases, err := r.Client.CoordinationV1().Leases(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	s.claims, s.pendingOperations = claims.Items, leases.Items
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

// compare reports what is not as wanted.
func (s *clusterState) compare(want map[string]types.UID) result {
	var found result
	wrong := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	bound := map[types.UID]int{}
	for _, v := range s.volumes {
		owner := v.Spec.ClaimRef
		switch {
		case owner == nil || want[owner.Name] != owner.UID:
			wrong("PersistentVolume %s exists, %s, and nobody wants it", v.Name, v.Status.Phase)
		case !slices.ContainsFunc(s.driverVolumes, func(at csitest.Volume) bool { return s.handle(at) == v.Spec.CSI.VolumeHandle }):
			wrong("PersistentVolume %s has handle %s, which the driver does not have", v.Name, v.Spec.CSI.VolumeHandle)
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
			wrong("claim %s exists, %s, and nobody wants it", c.Name, c.Status.Phase)
		case s.cannotBeRestored(&c):
		case c.Status.Phase != corev1.ClaimBound || bound[c.UID] != 1:
			wrong("claim %s is %s with %d volumes", c.Name, c.Status.Phase, bound[c.UID])
		}
	}
	for name, uid := range want {
		if left[name] != uid {
			wrong("claim %s is gone although it is wanted", name)
		}
	}
	for _, i := range s.pendingOperations {
		wrong("pending operation %s is left", i.Name)
	}
	for _, at := range s.driverVolumes {
		if !s.isReferenced(at) {
			found.leaks = append(found.leaks, fmt.Sprintf("%s, named %s", at.ID, at.Name))
		}
	}
	return found
}

// isReferenced reports whether anything in the cluster refers to a volume at the
// driver: a PersistentVolume, a pending operation, or an unbound claim for which a
// volume of that name would be requested again.
func (s *clusterState) isReferenced(at csitest.Volume) bool {
	return slices.ContainsFunc(s.volumes, func(v corev1.PersistentVolume) bool { return v.Spec.CSI.VolumeHandle == s.handle(at) }) ||
		slices.ContainsFunc(s.pendingOperations, func(i coordinationv1.Lease) bool {
			return strings.HasSuffix(at.Name, strings.TrimPrefix(i.Name, "provision"))
		}) ||
		slices.ContainsFunc(s.claims, func(c corev1.PersistentVolumeClaim) bool {
			return c.Spec.VolumeName == "" && strings.HasSuffix(at.Name, string(c.UID))
		})
}

// schedule selects a node for a claim without one, as the scheduler would for a pod:
// one that exists, and not the same as last time.
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
		return // After a conflict the next observation decides again.
	}
}

// zoneKey is the topology key of an environment with topology: each zone has one node.
const zoneKey = "topology.csitest.holdfast.io/zone"

var zones = []string{"a", "b"}

func (s *environment) node(zone string) string { return s.Namespace + "-" + zone }

// createNodes creates the environment's nodes that do not exist.
func (s *environment) createNodes(ctx context.Context) error {
	if !s.scenario.hasNodes() {
		return nil
	}
	for _, zone := range zones {
		_, err := s.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: s.node(zone), Labels: map[string]string{zoneKey: zone}},
			// No pod may be scheduled here.
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

// deleteNode deletes a node for good.
func (s *environment) deleteNode(ctx context.Context, zone string) {
	err := errors.Join(
		s.Client.CoreV1().Nodes().Delete(ctx, s.node(zone), metav1.DeleteOptions{}),
		s.Client.StorageV1().CSINodes().Delete(ctx, s.node(zone), metav1.DeleteOptions{}))
	if err != nil && !apierrors.IsNotFound(err) {
		s.trace.note("node in zone %s: %v", zone, err)
		return
	}
	s.trace.note("the node in zone %s was deleted", zone)
}
