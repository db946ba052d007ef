package attach

import "sync"

// resyncRequests are the VolumeAttachments whose status differs from the
// driver's list, until the driver has been called again. They are lost in a
// restart; the next drift check finds them again.
type resyncRequests struct {
	mu    sync.Mutex
	names map[string]bool
}

func (f *resyncRequests) add(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names == nil {
		f.names = map[string]bool{}
	}
	f.names[name] = true
}

func (f *resyncRequests) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[name]
}

func (f *resyncRequests) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.names, name)
}
