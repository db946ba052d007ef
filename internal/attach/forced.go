package attach

import "sync"

// resyncRequests are the VolumeAttachments whose status the driver's own list has
// contradicted, until the driver has been asked again. A restart forgets them;
// the next survey finds them again.
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
