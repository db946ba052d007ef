package schedule

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// expectations are the children that the cache does not show yet, although this process has
// created them or has seen them in the API server. The cache of a schedule is trusted while
// there are none, so a run of many targets does not list all children for each of them. A
// process that has just become leader has no expectations, and lists from the API server
// first.
type expectations struct {
	mu         sync.Mutex
	bySchedule map[client.ObjectKey]*expectedNames
}

type expectedNames struct {
	schedule types.UID
	names    map[string]bool
}

// satisfied reports whether the cache shows all expected children of a schedule.
func (b *expectations) satisfied(cached *state) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.bySchedule[cached.schedule.key()]
	if u == nil || u.schedule != cached.schedule.UID {
		return false
	}
	for _, s := range cached.children {
		delete(u.names, s.name)
	}
	return len(u.names) == 0
}

// setFromAPIServer expects the children that are in the API server and not in the cache.
func (b *expectations) setFromAPIServer(live, cached *state) {
	u := &expectedNames{live.schedule.UID, map[string]bool{}}
	for _, s := range live.children {
		u.names[s.name] = true
	}
	for _, s := range cached.children {
		delete(u.names, s.name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bySchedule == nil {
		b.bySchedule = map[client.ObjectKey]*expectedNames{}
	}
	b.bySchedule[live.schedule.key()] = u
}

// expect adds a created child.
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
