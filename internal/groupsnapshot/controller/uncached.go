package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// recheckUncached is when a claim is checked again that a group needs while groups
	// are not watched.
	recheckUncached = 10 * time.Second
	// absentFor is how long the result is cached that there are no groups.
	absentFor = 30 * time.Second
	// forbiddenTimeout is how long the API server must have answered Forbidden before
	// that is final: while it starts, it forbids what it allows later.
	forbiddenTimeout = 10 * time.Second
)

// uncachedGroups reports which claims group snapshots need while these are not watched:
// their CRDs are not installed, or could not be listed yet. Each call is a request to the
// API server.
type uncachedGroups struct {
	apiReader client.Reader
	now       func() time.Time

	mu             sync.Mutex
	absentUntil    time.Time
	forbiddenSince time.Time
}

func (u *uncachedGroups) neededBy(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	if u.knownAbsent() {
		return "", nil
	}
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := u.checkList(u.apiReader.List(ctx, groups, client.InNamespace(claim.Namespace))); err != nil {
		return "", err
	}
	for i := range groups.Items {
		needs, err := groupNeedsClaim(ctx, u.apiReader, u.apiReader, &groups.Items[i], claim)
		if err != nil {
			return "", err
		}
		if needs {
			return describe(&groups.Items[i]), nil
		}
	}
	return "", nil
}

func (u *uncachedGroups) knownAbsent() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now().Before(u.absentUntil)
}

// checkList returns an error unless the list has shown which groups exist. If the CRDs
// are not installed, or this program has no permission to list groups, then it has never
// protected claims for groups.
func (u *uncachedGroups) checkList(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	switch {
	case err == nil:
		u.forbiddenSince = time.Time{}
		return nil
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
	case apierrors.IsForbidden(err):
		if u.forbiddenSince.IsZero() {
			u.forbiddenSince = now
		}
		if now.Sub(u.forbiddenSince) < forbiddenTimeout {
			return kube.Conflict("listing group snapshots is forbidden, and is retried: %w", err)
		}
	default:
		return fmt.Errorf("listing group snapshots, which may need a claim: %w", err)
	}
	u.absentUntil = now.Add(absentFor)
	return nil
}
