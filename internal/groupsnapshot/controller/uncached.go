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
	// recheckUncached is how long after its last check a claim is checked again that a
	// group needs while groups are not watched.
	recheckUncached = 10 * time.Second
	// absentFor is how long it is believed that there are no groups to be seen.
	absentFor = 30 * time.Second
	// forbiddenTimeout is how long the API server must have said that groups may not be seen:
	// while it starts it says so of what it will allow.
	forbiddenTimeout = 10 * time.Second
)

// uncachedGroups answers which claims groups need while nobody works on groups: their kinds
// are not installed, or could not be listed yet. Then each question is a request.
type uncachedGroups struct {
	apiReader client.Reader
	now       func() time.Time

	mu             sync.Mutex
	absentUntil    time.Time
	forbiddenSince time.Time
}

func (u *uncachedGroups) needsClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if u.knownAbsent() {
		return false, nil
	}
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err := u.checkList(u.apiReader.List(ctx, groups, client.InNamespace(claim.Namespace))); err != nil {
		return false, err
	}
	for i := range groups.Items {
		needs, err := groupNeedsClaim(ctx, u.apiReader, u.apiReader, &groups.Items[i], claim)
		if err != nil || needs {
			return needs, err
		}
	}
	return false, nil
}

func (u *uncachedGroups) knownAbsent() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now().Before(u.absentUntil)
}

// checkList judges how listing groups has ended: with an error if it is not known whether
// there are any. Where the kinds are not installed, or this program has no right to
// them, it has protected no claims for groups.
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
			return kube.Conflict("whether groups may be listed is asked again: %w", err)
		}
	default:
		return fmt.Errorf("listing group snapshots, which may need a claim: %w", err)
	}
	u.absentUntil = now.Add(absentFor)
	return nil
}
