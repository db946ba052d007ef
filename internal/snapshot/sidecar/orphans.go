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

// OrphanOptions configure the scan for orphaned snapshots: snapshots at the driver that no
// content refers to.
type OrphanOptions struct {
	// Interval is the pause between two scans; 0 disables them.
	Interval time.Duration
	// Age is how old an orphan must be before it is reported. If the driver does not report
	// its creation time, it counts as old enough.
	Age time.Duration
}

// AddFlags declares the flags.
func (o *OrphanOptions) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.Interval, "orphan-check-interval", time.Hour,
		"how often to scan for snapshots at the driver that no VolumeSnapshotContent refers to, if the driver supports LIST_SNAPSHOTS; they are only reported, never deleted; 0 disables the scan")
	fs.DurationVar(&o.Age, "orphan-age", 24*time.Hour, "how old an orphaned snapshot must be before it is reported")
}

// Validate returns all errors joined.
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

// An orphanScanner compares the driver's list of snapshots with the contents and reports
// orphans. It never deletes them: the documentation of the metrics says why.
type orphanScanner struct {
	client, apiReader client.Reader
	driver            *csi.Driver
	events            *kube.Events
	naming            snapshot.Naming
	options           *OrphanOptions
	now               func() time.Time
	// logged are the handles that were logged. After a restart, they are logged again.
	logged map[string]bool
	result atomic.Pointer[scanResult]
}

// A scanResult is the result of one scan.
type scanResult struct {
	at      time.Time
	orphans []orphan
}

// SetupOrphanScan adds the scanner to a manager. Setup must have been called with SingleKind.
func SetupOrphanScan(m ctrl.Manager, driver *csi.Driver, events *kube.Events, naming snapshot.Naming, o *OrphanOptions) error {
	if o.Interval == 0 {
		return nil
	}
	s := &orphanScanner{
		client: m.GetClient(), apiReader: m.GetAPIReader(), driver: driver, events: events, naming: naming, options: o,
		now: time.Now, logged: map[string]bool{},
	}
	if err := m.Add(s); err != nil {
		return fmt.Errorf("adding the scanner for orphaned snapshots: %w", err)
	}
	return s.registerMetrics()
}

// Start scans in intervals until ctx is done. It runs on the leader only. The first scan
// starts at a random time within the first interval, because with one csi-snapshotter per
// node many processes start at once. A scan has no deadline; the call for each page has one.
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

// scan does one scan. Contents are read before the driver's snapshots, so a snapshot that is
// deleted meanwhile is known. If the cache leaves orphans, all contents are read from the API
// server after the list: a snapshot that was created meanwhile is known then, the cache may
// be stale, and on a node it has only the contents of that node.
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

// pageSize is how many contents or snapshots are listed at a time.
const pageSize = 500

// addFromAPIServer adds all contents from the API server, page by page.
func (s *orphanScanner) addFromAPIServer(ctx context.Context, to *knownSnapshots) error {
	err := kube.EachPage(ctx, s.apiReader, pageSize, func(page *snapshotv1.VolumeSnapshotContentList) error {
		to.add(page.Items)
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing VolumeSnapshotContents: %w", err)
	}
	return nil
}

// listSnapshots lists all snapshots at the driver, once with each secret that its classes
// name for listing: a snapshot may be visible with one of them only.
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

// listSecrets reads the secrets for listing. A secret whose name depends on a content cannot
// be resolved here. Snapshots that are visible only with that secret are not found.
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
			return nil, fmt.Errorf("reading the secret for listing snapshots: %w", err)
		}
		all = append(all, values)
	}
	if len(seen) == 0 {
		all = append(all, nil)
	}
	return all, nil
}

// classes returns the driver's classes.
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
