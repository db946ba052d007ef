package csi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/keymutex"
)

// DefaultTimeout of one call, if [Options] have none.
const DefaultTimeout = 10 * time.Second

// Options configure the connection to a driver.
type Options struct {
	// Address of the driver's socket: a path, or unix:///path, or unix://path.
	Address string
	// Timeout of one call, which starts when the call is sent. 0 is [DefaultTimeout].
	Timeout time.Duration
	// NodeOnly is for a socket on a node. Describe does not call its controller
	// services: many drivers announce them there although only the controller pod
	// serves them.
	NodeOnly bool
	// MinCalls is the lowest limit of concurrent calls, of one method or about one
	// target, that timeouts lead to. 0 is 1.
	MinCalls int
	// MaxCalls bounds the concurrent calls of one method that changes something. 0 is no
	// bound.
	MaxCalls int
}

// Driver is a CSI driver behind its socket. It is safe for concurrent use. A
// process shares one Driver, because calls about the same volume are serialized
// within it.
type Driver struct {
	*link
	timeout      time.Duration
	precondition Precondition // nil except inside a ConditionalDriver
}

// link is the state that all views of one driver share.
type link struct {
	path       string
	nodeOnly   bool
	socket     *socket
	identity   csipb.IdentityClient
	controller csipb.ControllerClient
	group      csipb.GroupControllerClient
	node       csipb.NodeClient
	keyMutex   keymutex.KeyMutex
	limiters   limiters
	metrics    *callMetrics
	deviations sync.Map // those that were logged already

	description atomic.Pointer[Info] // nil until the first Describe

	stop context.CancelFunc
	done chan struct{}
}

// Connect creates a [Driver] for the socket at the address. It returns at once: the
// connection is made in the background, and again whenever it is lost, with pauses
// of at most a second, until [Driver.Close]. Calls without a connection fail as
// Unavailable, which is [OutcomeUnknown]. The only error is an invalid address. The
// logger of ctx is used for what happens in the background; each call uses the
// logger of its own ctx. The end of ctx does not close the connection.
func Connect(ctx context.Context, opts Options) (*Driver, error) {
	path, err := socketPath(opts.Address)
	if err != nil {
		return nil, err
	}
	all := newLimiters(bounds{floor: opts.MinCalls, ceiling: opts.MaxCalls})
	l := &link{path: path, nodeOnly: opts.NodeOnly, limiters: all, metrics: newCallMetrics(all), done: make(chan struct{})}
	l.socket = newSocket(path, l.metrics.dialOptions()...)
	l.identity = csipb.NewIdentityClient(l.socket)
	l.controller = csipb.NewControllerClient(l.socket)
	l.group = csipb.NewGroupControllerClient(l.socket)
	l.node = csipb.NewNodeClient(l.socket)
	d := (&Driver{link: l}).WithTimeout(opts.Timeout)

	background := klog.NewContext(context.Background(), klog.FromContext(ctx))
	background, d.stop = context.WithCancel(background)
	go d.maintainConnection(background)
	return d, nil
}

// Close closes the connection. Calls in flight fail as Canceled.
func (d *Driver) Close() error {
	d.stop()
	<-d.done
	return nil
}

// WithTimeout returns a view of the same driver whose calls have another timeout.
// Connection, locks, metrics and Info stay shared. 0 is [DefaultTimeout].
func (d *Driver) WithTimeout(timeout time.Duration) *Driver {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Driver{link: d.link, timeout: timeout}
}

// SettleTime is how long a driver must have rejected repetitions of an earlier call
// before its list is believed that the call created nothing: until then the earlier
// call may still be running behind the driver. It is six times the timeout of
// calls. Set a longer timeout for slower storage.
func (d *Driver) SettleTime() time.Duration { return 6 * d.timeout }

// dialOptions are those of each connection. They use the metrics of csi-lib-utils, but not
// its Connect, which blocks until the driver is there and logs the messages of the driver's
// errors.
func (m *callMetrics) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket in the pod
		grpc.WithAuthority("localhost"),                          // the path is not a valid HTTP/2 authority
		grpc.WithIdleTimeout(0),                                  // an idle connection still notices when the driver goes away
		grpc.WithChainUnaryInterceptor(logWithoutSecrets, limitResponse, m.countInFlight,
			connection.ExtendedCSIMetricsManager{CSIMetricsManager: m}.RecordMetricsClientInterceptor),
	}
}

// socketPath parses the three forms of an address.
func socketPath(address string) (string, error) {
	path, isURL := strings.CutPrefix(address, "unix://")
	switch {
	case path == "":
		return "", errors.New("the address of the CSI driver is empty: set it to the path of its socket")
	case !isURL && strings.Contains(path, "://"):
		return "", fmt.Errorf("the address %q of the CSI driver is not a Unix socket: use a path or unix://PATH", address)
	default:
		return path, nil
	}
}
