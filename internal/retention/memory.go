package retention

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// A memory saves requests. Nothing depends on it: a process that starts has none.
type memory struct {
	mu       sync.Mutex
	policies map[string]*policyMemory
}

type policyMemory struct {
	// deleted are the UIDs of Checkpoints whose deletion the cache did not show yet.
	deleted map[types.UID]bool
	// reported is when the status was written.
	reported time.Time
}

// get returns the memory of a policy, which is created with the first call. The caller has
// the lock.
func (m *memory) get(policy string) *policyMemory {
	if m.policies == nil {
		m.policies = map[string]*policyMemory{}
	}
	if m.policies[policy] == nil {
		m.policies[policy] = &policyMemory{deleted: map[types.UID]bool{}}
	}
	return m.policies[policy]
}

func (m *memory) forget(policy string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.policies, policy)
}

func (m *memory) addDeleted(policy string, uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.get(policy).deleted[uid] = true
}

// withoutDeleted returns the Checkpoints of a policy in the cache, without those that this
// process has deleted and that the cache does not show as deleted yet.
func (m *memory) withoutDeleted(policy string, cached []*v1alpha1.Checkpoint) []*v1alpha1.Checkpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	of, pending := m.get(policy), map[types.UID]bool{}
	left := slices.DeleteFunc(cached, func(c *v1alpha1.Checkpoint) bool {
		stale := of.deleted[c.UID] && !isDeleting(c)
		if stale {
			pending[c.UID] = true
		}
		return stale
	})
	of.deleted = pending
	return left
}

// reportedAt records when the status of a policy was written.
func (m *memory) reportedAt(policy string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.get(policy).reported = at
}

// lastReport returns when the status of a policy was written; zero if this process has not.
func (m *memory) lastReport(policy string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(policy).reported
}
