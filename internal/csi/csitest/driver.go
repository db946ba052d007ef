package csitest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Driver is an in-memory CSI driver. It is safe for concurrent use.
type Driver struct {
	mu      sync.Mutex // for opts and state
	opts    Options
	missing map[csi.Method]fmt.Stringer // capability that the method needs and the options do not have
	state   state

	calls   callRecorder
	faults  faults
	hooks   atomic.Pointer[Hooks]
	latency atomic.Int64 // in nanoseconds
	server  server
}

// state is the storage, which survives a crash of the driver.
type state struct {
	last          int64 // number of the newest volume, snapshot or group
	volumes       map[string]*volume
	volumeNames   map[string]*volume
	snapshots     map[string]*snapshot
	snapshotNames map[string]*snapshot // members of groups have no name
	groups        map[string]*group
	groupNames    map[string]*group
	node          nodeState
}

type volume struct {
	number    int64
	req       *csipb.CreateVolumeRequest // without secrets
	info      *csipb.Volume              // replaced, never changed, so that responses can share it
	segment   int                        // index into the segments, -1 without topology
	mutable   map[string]string
	published map[string]publication // by node
}

type publication struct {
	readonly bool
	mode     *csipb.VolumeCapability
}

type snapshot struct {
	number  int64
	name    string
	info    *csipb.Snapshot // without ready_to_use
	reports int             // responses about it so far
}

// New creates a driver without volumes that is not listening yet.
func New(opts Options) *Driver {
	opts = opts.withDefaults()
	return &Driver{
		opts:    opts,
		missing: missingCapabilities(opts),
		state: state{
			volumes:       make(map[string]*volume),
			volumeNames:   make(map[string]*volume),
			snapshots:     make(map[string]*snapshot),
			snapshotNames: make(map[string]*snapshot),
			groups:        make(map[string]*group),
			groupNames:    make(map[string]*group),
			node:          nodeState{staged: make(map[string]string), targets: make(map[string]target)},
		},
		calls:  callRecorder{record: opts.Record, counts: make(map[csi.Method]int), running: make(map[string][]csi.Method)},
		faults: faults{queued: make(map[csi.Method][]fault)},
	}
}

// Reconfigure changes the driver's options, as an upgrade would: use it between
// [Driver.Crash] and [Driver.Restart]. The storage stays, and so does Record.
func (d *Driver) Reconfigure(change func(*Options)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.opts)
	d.opts = d.opts.withDefaults()
	d.missing = missingCapabilities(d.opts)
}

func (d *Driver) can(c csipb.ControllerServiceCapability_RPC_Type) bool {
	return slices.Contains(d.opts.Controller, c)
}

func (d *Driver) canNode(c csipb.NodeServiceCapability_RPC_Type) bool {
	return slices.Contains(d.opts.Node, c)
}

// addVolume stores a new volume. Numbers are never reused: a volume that is created
// again after it was deleted is another volume.
func (s *state) addVolume(v *volume) {
	s.last++
	v.number = s.last
	v.info.VolumeId = fmt.Sprintf("volume-%d", v.number)
	v.published = make(map[string]publication)
	v.mutable = maps.Clone(v.req.GetMutableParameters())
	s.volumes[v.info.VolumeId] = v
	s.volumeNames[v.req.GetName()] = v
}

func (s *state) removeVolume(v *volume) {
	delete(s.volumes, v.info.GetVolumeId())
	delete(s.volumeNames, v.req.GetName())
}

func (s *state) createSnapshot(name string, of *volume) *snapshot {
	snap := s.addSnapshot(of, timestamppb.Now())
	snap.name = name
	s.snapshotNames[name] = snap
	return snap
}

// addSnapshot stores a snapshot without a name.
func (s *state) addSnapshot(of *volume, at *timestamppb.Timestamp) *snapshot {
	s.last++
	snap := &snapshot{number: s.last, info: &csipb.Snapshot{
		SnapshotId:     fmt.Sprintf("snapshot-%d", s.last),
		SourceVolumeId: of.info.GetVolumeId(),
		SizeBytes:      of.info.GetCapacityBytes(),
		CreationTime:   at,
	}}
	s.snapshots[snap.info.GetSnapshotId()] = snap
	return snap
}

func (s *state) removeSnapshot(snap *snapshot) {
	delete(s.snapshots, snap.info.GetSnapshotId())
	delete(s.snapshotNames, snap.name)
}
