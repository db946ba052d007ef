package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// checkNode checks what goes together with one provisioner on each node.
func (p *provisioner) checkNode() error {
	if !p.provision.Node.Deployed {
		return nil
	}
	var errs []error
	if p.leader.Enabled {
		errs = append(errs, errors.New("--node-deployment and --leader-election: every node's provisioner acts, so take --leader-election away"))
	}
	if !p.provision.Topology {
		errs = append(errs, errors.New("--node-deployment and --feature-gates=Topology=false: without topology nobody could tell which node has a volume"))
	}
	return errors.Join(errs...)
}

// findNode finds out which node this process serves and where its driver makes
// volumes, if there is one provisioner on each. The driver itself is asked, so
// that not every node watches all nodes.
func (p *provisioner) findNode(ctx context.Context, driver *csi.Driver) error {
	n := &p.provision.Node
	if !n.Deployed {
		return nil
	}
	n.Name = os.Getenv("NODE_NAME")
	if !driver.Info().HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS) {
		return nil // What is missing is told with all else that is wrong.
	}
	info, err := driver.NodeGetInfo(ctx)
	if err != nil {
		return fmt.Errorf("asking the driver which topology this node has: %w", err)
	}
	n.Segment = info.GetAccessibleTopology().GetSegments()
	return nil
}

// whose are the volumes that this process makes: the driver's, on its node.
func (p *provisioner) whose(driver string) string {
	if !p.provision.Node.Deployed {
		return driver
	}
	return driver + "-" + p.provision.Node.Name
}
