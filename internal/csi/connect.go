package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/keymutex"
)

const (
	// DefaultTimeout is the time that one call gets when [Options] name none.
	DefaultTimeout = 10 * time.Second

	// maxResponseBytes in bytes. gRPC's own limit of 4 MiB is a few thousand
	// volumes in one page of a driver that does not cut its pages.
	maxResponseBytes = 256 << 20
)

// Options say how to reach a driver.
type Options struct {
	// Address of the driver's socket: a path, or unix:///path, or unix://path.
	Address string
	// Timeout of one call, from the moment at which it is sent. 0 is
	// [DefaultTimeout].
	Timeout time.Duration
	// NodeOnly is for a socket on a node. Its controller services are not asked
	// for: many drivers announce them there too and serve them elsewhere.
	NodeOnly bool
}

// Driver is a CSI driver behind its socket. It is safe for concurrent use, and
// one process shares one: the order of calls about a volume holds within it.
type Driver struct {
	*link
	timeout      time.Duration
	precondition Precondition // nil except inside a ConditionalDriver
}

// link is what all views of one driver share.
type link struct {
	path       string
	nodeOnly   bool
	conn       *grpc.ClientConn
	identity   csipb.IdentityClient
	controller csipb.ControllerClient
	group      csipb.GroupControllerClient
	node       csipb.NodeClient
	keyMutex   keymutex.KeyMutex
	limiters   limiters
	metrics    *callMetrics
	deviations sync.Map // those that were logged

	dials       atomic.Int64                // connections made so far
	description atomic.Pointer[description] // nil until the driver was described once

	stop context.CancelFunc
	done chan struct{}
}

// Connect makes a [DriverOptions] for the socket at the address. It returns at once:
// the connection is made in the background and made again whenever it is lost,
// with pauses of at most a second, until [Driver.Close]. Calls while there is
// no connection fail as Unavailable, which is [OutcomeUnknown]. The only error is an
// address that cannot be one. The logger is taken from ctx, here for what
// happens in the background and in each call for that call; ctx does not bound
// the connection's life.
func Connect(ctx context.Context, opts Options) (*Driver, error) {
	path, err := socketPath(opts.Address)
	if err != nil {
		return nil, err
	}
	all := newLimiters()
	l := &link{path: path, nodeOnly: opts.NodeOnly, limiters: all, metrics: newCallMetrics(all), done: make(chan struct{})}
	d := (&Driver{link: l}).WithTimeout(opts.Timeout)
	d.conn, err = d.dial()
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to the driver at %s: %w", path, err)
	}
	d.identity = csipb.NewIdentityClient(d.conn)
	d.controller = csipb.NewControllerClient(d.conn)
	d.group = csipb.NewGroupControllerClient(d.conn)
	d.node = csipb.NewNodeClient(d.conn)

	background := klog.NewContext(context.Background(), klog.FromContext(ctx))
	background, d.stop = context.WithCancel(background)
	go d.maintainConnection(background)
	return d, nil
}

// Close ends the connection; calls in flight fail as Canceled.
func (d *Driver) Close() error {
	d.stop()
	<-d.done
	return d.conn.Close()
}

// WithTimeout returns a view of the same driver whose calls get another time:
// connection, order, metrics and Info stay shared. 0 is [DefaultTimeout].
func (d *Driver) WithTimeout(timeout time.Duration) *Driver {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Driver{link: d.link, timeout: timeout}
}

// SettleTime is for how long a driver must have refused what an earlier call may have
// made, before its list is believed that there is none: until then that call may
// still be at work behind the driver. It is six times what calls are given: whoever
// knows that the storage takes longer gives them more.
func (d *Driver) SettleTime() time.Duration { return 6 * d.timeout }

// dial builds the gRPC client. csi-lib-utils' Connect is not used because it
// blocks until the driver is there and logs what drivers say in errors; its
// metrics are.
func (d *Driver) dial() (*grpc.ClientConn, error) {
	pauses := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 800 * time.Millisecond}
	return grpc.NewClient("passthrough:///"+d.path,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket in the pod
		grpc.WithAuthority("localhost"),                          // the path would be refused as an HTTP/2 authority
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "unix", d.path)
			if err == nil {
				d.dials.Add(1)
			}
			return conn, err
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: 5 * time.Second}),
		grpc.WithIdleTimeout(0), // a connection that nobody uses tells us when the driver goes away
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithChainUnaryInterceptor(logWithoutSecrets, d.metrics.countInFlight,
			connection.ExtendedCSIMetricsManager{CSIMetricsManager: d.metrics}.RecordMetricsClientInterceptor),
	)
}

// socketPath reads the three spellings of an address.
func socketPath(address string) (string, error) {
	path, isURL := strings.CutPrefix(address, "unix://")
	switch {
	case path == "":
		return "", errors.New("the address of the CSI driver is empty: name its socket")
	case !isURL && strings.Contains(path, "://"):
		return "", fmt.Errorf("the address %q of the CSI driver is no Unix socket: give a path or unix://PATH", address)
	default:
		return path, nil
	}
}
