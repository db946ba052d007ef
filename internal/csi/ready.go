package csi

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

// retryInterval is the time between two probes of a driver that is not ready, and
// between two attempts to read the capabilities of a restarted driver.
const retryInterval = time.Second

// Probe reports whether the driver is ready ("Probe"). A response without the field
// means ready.
func (d *Driver) Probe(ctx context.Context) (ready bool, err error) {
	resp, err := send(ctx, d, operation{method: Probe}, d.identity.Probe, &csipb.ProbeRequest{})
	if err != nil {
		return false, err
	}
	return resp.GetReady() == nil || resp.GetReady().GetValue(), nil
}

// WaitReady probes the driver every second until it is ready, then calls Describe.
// It waits until ctx ends for a driver that is not there yet or is too slow. A
// driver that reports that it is unhealthy is an error.
func (d *Driver) WaitReady(ctx context.Context) (Info, error) {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	logged := ""
	for {
		ready, err := d.Probe(ctx)
		if ready {
			return d.Describe(ctx)
		}
		reason := "it is still initializing"
		if err != nil {
			reason = err.Error()
			if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
				return Info{}, fmt.Errorf("the driver is not healthy, see its own log: %w", err)
			}
		}
		if reason != logged {
			klog.FromContext(ctx).Info("Waiting for the driver", "socket", d.path, "reason", reason)
			logged = reason
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Info{}, fmt.Errorf("waiting for the driver at %s (%s): %w", d.path, reason, ctx.Err())
		}
	}
}

// maintainConnection keeps the connection open even without calls.
func (d *Driver) maintainConnection(ctx context.Context) {
	defer close(d.done)
	log := klog.FromContext(ctx)
	logged := ""
	accept := func(ctx context.Context, c *socketConn) error {
		if err := d.acceptDriver(ctx, c); err != nil {
			return err
		}
		logged = ""
		return nil
	}
	d.socket.run(ctx, accept, func(err error) {
		if d.description.Load() == nil || ctx.Err() != nil || err.Error() == logged {
			return // Whoever waits for the first connection logs why there is none.
		}
		logged = err.Error()
		log.Error(err, "No calls are sent to the driver", "socket", d.path)
	})
}

// acceptDriver checks after a reconnect that the driver is the same one, and reads its
// capabilities again. Before the first call of Describe by a user of the driver, any driver
// is accepted.
func (d *Driver) acceptDriver(ctx context.Context, c *socketConn) error {
	if d.description.Load() == nil {
		return nil
	}
	info, err := d.describe(over(ctx, c))
	if err != nil {
		return err
	}
	d.description.Store(&info)
	klog.FromContext(ctx).Info("Reconnected to the driver", "driver", info.Name, "version", info.VendorVersion)
	return nil
}
