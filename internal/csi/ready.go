package csi

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
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

// maintainConnection keeps the connection open even without calls, and reads the
// driver's capabilities again after each reconnect.
func (d *Driver) maintainConnection(ctx context.Context) {
	defer close(d.done)
	log := klog.FromContext(ctx)
	failing := false
	for {
		state := d.conn.GetState()
		if state == connectivity.Idle {
			d.conn.Connect() // after a loss gRPC reconnects only for the next call
		}
		if state == connectivity.Ready {
			err := d.refreshInfo(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				log.Error(err, "Failed to read the capabilities of the driver after a reconnect", "socket", d.path)
			}
			failing = err != nil
		}
		// Checking again without a state change is cheap, and notices a reconnect that
		// happened between two checks.
		change, cancel := context.WithTimeout(ctx, retryInterval)
		d.conn.WaitForStateChange(change, state)
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// refreshInfo calls Describe if the last call was over an earlier connection. It
// does nothing before the first call of Describe by a user of the driver.
func (d *Driver) refreshInfo(ctx context.Context) error {
	k := d.description.Load()
	if k == nil || k.dials == d.dials.Load() {
		return nil
	}
	info, err := d.Describe(ctx)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Reconnected to the driver", "driver", info.Name, "version", info.VendorVersion)
	return nil
}
