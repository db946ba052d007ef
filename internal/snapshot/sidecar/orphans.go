package sidecar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Orphans say how snapshots are looked for that are at the driver and that no
// content knows.
type Orphans struct {
	// Interval is the pause between two looks; 0 for none.
	Interval time.Duration
	// Age is how old one must be before it is reported. One of which the driver
	// does not say when it was cut is old enough.
	Age time.Duration
}

// AddFlags declares the flags.
func (o *Orphans) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.Interval, "orphan-check-interval", time.Hour,
		"how often to look for snapshots at the driver that no VolumeSnapshotContent knows, for drivers that list theirs; they are only reported; 0 for never")
	fs.DurationVar(&o.Age, "orphan-age", 24*time.Hour, "how old such a snapshot must be before it is reported")
}

// Validate tells all that is wrong at once.
func (o *Orphans) Validate() error {
	var errs []error
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("--orphan-check-interval %s must not be negative", o.Interval))
	}
	if o.Age < 0 {
		errs = append(errs, fmt.Errorf("--orphan-age %s must not be negative", o.Age))
	}
	return errors.Join(errs...)
}

// A finder compares, now and then, the driver's list of snapshots with the
// contents, and reports what no content knows. It never deletes: see
// docs/snapshot-metrics.md for why.
type finder struct {
	client, live client.Reader
	driver       *csi.Driver
	events       *kube.Events
	naming       snapshot.Naming
	options      *Orphans
	now          func() time.Time
	// told are the handles that the log has. After a restart it has them twice.
	told  map[string]bool
	found atomic.Pointer[found]
}

// found is what the last look has found.
type found struct {
	at      time.Time
	orphans []orphan
}

// FindOrphans adds the finder to a manager for which Setup was called with the
// kind of single snapshots.
func FindOrphans(m ctrl.Manager, driver *csi.Driver, events *kube.Events, naming snapshot.Naming, o *Orphans) error {
	if o.Interval == 0 {
		return nil
	}
	f := &finder{
		client: m.GetClient(), live: m.GetAPIReader(), driver: driver, events: events, naming: naming, options: o,
		now: time.Now, told: map[string]bool{},
	}
	if err := m.Add(f); err != nil {
		return fmt.Errorf("adding the search for orphans: %w", err)
	}
	return f.measure()
}

// Start looks after every interval, until ctx ends. It runs on the leader only.
// The first look comes somewhen in the first interval: on nodes many processes
// start at once. A look takes as long as it takes: each page of the list has the
// time of one call.
func (f *finder) Start(ctx context.Context) error {
	timer := time.NewTimer(rand.N(f.options.Interval)) //nolint:gosec // Not a secret.
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if f.driver.Info().Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS) {
			if err := f.look(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "The driver's snapshots could not be compared with the VolumeSnapshotContents")
			}
		}
		timer.Reset(f.options.Interval)
	}
}

// look compares once. What goes meanwhile was known before the list, and what
// comes meanwhile is known after it. Only where the cache leaves something over
// is the API server asked, for all contents: on a node the cache has those of the
// node only, and it may be late.
func (f *finder) look(ctx context.Context) error {
	contents := &snapshotv1.VolumeSnapshotContentList{}
	if err := f.client.List(ctx, contents, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing VolumeSnapshotContents: %w", err)
	}
	k := newKnown(f.driver.Info().Name)
	k.add(contents.Items)
	listed, err := f.list(ctx)
	if err != nil {
		return err
	}
	before := f.now().Add(-f.options.Age)
	if len(orphans(listed, k, before)) > 0 {
		if err := f.addLive(ctx, k); err != nil {
			return err
		}
	}
	result := &found{at: f.now(), orphans: orphans(listed, k, before)}
	for i := range result.orphans {
		result.orphans[i].named = f.naming.In(result.orphans[i].handle)
	}
	f.found.Store(result)
	f.report(ctx, result)
	return nil
}

// page is how many contents, or snapshots, are asked for at a time.
const page = 500

// addLive adds what the API server itself knows, page by page.
func (f *finder) addLive(ctx context.Context, to *known) error {
	for next := ""; ; {
		contents := &snapshotv1.VolumeSnapshotContentList{}
		if err := f.live.List(ctx, contents, client.Limit(page), client.Continue(next)); err != nil {
			return fmt.Errorf("listing VolumeSnapshotContents: %w", err)
		}
		to.add(contents.Items)
		if next = contents.Continue; next == "" {
			return nil
		}
	}
}

// list asks the driver for everything, once with each secret that its classes
// name for that: a snapshot may be visible to one of them only.
func (f *finder) list(ctx context.Context) (map[string]*csipb.Snapshot, error) {
	secrets, err := f.secrets(ctx)
	if err != nil {
		return nil, err
	}
	listed := map[string]*csipb.Snapshot{}
	for _, secret := range secrets {
		for entry, err := range f.driver.ListSnapshots(ctx, &csipb.ListSnapshotsRequest{MaxEntries: page, Secrets: secret}) {
			if err != nil {
				return nil, fmt.Errorf("listing the driver's snapshots: %w", err)
			}
			listed[entry.GetSnapshot().GetSnapshotId()] = entry.GetSnapshot()
		}
	}
	return listed, nil
}

// secrets are those for listing. One whose name depends on a content cannot be
// had here, and what only it could show is not found.
func (f *finder) secrets(ctx context.Context) ([]map[string]string, error) {
	classes, err := f.classes(ctx)
	if err != nil {
		return nil, err
	}
	var all []map[string]string
	seen := map[string]bool{}
	for i := range classes {
		ref, err := snapshot.Lister.Resolve(classes[i].Parameters, noTokens)
		if err != nil || seen[ref.String()] {
			continue
		}
		seen[ref.String()] = true
		values, err := kube.SecretData(ctx, f.live, ref)
		if err != nil {
			return nil, fmt.Errorf("preparing to list the driver's snapshots: %w", err)
		}
		all = append(all, values)
	}
	if len(seen) == 0 {
		all = append(all, nil)
	}
	return all, nil
}

// classes are the driver's.
func (f *finder) classes(ctx context.Context) ([]snapshotv1.VolumeSnapshotClass, error) {
	all := &snapshotv1.VolumeSnapshotClassList{}
	if err := f.client.List(ctx, all); err != nil {
		return nil, fmt.Errorf("listing VolumeSnapshotClasses: %w", err)
	}
	var own []snapshotv1.VolumeSnapshotClass
	for i := range all.Items {
		if all.Items[i].Driver == f.driver.Info().Name {
			own = append(own, all.Items[i])
		}
	}
	return own, nil
}
