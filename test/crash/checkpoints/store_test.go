package checkpoints

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/store"
)

// compareStore compares what is stored with what Checkpoints say.
func (r *run) compareStore(ctx context.Context, all []v1alpha1.Checkpoint, found *result) {
	if r.scenario.leavesData {
		return
	}
	expected, permitted := map[string]bool{}, map[string]bool{}
	for i := range all {
		c := &all[i]
		for _, at := range c.Status.Containers {
			name := string(c.UID) + "/" + at.Name + ".ckpt"
			switch {
			case meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady):
				expected[name] = true
			case r.lost && at.Location != "": // Another agent deletes it with the Checkpoint.
				permitted[name], permitted[name+" (incomplete)"] = true, true
			}
		}
	}
	stored, err := r.stored(ctx)
	if err != nil {
		found.wrong = append(found.wrong, err.Error())
	}
	for _, name := range stored {
		if !expected[name] && !permitted[name] {
			found.leaks = append(found.leaks, "the store has "+name)
		}
		delete(expected, name)
	}
	for name := range expected {
		if !r.lost || r.scenario.bucket {
			found.wrong = append(found.wrong, "the store lacks "+name)
		}
	}
}

// stored returns what the store has: in a directory every file, and every directory that is
// empty.
func (r *run) stored(ctx context.Context) ([]string, error) {
	var all []string
	if r.scenario.bucket {
		bucket, err := r.open(ctx, &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{Storage: r.storage(), StorageNamespace: r.namespace}})
		if err != nil {
			return nil, err
		}
		err = bucket.List(ctx, "", func(i store.Info) error {
			if i.Incomplete {
				i.Key += " (incomplete)"
			}
			all = append(all, i.Key)
			return nil
		})
		return all, err
	}
	for i, n := range r.nodes {
		if i == 0 && r.lost {
			continue
		}
		names, err := filesIn(n.storeDir())
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

func filesIn(dir string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == dir {
			return nil
		}
		if err == nil && entry.IsDir() {
			inside, err := os.ReadDir(path)
			if len(inside) > 0 || err != nil {
				return err
			}
		}
		name, err := filepath.Rel(dir, path)
		all = append(all, name)
		return err
	})
	return all, err
}

// open opens the store of a Checkpoint, for the test.
func (r *run) open(ctx context.Context, c *v1alpha1.Checkpoint) (store.Store, error) {
	stores := r.stores(r.nodes[0])
	return stores.Open(ctx, c)
}

// verify reads what ready Checkpoints have stored, and compares it with their status. The pod
// of an archive is the one that the status names.
func (r *run) verify(ctx context.Context) (wrong []string) {
	all, err := r.checkpoints(ctx)
	r.must(err)
	for i := range all {
		c := &all[i]
		if !meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) || r.lost && !r.scenario.bucket || !c.DeletionTimestamp.IsZero() {
			continue
		}
		for _, at := range c.Status.Containers {
			if err := r.verifyArchive(ctx, c, at); err != nil {
				wrong = append(wrong, fmt.Sprintf("Checkpoint %s is ready, and the archive of container %s: %v", c.Name, at.Name, err))
			}
		}
	}
	return wrong
}

func (r *run) verifyArchive(ctx context.Context, c *v1alpha1.Checkpoint, at v1alpha1.ContainerCheckpoint) error {
	from, err := r.open(ctx, c)
	if err != nil {
		return err
	}
	object, err := from.Open(ctx, string(c.UID)+"/"+at.Name+".ckpt")
	if err != nil {
		return err
	}
	defer object.Close()
	options := archive.OpenOptions{Identity: archive.Identity{
		Namespace: c.Namespace, Pod: c.Spec.Target.PodName, PodUID: string(c.Status.PodUID), Container: at.Name, ContainerID: at.ContainerID,
	}}
	if r.scenario.encrypted {
		key, err := archive.ParseKey(r.secret)
		if err != nil {
			return err
		}
		options.Secrets.Keys = []archive.Key{key}
	}
	reader, err := archive.Open(object, object.Size(), options)
	if err != nil {
		return err
	}
	if encrypted := reader.Description().Encrypted; encrypted != r.scenario.encrypted {
		return fmt.Errorf("it is encrypted: %t", encrypted)
	}
	verified, err := reader.Verify(ctx)
	if err == nil && verified.Digest != at.Digest {
		err = fmt.Errorf("its digest is %s, and the status says %s", verified.Digest, at.Digest)
	}
	return err
}

// removeStored empties the store.
func (r *run) removeStored(t *testing.T) {
	t.Helper()
	dirs := []string{filepath.Join(r.s3.Dir, bucketName, r.namespace)}
	for _, n := range r.nodes {
		dirs = append(dirs, n.storeDir())
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
