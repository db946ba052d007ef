package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/store"
)

// save stores what was dumped, reads it back and records that the Checkpoint is ready.
func (r *Reconciler) save(ctx context.Context, c *v1alpha1.Checkpoint) error {
	dumps := r.staged.get(c.UID)
	saved := r.staged.results(c.UID)
	if saved == nil {
		var err error
		if saved, err = r.saveDumps(ctx, c, dumps); err != nil || saved == nil {
			return err
		}
		// If the API server cannot be reached now, a dump that was in RAM is gone: the container
		// would have to be frozen again.
		r.staged.setResults(c.UID, saved)
	}
	if err := r.recordReady(ctx, c, dumps, saved); err != nil {
		return err
	}
	if err := r.staged.discard(c.UID); err != nil {
		return fmt.Errorf("removing the dumps of Checkpoint %s/%s from the node: %w", c.Namespace, c.Name, err)
	}
	return nil
}

// saveDumps stores dumps and reads them back. It returns nil if that has failed and the
// failure is on record.
func (r *Reconciler) saveDumps(ctx context.Context, c *v1alpha1.Checkpoint, dumps []runtime.Dump) ([]archive.Result, error) {
	place, err := r.stores.Open(ctx, c)
	if err != nil {
		return nil, r.saveFailed(ctx, c, false, err)
	}
	key, err := r.stores.Key(ctx, c)
	if err != nil {
		return nil, r.saveFailed(ctx, c, false, err)
	}
	if err := r.recordLocations(ctx, c, place); err != nil {
		return nil, err
	}
	saved := make([]archive.Result, len(dumps))
	for i, d := range dumps {
		if saved[i], err = SaveDump(ctx, place, keyOf(c, d.Report().Container.Name), d, key); err != nil {
			return nil, r.saveFailed(ctx, c, inRAM(dumps[:i+1]), fmt.Errorf("storing container %s: %w", d.Report().Container.Name, err))
		}
	}
	return saved, nil
}

// keyOf returns the key of an archive in its store. It is derived from the UID: a name may
// be used again, and a name from a user may say more than it should.
func keyOf(c *v1alpha1.Checkpoint, container string) string {
	return string(c.UID) + "/" + container + ".ckpt"
}

// recordLocations records where the data will be, before there are any: what has no
// location has nothing to delete.
func (r *Reconciler) recordLocations(ctx context.Context, about *v1alpha1.Checkpoint, place *Place) error {
	return kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		for i := range c.Status.Containers {
			at := &c.Status.Containers[i]
			at.Location = place.Location(keyOf(c, at.Name))
		}
	})
}

// inRAM reports whether any dump is in RAM, which is given back while it is read: after a
// failure it cannot be read again.
func inRAM(dumps []runtime.Dump) bool {
	for _, d := range dumps {
		if isInRAM(d) {
			return true
		}
	}
	return false
}

func isInRAM(d runtime.Dump) bool {
	step := d.Report().Step
	return step == runtime.FreezeCopy || step == runtime.Tmpfs
}

// SaveDump stores one dump and verifies what is stored. What an earlier attempt may have
// left under the key, complete or not, is deleted first: nothing refers to it yet.
func SaveDump(ctx context.Context, to store.Store, key string, d runtime.Dump, secret *archive.Key) (archive.Result, error) {
	if err := to.Delete(ctx, key); err != nil {
		return archive.Result{}, fmt.Errorf("deleting what an earlier attempt has left: %w", err)
	}
	result, err := writeArchive(ctx, to, key, d, secret)
	if err != nil {
		return archive.Result{}, err
	}
	options := archive.OpenOptions{Identity: identityOf(d.Report().Container)}
	if secret != nil {
		options.Secrets.Keys = []archive.Key{*secret}
	}
	if err := verify(ctx, to, key, options, result.Digest); err != nil {
		return archive.Result{}, fmt.Errorf("verifying what was stored: %w", err)
	}
	return *result, nil
}

func writeArchive(ctx context.Context, to store.Store, key string, d runtime.Dump, secret *archive.Key) (result *archive.Result, err error) {
	out, err := to.Create(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Abort())
		}
	}()
	w, err := archive.NewWriter(out, headerOf(d.Report()), archive.WriteOptions{Key: secret})
	if err != nil {
		return nil, fmt.Errorf("starting the archive: %w", err)
	}
	defer w.Abort()
	err = d.Files(ctx, isInRAM(d), func(f runtime.File) error {
		return w.Add(ctx, archive.File{Name: f.Name, Size: f.Size, Mode: f.Mode, Reader: f.Reader})
	})
	if err != nil {
		return nil, err
	}
	if result, err = w.Close(); err != nil {
		return nil, err
	}
	return result, out.Commit()
}

func headerOf(report runtime.Report) archive.Header {
	capability := report.Capability
	header := archive.Header{Identity: identityOf(report.Container), Created: report.FrozenAt, Metadata: map[string]string{}}
	for name, value := range map[string]string{
		"engine": report.Engine, "step": string(report.Step), "image": report.ImageName, "imageDigest": report.ImageDigest,
		"runtime": capability.Runtime, "ociRuntime": capability.OCIRuntime, "criu": capability.CRIU,
		"kernel": capability.Kernel, "architecture": capability.Architecture, "cgroup": capability.CgroupMode,
	} {
		if value != "" {
			header.Metadata[name] = value
		}
	}
	return header
}

func identityOf(c runtime.Container) archive.Identity {
	return archive.Identity{Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, Container: c.Name, ContainerID: c.ID}
}

// verify reads back what was stored, and compares it with the digest of what was written.
func verify(ctx context.Context, from store.Store, key string, options archive.OpenOptions, digest string) error {
	object, err := from.Open(ctx, key)
	if err != nil {
		return err
	}
	defer object.Close()
	reader, err := archive.Open(object, object.Size(), options)
	if err != nil {
		return err
	}
	found, err := reader.Verify(ctx)
	if err != nil {
		return err
	}
	if found.Digest != digest {
		return fmt.Errorf("%w: the digest of what was read is %s, and %s was written", archive.ErrDamaged, found.Digest, digest)
	}
	return nil
}

// recordReady records the results.
func (r *Reconciler) recordReady(ctx context.Context, about *v1alpha1.Checkpoint, dumps []runtime.Dump, saved []archive.Result) error {
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		var total int64
		for i, d := range dumps {
			total += saved[i].Stored
			recordContainer(c, d.Report(), saved[i])
		}
		recordReports(c, dumps)
		c.Status.StoredSize = formatSize(total)
		now := metav1.NewTime(r.now())
		c.Status.CompletionTime, c.Status.NextAttemptTime, c.Status.WaitingFor = &now, nil, ""
		r.setReady(c, metav1.ConditionTrue, v1alpha1.ReasonCompleted, "the data are stored and were read back"+leftOut(c, dumps))
	})
	if err == nil {
		r.events.Normal(about, v1alpha1.ReasonCompleted, fmt.Sprintf("stored %s after %s frozen, engine %s, step %s", about.Status.StoredSize, about.Status.Frozen, about.Status.Engine, about.Status.Step))
	}
	return err
}

// leftOut says what the engine could not save.
func leftOut(c *v1alpha1.Checkpoint, dumps []runtime.Dump) string {
	report := dumps[0].Report()
	if report.Capability.Volumes || c.Status.EphemeralVolumes.Limit() == 0 {
		return ""
	}
	return fmt.Sprintf("; emptyDir volumes and /dev/shm are not among them: engine %s cannot save those", report.Engine)
}

func recordContainer(c *v1alpha1.Checkpoint, report runtime.Report, result archive.Result) {
	for i := range c.Status.Containers {
		if at := &c.Status.Containers[i]; at.Name == report.Container.Name {
			at.ContainerID, at.Image, at.ImageDigest = report.Container.ID, report.ImageName, cmp.Or(report.ImageDigest, at.ImageDigest)
			at.Volumes = report.Volumes
			at.RawBytes, at.StoredBytes, at.Digest = result.Raw, result.Stored, result.Digest
		}
	}
}

// recordReports records how the dumps were made: when the first container was frozen, the
// longest time that one was, and the slowest step.
func recordReports(c *v1alpha1.Checkpoint, dumps []runtime.Dump) {
	first, last := dumps[0].Report(), dumps[0].Report()
	slowest := first
	for _, d := range dumps {
		report := d.Report()
		if report.FrozenAt.Before(first.FrozenAt) {
			first = report
		}
		if report.FrozenAt.After(last.FrozenAt) {
			last = report
		}
		if report.Frozen > slowest.Frozen {
			slowest = report
		}
	}
	at := metav1.NewMicroTime(first.FrozenAt)
	c.Status.CheckpointTime, c.Status.Engine = &at, first.Engine
	c.Status.Step, c.Status.StepReason = string(slowest.Step), slowest.Reason
	c.Status.Frozen = slowest.Frozen.Round(time.Millisecond).String()
	if !slowest.Exact {
		c.Status.Frozen = "≤" + c.Status.Frozen
	}
	if len(dumps) > 1 {
		c.Status.Skew = last.FrozenAt.Sub(first.FrozenAt).Round(time.Microsecond).String()
	}
	c.Status.Environment = environmentOf(&slowest.Capability)
}

// formatSize returns a number of bytes with a unit, such as 52.3Ki.
func formatSize(bytes int64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprint(bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f%ci", value, units[unit])
}

func environmentOf(c *runtime.Capability) *v1alpha1.Environment {
	return &v1alpha1.Environment{
		Runtime: c.Runtime, OCIRuntime: c.OCIRuntime, CRIU: c.CRIU, Kernel: c.Kernel, Architecture: c.Architecture, Cgroup: c.CgroupMode,
		CPUFeatures: strings.Join(c.CPUFeatures, " "),
	}
}

// saveFailed records a failed upload. A dump on disk is kept until the deadline. One in
// RAM is given back while it is read, so the containers are dumped again.
func (r *Reconciler) saveFailed(ctx context.Context, c *v1alpha1.Checkpoint, lost bool, problem error) error {
	reason, who := storageReason(problem)
	if lost {
		if err := r.staged.discard(c.UID); err != nil {
			return fmt.Errorf("removing the dumps of Checkpoint %s/%s from the node: %w", c.Namespace, c.Name, err)
		}
		if c.Status.Attempts >= r.options.Attempts {
			return r.fail(ctx, c, reason, problem)
		}
	}
	if started := c.Status.StartTime; started != nil && r.now().Sub(started.Time) > r.options.UploadDeadline {
		return r.fail(ctx, c, reason, fmt.Errorf("after %s: %w", r.options.UploadDeadline, problem))
	}
	after := r.options.RetryMax
	if who == v1alpha1.WaitingForStore {
		after = r.options.backoff(c.Status.Attempts)
	}
	return r.retry(ctx, c, failure{reason: reason, waitingFor: who, after: after, problem: problem, attempts: c.Status.Attempts})
}

// storageReason returns the reason of a failed access to a store, and who can help.
func storageReason(err error) (reason, waitingFor string) {
	switch {
	case errors.Is(err, store.ErrInvalid):
		return v1alpha1.ReasonStorageInvalid, v1alpha1.WaitingForUser
	case errors.Is(err, store.ErrDenied):
		return v1alpha1.ReasonStorageDenied, v1alpha1.WaitingForUser
	case errors.Is(err, store.ErrFull):
		return v1alpha1.ReasonStorageFull, v1alpha1.WaitingForUser
	default:
		return v1alpha1.ReasonStorageUnreachable, v1alpha1.WaitingForStore
	}
}
