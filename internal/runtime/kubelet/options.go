package kubelet

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// Options configure the engine of a node.
type Options struct {
	// Address of the node's own kubelet, such as "192.0.2.1:10250". The engine sends it the
	// token, which the API server accepts too.
	Address string
	// StateDir is the directory of the journal and of the recorded certificate. It must
	// survive a restart of the process.
	StateDir string

	// TokenFile has the token of the service account, and is read for every call; "" for the
	// pod's own.
	TokenFile string
	// CAFile has certificates that the kubelet's is verified with. Without it, the engine
	// records the certificate of the first call, and accepts no other from then on.
	CAFile string
	// Insecure accepts every certificate.
	Insecure bool

	// Root is where the node's file system is mounted; "" for /. The directories below are
	// those of the node.
	Root string
	// CheckpointDir is where the kubelet puts archives, the directory "checkpoints" in its
	// --root-dir; "" for /var/lib/kubelet/checkpoints.
	CheckpointDir string
	// TempDir is the TMPDIR of the CRI runtime; "" for /tmp.
	TempDir string
	// CgroupDir is where control groups are mounted; "" for /sys/fs/cgroup.
	CgroupDir string

	// Runtime returns the CRI runtime's name and version, as the status of the Node has it,
	// such as "containerd://2.1.9"; nil if it is unknown.
	Runtime func() string
}

func (o *Options) setDefaults() error {
	if o.Address == "" || o.StateDir == "" {
		return errors.New("the engine kubelet needs the address of the kubelet and a directory for its journal")
	}
	for value, standard := range map[*string]string{
		&o.TokenFile:     "/var/run/secrets/kubernetes.io/serviceaccount/token",
		&o.CheckpointDir: "/var/lib/kubelet/checkpoints",
		&o.TempDir:       "/tmp",
		&o.CgroupDir:     "/sys/fs/cgroup",
	} {
		if *value == "" {
			*value = standard
		}
	}
	o.CheckpointDir = filepath.Clean(o.CheckpointDir)
	return nil
}

func (o *Options) paths() freezer.Paths {
	return freezer.Paths{Cgroup: filepath.Join("/", o.Root, o.CgroupDir)}
}

func (o *Options) checkpointDir() string { return filepath.Join("/", o.Root, o.CheckpointDir) }

// Times that tests shorten.
type times struct {
	// grace is how long a container may stay frozen after the kubelet has answered: then the
	// runtime does not thaw it any more.
	grace time.Duration
	// quiet is how long nothing may happen to a container and its archive until a call without
	// an answer counts as ended. The runtime may go on after its client has gone.
	quiet time.Duration
	// limit is how long all that may take.
	limit time.Duration
	// interval is the least time between calls for a container: the name of an archive has
	// seconds, and the runtime does not truncate a file that exists.
	interval time.Duration
	// partlyFrozen is for how long a container may be partly frozen in calls that did not
	// succeed in freezing it.
	partlyFrozen time.Duration
}

var standardTimes = times{
	grace: time.Second, quiet: 2 * time.Second, limit: time.Minute, interval: 1100 * time.Millisecond,
	partlyFrozen: 2 * time.Second,
}
