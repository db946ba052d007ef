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

// OrphanOptions say how snapshots are looked for that are at the driver and that no
// content knows.
type OrphanOptions struct {
	// Interval is the pause between two looks; 0 for none.
	Interval time.Duration
	// Age is how old one must be before it is reported. One of which the driver
	// does not say when it was cut is old enough.
	Age time.Duration
}

// AddFlags declares the flags.
func (o *OrphanOptions) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.Interval, "orphan-check-interval", time.Hour,
		"how often to look for snapshots at the driver that no VolumeSnapshotContent knows, for drivers that list theirs; they are only reported; 0 for never")
	fs.DurationVar(&o.Age, "orphan-age", 24*time.Hour, "how old such a snapshot must be before it is reported")
}

// Validate tells all that is wrong at once.
func (o *OrphanOptions) Validate() error {
	var errs []error
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("--orphan-check-interval %s must not be negative", o.Interval))
	}
	if o.Age < 0 {
		errs = append(errs, fmt.Errorf("--orphan-age %s must not be negative", o.Age))
	}
	return errors.Join(errs...)
}

// A orphanScanner compares, now and then, the driver's list of snapshots with the
// contents, and reports what no content knows. It never deletes: see
// docs/snapshot-metrics.md for why.
type orphanScanner struct {
	client, apiReader client.Reader
	driver            *csi.Driver
	events            *kube.Events
	naming            snapshot.Naming
	options           *OrphanOptions
	now               func() time.Time
	// logged are the handles that the log has. After a restart it has them twice.
	logged map[string]bool
	result atomic.Pointer[scanResult]
}

// scanResult is what the last look has found.
type scanResult struct {
	at      time.Time
	orphans []orphan
}

// SetupOrphanScan adds the finder to a manager for which Setup was called with the
// kind of single snapshots.
func SetupOrphanScan(m ctrl.Manager, driver *csi.Driver, events *kube.Events, naming snapshot.Naming, o *OrphanOptions) error {
	if o.Interval == 0 {
		return nil
	}
	s := &orphanScanner{
		client: m.GetClient(), apiReader: m.GetAPIReader(), driver: driver, events: events, naming: naming, options: o,
		now: time.Now, logged: map[string]bool{},
	}
	if err := m.Add(s); err != nil {
		return fmt.Errorf("adding the search for orphans: %w", err)
	}
	return s.registerMetrics()
}

// Start looks after every interval, until ctx ends. It runs on the leader only.
// The first look comes somewhen in the first interval: on nodes many processes
// start at once. A look takes as long as it takes: each page of the list has the
// time of one call.
func (s *orphanScanner) Start(ctx context.Context) error {
	timer := time.NewTimer(rand.N(s.options.Interval)) //nolint:gosec // Not a secret.
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if s.driver.Info().Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS) {
			if err := s.scan(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "The driver's snapshots could not be compared with the VolumeSnapshotContents")
			}
		}
		timer.Reset(s.options.Interval)
	}
}

// scan compares once. What goes meanwhile was known before the list, and what
// comes meanwhile is known after it. Only where the cache leaves something over
// is the API server asked, for all contents: on a node the cache has those of the
// node only, and it may be late.
func (s *orphanScanner) scan(ctx context.Context) error {
	contents := &snapshotv1.VolumeSnapshotContentList{}
	if err := s.client.List(ctx, contents, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing VolumeSnapshotContents: %w", err)
	}
	k := newKnownSnapshots(s.driver.Info().Name)
	k.add(contents.Items)
	listed, err := s.listSnapshots(ctx)
	if err != nil {
		return err
	}
	before := s.now().Add(-s.options.Age)
	if len(orphans(listed, k, before)) > 0 {
		if err := s.addFromAPIServer(ctx, k); err != nil {
			return err
		}
	}
	result := &scanResult{at: s.now(), orphans: orphans(listed, k, before)}
	for i := range result.orphans {
		result.orphans[i].namedBySnapshotter = s.naming.Matches(result.orphans[i].handle)
	}
	s.result.Store(result)
	s.report(ctx, result)
	return nil
}

// pageSize is how many contents, or snapshots, are asked for at a time.
const pageSize = 500

// addFromAPIServer adds what the API server itself knows, page by page.
func (s *orphanScanner) addFromAPIServer(ctx context.Context, to *knownSnapshots) error {
	for next := ""; ; {
		contents := &snapshotv1.VolumeSnapshotContentList{}
		if err := s.apiReader.List(ctx, contents, client.Limit(pageSize), client.Continue(next)); err != nil {
			return fmt.Errorf("listing VolumeSnapshotContents: %w", err)
		}
		to.add(contents.Items)
		if next = contents.Continue; next == "" {
			return nil
		}
	}
}

// listSnapshots asks the driver for everything, once with each secret that its classes
// name for that: a snapshot may be visible to one of them only.
func (s *orphanScanner) listSnapshots(ctx context.Context) (map[string]*csipb.Snapshot, error) {
	secrets, err := s.listSecrets(ctx)
	if err != nil {
		return nil, err
	}
	listed := map[string]*csipb.Snapshot{}
	for _, secret := range secrets {
		for entry, err := range s.driver.ListSnapshots(ctx, &csipb.ListSnapshotsRequest{MaxEntries: pageSize, Secrets: secret}) {
			if err != nil {
				return nil, fmt.Errorf("listing the driver's snapshots: %w", err)
			}
			listed[entry.GetSnapshot().GetSnapshotId()] = entry.GetSnapshot()
		}
	}
	return listed, nil
}

// listSecrets are those for listing. One whose name depends on a content cannot be
// had here, and what only it could show is not found.
func (s *orphanScanner) listSecrets(ctx context.Context) ([]map[string]string, error) {
	classes, err := s.classes(ctx)
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
		values, err := kube.SecretData(ctx, s.apiReader, ref)
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
func (s *orphanScanner) classes(ctx context.Context) ([]snapshotv1.VolumeSnapshotClass, error) {
	all := &snapshotv1.VolumeSnapshotClassList{}
	if err := s.client.List(ctx, all); err != nil {
		return nil, fmt.Errorf("listing VolumeSnapshotClasses: %w", err)
	}
	var own []snapshotv1.VolumeSnapshotClass
	for i := range all.Items {
		if all.Items[i].Driver == s.driver.Info().Name {
			own = append(own, all.Items[i])
		}
	}
	return own, nil
}
