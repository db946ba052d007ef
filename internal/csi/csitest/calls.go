package csitest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Call is a call that has ended.
type Call struct {
	Method  csi.Method
	Subject string // the volume, snapshot or group that a controller call is about
	Request any    // with its secrets
	Code    codes.Code
}

// Volume is a volume that exists.
type Volume struct {
	Name     string
	ID       string
	Bytes    int64
	Nodes    []string // that it is published on, sorted
	Mutable  map[string]string
	Info     *csipb.Volume
	SourceID string // of the volume or snapshot that is its content source
	Params   map[string]string
}

// Snapshot is a snapshot that exists.
type Snapshot struct {
	Name     string
	ID       string
	SourceID string
	Bytes    int64
	GroupID  string // of the group that it belongs to
}

// Group is a group of snapshots that exists.
type Group struct {
	Name      string
	ID        string
	MemberIDs []string // in the order of the requested volumes
	Params    map[string]string
}

type callRecorder struct {
	mu       sync.Mutex
	counts   map[csi.Method]int
	running  map[string][]csi.Method // by subject
	overlaps []string
	record   bool
	log      []Call
}

func (s *callRecorder) begin(call *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[call.Method]++
	if call.Subject == "" {
		return
	}
	for _, other := range s.running[call.Subject] {
		s.overlaps = append(s.overlaps, fmt.Sprintf("%s while %s of %s was running", call.Method, other, call.Subject))
	}
	s.running[call.Subject] = append(s.running[call.Subject], call.Method)
}

func (s *callRecorder) end(call *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record {
		s.log = append(s.log, *call)
	}
	if call.Subject == "" {
		return
	}
	left := s.running[call.Subject]
	if i := slices.Index(left, call.Method); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if len(left) == 0 {
		delete(s.running, call.Subject)
		return
	}
	s.running[call.Subject] = left
}

// subjectOf is the id of the volume, snapshot or group that a request is about. A
// create request is about the existing object of that name, if there is one, so
// that an overlap with its deletion is recorded.
func (d *Driver) subjectOf(req any) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		return d.state.volumeSubject(r.GetName())
	case *csipb.CreateSnapshotRequest:
		return d.state.snapshotSubject(r.GetName())
	case *csipb.CreateVolumeGroupSnapshotRequest:
		return d.state.groupSubject(r.GetName())
	case *csipb.ListSnapshotsRequest:
		return "" // a list, even if it is filtered by an id
	case interface{ GetVolumeId() string }:
		return r.GetVolumeId()
	case interface{ GetSnapshotId() string }:
		return r.GetSnapshotId()
	case interface{ GetGroupSnapshotId() string }:
		return r.GetGroupSnapshotId()
	default:
		return ""
	}
}

func (s *state) volumeSubject(name string) string {
	if v := s.volumeNames[name]; v != nil {
		return v.info.GetVolumeId()
	}
	return "volume named " + name
}

func (s *state) snapshotSubject(name string) string {
	if snap := s.snapshotNames[name]; snap != nil {
		return snap.info.GetSnapshotId()
	}
	return "snapshot named " + name
}

func (s *state) groupSubject(name string) string {
	if g := s.groupNames[name]; g != nil {
		return g.id
	}
	return "group snapshot named " + name
}

// Calls is the number of calls of the method.
func (d *Driver) Calls(method csi.Method) int {
	d.calls.mu.Lock()
	defer d.calls.mu.Unlock()
	return d.calls.counts[method]
}

// Log returns all ended calls in order, if Options.Record is set.
func (d *Driver) Log() []Call {
	d.calls.mu.Lock()
	defer d.calls.mu.Unlock()
	return slices.Clone(d.calls.log)
}

// Overlaps describes the calls that came while another call about the same object
// was running. There should be none.
func (d *Driver) Overlaps() []string {
	d.calls.mu.Lock()
	defer d.calls.mu.Unlock()
	return slices.Clone(d.calls.overlaps)
}

// Volumes returns the existing volumes, oldest first.
func (d *Driver) Volumes() []Volume {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Volume
	for _, v := range d.state.oldestVolumes() {
		source := v.info.GetContentSource()
		all = append(all, Volume{
			Name: v.req.GetName(), ID: v.info.GetVolumeId(), Bytes: v.info.GetCapacityBytes(), Info: v.info,
			Nodes: slices.Sorted(maps.Keys(v.published)), Mutable: maps.Clone(v.mutable), Params: maps.Clone(v.req.GetParameters()),
			SourceID: cmp.Or(source.GetSnapshot().GetSnapshotId(), source.GetVolume().GetVolumeId()),
		})
	}
	return all
}

// Snapshots returns the existing snapshots, oldest first.
func (d *Driver) Snapshots() []Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Snapshot
	for _, s := range d.state.oldestSnapshots() {
		all = append(all, Snapshot{Name: s.name, ID: s.info.GetSnapshotId(), SourceID: s.info.GetSourceVolumeId(), Bytes: s.info.GetSizeBytes(), GroupID: s.info.GetGroupSnapshotId()})
	}
	return all
}

// Groups returns the existing groups of snapshots, oldest first. Their members are
// among the Snapshots too.
func (d *Driver) Groups() []Group {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Group
	for _, g := range slices.SortedFunc(maps.Values(d.state.groups), func(a, b *group) int { return cmp.Compare(a.number, b.number) }) {
		all = append(all, Group{Name: g.name, ID: g.id, MemberIDs: g.memberIDs(), Params: maps.Clone(g.params)})
	}
	return all
}

func (s *state) oldestVolumes() []*volume {
	return slices.SortedFunc(maps.Values(s.volumes), func(a, b *volume) int { return cmp.Compare(a.number, b.number) })
}

func (s *state) oldestSnapshots() []*snapshot {
	return slices.SortedFunc(maps.Values(s.snapshots), func(a, b *snapshot) int { return cmp.Compare(a.number, b.number) })
}
