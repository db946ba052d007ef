package runtime

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// A Container is a running container of the node.
type Container struct {
	Namespace, Pod, PodUID string
	// Name is the container's name in the pod.
	Name string
	// ID is the container's ID at the CRI runtime, without the "containerd://" of the pod's
	// status.
	ID string
	// ImageID is its image, as the pod's status has it: NAME@sha256:… if it was pulled.
	ImageID string
}

// An Engine checkpoints containers of its node. Its methods may be called concurrently.
// Errors are of type [Error] where the engine knows what they mean.
type Engine interface {
	// Name is the engine's name in the status of a Checkpoint: "runc" or "kubelet".
	Name() string

	// Probe finds out whether the engine works on this node, and with what. It is cheap
	// enough to be repeated whenever the runtime or the kubelet restarts. The error says what
	// is missing.
	Probe(ctx context.Context) (*Capability, error)

	// Checkpoint checkpoints containers of one pod at one instant: all are frozen before the
	// first is dumped, and none is left frozen when it returns, with an error too. It checks
	// what can be checked before it freezes anything. There is one checkpoint for each
	// container, in the same order. On an error nothing is left on disk.
	//
	// The ID of the checkpoints is unique on the node and chosen by the caller. A caller that
	// does not know the outcome of a call with this ID, because its process died, calls
	// Recover.
	Checkpoint(ctx context.Context, id string, containers []Container, options Options) ([]Dump, error)

	// Recover ends what a process that died left behind: it thaws the containers that the
	// journal names, waits for or ends dumps that are in progress, and returns the complete
	// checkpoints by ID. It removes all others from disk.
	Recover(ctx context.Context) (map[string][]Dump, error)
}

// Options are what the owner of a Checkpoint may choose.
type Options struct {
	// CloseTCP closes established TCP connections when the checkpoint is restored. Without
	// it a container with such connections is rejected.
	CloseTCP bool
	// Timeout limits the time for which a container is frozen; 0 for the engine's default.
	Timeout time.Duration
	// Fast permits a step of the ladder that keeps the memory in RAM; see [Step].
	Fast bool
	// Volumes are directories that are saved together with the containers.
	Volumes []Volume
	// VolumeLimit is how many bytes the files of each volume may have.
	VolumeLimit int64
	// NotFaster is why an engine with faster steps cannot make the checkpoint, for
	// [Report].Reason; "" if there is none.
	NotFaster string
}

// A Volume is a directory of the node that a container has mounted and that ends with its pod.
// An engine that has no access to it between the freezing and the thawing leaves it out.
type Volume struct {
	// Container is the name of the container in whose dump the volume is.
	Container string
	// Name is the volume's in the pod, or ephemeral.SharedMemory. The file with its contents is
	// called as ephemeral.FileName says.
	Name string
	// Dir is its directory, as the node sees it. The engine finds that of
	// ephemeral.SharedMemory itself.
	Dir string
}

// A Step is how the memory of a container was saved while it was frozen, fastest first.
// An engine takes the first one for which the node has what it needs.
type Step string

// The ladder.
const (
	// FreezeCopy copies the memory into RAM beside CRIU, which dumps all the rest.
	FreezeCopy Step = "FreezeCopy"
	// Tmpfs has CRIU write its images into a tmpfs.
	Tmpfs Step = "Tmpfs"
	// Disk has CRIU write its images onto disk.
	Disk Step = "Disk"
	// Kubelet has the kubelet and the CRI runtime write an archive.
	Kubelet Step = "Kubelet"
)

// A Capability is what an engine works with on a node.
type Capability struct {
	Runtime      string // such as "containerd://2.1.9"
	OCIRuntime   string // such as "runc 1.3.6"; "" if the engine does not call it
	CRIU         string // such as "4.2.1"; "" if it is unknown
	Kernel       string // release, such as "6.18.44"
	Architecture string // as in GOARCH
	CgroupMode   string // "v1" or "v2"
	// CPUFeatures are those of package cpu; nil if they are not known.
	CPUFeatures []string
	Steps       []Step // of the ladder, that the node has what it needs for
	// OneInstant is whether Checkpoint takes several containers. An engine that cannot freeze
	// all before it dumps the first answers with RuntimeUnsupported.
	OneInstant bool
	// Volumes is whether Checkpoint saves the volumes of its options.
	Volumes bool
}

// A Dump is a complete checkpoint of one container on the node, not yet stored anywhere
// else.
type Dump interface {
	// Report says how it was made.
	Report() Report

	// Files calls each for every file, in one pass, in an order of the engine's choice. Names
	// are relative and have the layout of checkpointctl: config.dump, spec.dump,
	// rootfs-diff.tar, checkpoint/inventory.img and so on. A file may be read only during the
	// call. If consume is set, what was read is given back to the node at once: the files
	// cannot be read a second time.
	Files(ctx context.Context, consume bool, each func(File) error) error

	// Discard removes the checkpoint from the node. It is idempotent.
	Discard() error
}

// A File is one file of a dump.
type File struct {
	Name string
	Size int64 // bytes
	Mode fs.FileMode
	io.Reader
}

// A Report says how a dump was made.
type Report struct {
	Container  Container
	Engine     string
	Capability Capability
	Step       Step
	// Reason says why no faster step was taken; "" if the fastest was.
	Reason string

	ImageName   string // of the container, as the runtime knows it
	ImageDigest string // "" if the runtime does not know it

	Volumes []string // names of those that are in the dump

	FrozenAt time.Time     // when the container was frozen
	Frozen   time.Duration // for how long
	// Exact is whether Frozen was measured. Otherwise it is an upper bound: the duration of
	// a call during which the container was frozen.
	Exact bool
	Bytes int64 // of all files
}
