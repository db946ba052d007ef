package orphan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/store"
)

// pageSize is how many Checkpoints are read at once. The agent is small.
const pageSize = 200

// A Finder looks for orphans from time to time.
type Finder struct {
	// Client writes the status of the CheckpointNode.
	Client client.Client
	// APIReader is not cached: what a cache does not show yet would be an orphan.
	APIReader client.Reader
	// Node is the name of the node.
	Node string
	// PolicyNamespace is the namespace of the Secrets that policies name: the agent's own.
	PolicyNamespace string
	// Interval is the pause between two looks.
	Interval time.Duration
	// Local is the storage of the backend local on this node.
	Local v1alpha1.CheckpointStorage
	// Open opens the store that the status of a Checkpoint names. location returns where a key
	// is, for the user.
	Open func(ctx context.Context, c *v1alpha1.Checkpoint) (s store.Store, location func(key string) string, err error)

	now func() time.Time // nil for the real one
}

// Start looks for orphans until ctx ends. The first look is at a random time within the
// first interval: the agents of a cluster may be started together.
func (f *Finder) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx)
	pause := rand.N(f.Interval) //nolint:gosec // G404: it only spreads load.
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = f.Interval
		if err := f.look(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Could not look for orphaned data in all stores; retrying", "after", pause)
		}
	}
}

// look lists all stores and reports what belongs to no Checkpoint. A store that cannot be
// listed does not hide what is in the others.
func (f *Finder) look(ctx context.Context) error {
	own := &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{Storage: &f.Local}}
	orphans, err := f.lookInto(ctx, own)
	if err != nil {
		return errors.Join(err, f.report(ctx, nil, err))
	}
	buckets, err := f.buckets(ctx)
	if err != nil {
		return err
	}
	var errs []error
	listed := map[bucket]bool{}
	for _, c := range buckets {
		if listed[bucketOf(c)] {
			continue
		}
		more, err := f.lookInto(ctx, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		listed[bucketOf(c)] = true
		orphans = append(orphans, more...)
	}
	err = errors.Join(errs...)
	return errors.Join(err, f.report(ctx, orphans, err))
}

// lookInto returns the orphans in the store that the status of a Checkpoint names. The store
// is listed before the Checkpoints are: whatever is in it then had one.
func (f *Finder) lookInto(ctx context.Context, c *v1alpha1.Checkpoint) ([]found, error) {
	s, location, err := f.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	p := &place{s, location}
	all, err := p.list(ctx, f.clock())
	if err != nil || len(all) == 0 {
		return nil, err
	}
	owners := map[types.UID]bool{}
	if err := f.eachCheckpoint(ctx, func(c *v1alpha1.Checkpoint) { owners[c.UID] = true }); err != nil {
		return nil, err
	}
	return p.confirm(ctx, slices.DeleteFunc(all, func(o found) bool { return owners[uidOf(o.Key)] }))
}

func (f *Finder) clock() time.Time {
	if f.now != nil {
		return f.now()
	}
	return time.Now()
}

// eachCheckpoint calls each for all Checkpoints of the cluster, page by page.
func (f *Finder) eachCheckpoint(ctx context.Context, each func(*v1alpha1.Checkpoint)) error {
	err := kube.EachPage(ctx, f.APIReader, pageSize, func(page *v1alpha1.CheckpointList) error {
		for i := range page.Items {
			each(&page.Items[i])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing Checkpoints: %w", err)
	}
	return nil
}

// A bucket is a place in a bucket, whoever names it.
type bucket struct{ endpoint, name, prefix string }

func bucketOf(c *v1alpha1.Checkpoint) bucket {
	s := c.Status.Storage.S3
	return bucket{s.Endpoint, s.Bucket, s.Prefix}
}

// buckets returns Checkpoints whose status names the buckets that this agent looks into: one
// for each bucket and Secret that a policy or a Checkpoint names.
func (f *Finder) buckets(ctx context.Context) ([]*v1alpha1.Checkpoint, error) {
	if mine, err := f.isFirst(ctx); err != nil || !mine {
		return nil, err
	}
	var all []*v1alpha1.Checkpoint
	known := map[string]bool{}
	add := func(storage *v1alpha1.CheckpointStorage, namespace string) {
		if storage == nil || storage.Backend != v1alpha1.BackendS3 || storage.S3 == nil {
			return
		}
		s := storage.S3
		id := fmt.Sprintf("%q %q %q %q ", s.Endpoint, s.Bucket, s.Prefix, namespace)
		if ref := s.CredentialsSecretRef; ref != nil {
			id += ref.Name
		}
		if !known[id] {
			known[id] = true
			all = append(all, &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{Storage: storage.DeepCopy(), StorageNamespace: namespace}})
		}
	}
	var policies v1alpha1.CheckpointPolicyList
	if err := f.APIReader.List(ctx, &policies); err != nil {
		return nil, fmt.Errorf("listing CheckpointPolicies: %w", err)
	}
	for i := range policies.Items {
		add(policies.Items[i].Spec.Storage, f.PolicyNamespace)
	}
	err := f.eachCheckpoint(ctx, func(c *v1alpha1.Checkpoint) { add(c.Status.Storage, c.Status.StorageNamespace) })
	return all, err
}

// isFirst reports whether this agent is that of the first ready CheckpointNode.
func (f *Finder) isFirst(ctx context.Context) (bool, error) {
	var nodes v1alpha1.CheckpointNodeList
	if err := f.APIReader.List(ctx, &nodes); err != nil {
		return false, fmt.Errorf("listing CheckpointNodes: %w", err)
	}
	first := ""
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if meta.IsStatusConditionTrue(n.Status.Conditions, v1alpha1.ConditionReady) && (first == "" || n.Name < first) {
			first = n.Name
		}
	}
	return first == f.Node, nil
}
