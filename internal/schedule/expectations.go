package schedule

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// expectations is what is known to be there beyond the cache: the snapshots that this
// process has made, or has seen at the API server, and that the cache has not shown
// yet. While there are none of a schedule the cache is believed, so a run of many
// claims does not list all of its snapshots for each. A process that knows nothing
// of a schedule yet, because it has just begun to lead, looks first.
type expectations struct {
	mu         sync.Mutex
	bySchedule map[client.ObjectKey]*expectedNames
}

type expectedNames struct {
	schedule types.UID
	names    map[string]bool
}

// satisfied tells whether the cache has all that is known to be there.
func (b *expectations) satisfied(cached *state) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.bySchedule[client.ObjectKeyFromObject(cached.schedule)]
	if u == nil || u.schedule != cached.schedule.UID {
		return false
	}
	for _, s := range cached.snapshots {
		delete(u.names, s.name)
	}
	return len(u.names) == 0
}

// setFromAPIServer takes note of what is at the API server and not in the cache.
func (b *expectations) setFromAPIServer(live, cached *state) {
	u := &expectedNames{live.schedule.UID, map[string]bool{}}
	for _, s := range live.snapshots {
		u.names[s.name] = true
	}
	for _, s := range cached.snapshots {
		delete(u.names, s.name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bySchedule == nil {
		b.bySchedule = map[client.ObjectKey]*expectedNames{}
	}
	b.bySchedule[client.ObjectKeyFromObject(live.schedule)] = u
}

// expect takes note of a snapshot that was made.
func (b *expectations) expect(schedule client.ObjectKey, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.bySchedule[schedule]; u != nil {
		u.names[name] = true
	}
}

func (b *expectations) delete(schedule client.ObjectKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.bySchedule, schedule)
}
