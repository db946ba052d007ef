package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// checkNode validates the options of a provisioner on each node.
func (p *provisioner) checkNode() error {
	if !p.provision.Node.Deployed {
		return nil
	}
	var errs []error
	if p.leader.Enabled {
		errs = append(errs, errors.New("--node-deployment and --leader-election: the provisioner of every node must work, so remove --leader-election"))
	}
	if !p.provision.Topology {
		errs = append(errs, errors.New("--node-deployment and --feature-gates=Topology=false: without topology it is unknown which node has a volume"))
	}
	return errors.Join(errs...)
}

// findNode sets the node of this process and its topology segment, with
// --node-deployment. It calls NodeGetInfo, so that not every node has to watch all
// nodes.
func (p *provisioner) findNode(ctx context.Context, driver *csi.Driver) error {
	n := &p.provision.Node
	if !n.Deployed {
		return nil
	}
	n.Name = os.Getenv("NODE_NAME")
	if !driver.Info().HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS) {
		return nil // Validation reports the missing capability with all other errors.
	}
	info, err := driver.NodeGetInfo(ctx)
	if err != nil {
		return fmt.Errorf("getting the topology of this node from the driver: %w", err)
	}
	n.Segment = info.GetAccessibleTopology().GetSegments()
	return nil
}

// identitySuffix identifies the owner of this process's volumes: the driver, or the
// driver on its node.
func (p *provisioner) identitySuffix(driver string) string {
	if !p.provision.Node.Deployed {
		return driver
	}
	return driver + "-" + p.provision.Node.Name
}
