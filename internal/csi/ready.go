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

// retryInterval is the pause between two probes of a driver that is not ready, and
// between two attempts to read again what a restarted driver can do.
const retryInterval = time.Second

// Probe reports whether the driver is ready ("Probe"): a driver that does not
// say is ready.
func (d *Driver) Probe(ctx context.Context) (ready bool, err error) {
	resp, err := send(ctx, d, operation{method: Probe}, d.identity.Probe, &csipb.ProbeRequest{})
	if err != nil {
		return false, err
	}
	return resp.GetReady() == nil || resp.GetReady().GetValue(), nil
}

// WaitReady probes the driver every second until it is ready, then describes
// it. A driver that is not there yet, or too slow to answer, is waited for
// until ctx ends; one that says it is unhealthy is an error.
func (d *Driver) WaitReady(ctx context.Context) (Info, error) {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	waited := ""
	for {
		ready, err := d.Probe(ctx)
		if ready {
			return d.Describe(ctx)
		}
		why := "it is still initialising"
		if err != nil {
			why = err.Error()
			if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
				return Info{}, fmt.Errorf("the driver is not healthy, see its own log: %w", err)
			}
		}
		if why != waited {
			klog.FromContext(ctx).Info("Waited for the driver", "socket", d.path, "reason", why)
			waited = why
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Info{}, fmt.Errorf("waiting for the driver at %s (%s): %w", d.path, why, ctx.Err())
		}
	}
}

// maintainConnection keeps the connection up, whether or not anyone calls, and reads what
// the driver can do again after each reconnect.
func (d *Driver) maintainConnection(ctx context.Context) {
	defer close(d.done)
	log := klog.FromContext(ctx)
	failing := false
	for {
		state := d.conn.GetState()
		if state == connectivity.Idle {
			d.conn.Connect() // gRPC rests after a loss until somebody calls
		}
		if state == connectivity.Ready {
			err := d.refreshInfo(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				log.Error(err, "Did not learn what the reconnected driver can do", "socket", d.path)
			}
			failing = err != nil
		}
		// Looking again without a change costs two loads and finds what a quick
		// loss and return between two looks has hidden.
		change, cancel := context.WithTimeout(ctx, retryInterval)
		d.conn.WaitForStateChange(change, state)
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// refreshInfo describes the driver again if it was described over an earlier
// connection. One that was never described is left alone: whoever needs it
// will ask.
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
