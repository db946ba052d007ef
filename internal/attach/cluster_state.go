package attach

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

// clusterState is what the API objects say about the driver's volumes and
// nodes.
type clusterState struct {
	plugin       migrate.Plugin
	volumes      map[string]*corev1.PersistentVolume // the driver's volumes in CSI form, by name
	nodeIDByName map[string]string                   // the driver's node IDs, by node name
	nodeIDs      map[string]bool                     // the same node IDs

	// inTree has the names of those volumes whose API objects have the in-tree
	// form. Their handles may depend on the node.
	inTree map[string]bool
	// byHandle has the volumes by handle, for each node ID that was looked up.
	// The key "" is for volumes whose handle does not depend on the node.
	byHandle map[string]map[string]*corev1.PersistentVolume
}

// readCluster reads the driver's volumes and nodes from the cache.
func (s *driftChecker) readCluster(ctx context.Context) (*clusterState, error) {
	pvs := &corev1.PersistentVolumeList{}
	if err := s.client.List(ctx, pvs, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	csiNodes := &storagev1.CSINodeList{}
	if err := s.client.List(ctx, csiNodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing CSINodes: %w", err)
	}
	c := newClusterState(s.options.Plugin)
	for i := range pvs.Items {
		c.addVolume(ctx, s.options, &pvs.Items[i])
	}
	for i := range csiNodes.Items {
		if id := nodeID(&csiNodes.Items[i], s.options.Driver); id != "" {
			c.nodeIDByName[csiNodes.Items[i].Name], c.nodeIDs[id] = id, true
		}
	}
	return c, nil
}

func newClusterState(plugin migrate.Plugin) *clusterState {
	return &clusterState{
		plugin: plugin, volumes: map[string]*corev1.PersistentVolume{}, nodeIDByName: map[string]string{}, nodeIDs: map[string]bool{}, inTree: map[string]bool{},
	}
}

// addVolume adds a volume if it is ours. A volume that cannot be translated is
// left out: it was not attached in that form.
func (c *clusterState) addVolume(ctx context.Context, o *Options, volume *corev1.PersistentVolume) {
	if !o.Plugin.IsVolumeOf(o.Driver, volume) {
		return
	}
	if v, err := o.Plugin.ToCSI(ctx, volume); err == nil {
		c.volumes[v.Name], c.inTree[v.Name], c.byHandle = v, v != volume, nil
	}
}

// refreshVolume reads a volume again, from the API server.
func (c *clusterState) refreshVolume(ctx context.Context, apiReader client.Reader, o *Options, name string) error {
	if name == "" {
		return nil
	}
	delete(c.volumes, name)
	c.byHandle = nil
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, apiReader, client.ObjectKey{Name: name}, &volume)
	if volume != nil {
		c.addVolume(ctx, o, volume)
	}
	return err
}

// handleOnNode returns the handle by which the driver knows a volume on a node.
func (c *clusterState) handleOnNode(v *corev1.PersistentVolume, nodeID string) string {
	handle := v.Spec.CSI.VolumeHandle
	if c.inTree[v.Name] && nodeID != "" {
		if completed, err := c.plugin.RepairHandle(handle, nodeID); err == nil {
			return completed
		}
	}
	return handle
}

// volumeOf returns the volume of a publication, or nil if the cluster does not
// have it.
func (c *clusterState) volumeOf(p publication) *corev1.PersistentVolume {
	if c.byHandle == nil {
		c.byHandle = map[string]map[string]*corev1.PersistentVolume{}
		c.byHandle[""] = c.volumesByHandle("", false)
	}
	if v := c.byHandle[""][p.handle]; v != nil {
		return v
	}
	if c.byHandle[p.nodeID] == nil {
		c.byHandle[p.nodeID] = c.volumesByHandle(p.nodeID, true)
	}
	return c.byHandle[p.nodeID][p.handle]
}

func (c *clusterState) volumesByHandle(nodeID string, inTree bool) map[string]*corev1.PersistentVolume {
	all := map[string]*corev1.PersistentVolume{}
	for _, v := range c.volumes {
		if c.inTree[v.Name] == inTree {
			all[c.handleOnNode(v, nodeID)] = v
		}
	}
	return all
}
