package attach

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// A publication is a volume that is published on a node, by the driver's IDs.
type publication struct{ handle, nodeID string }

type publications map[publication]bool

// drift is the difference between the driver's list and the VolumeAttachments.
type drift struct {
	// mismatched has the VolumeAttachments whose status differs from the
	// driver's list.
	mismatched []string
	// dangling has the publications without a VolumeAttachment.
	dangling map[publication]danglingInfo
}

// danglingInfo describes a dangling publication.
type danglingInfo struct {
	volume *corev1.PersistentVolume // nil if the PersistentVolume is gone
	secret *corev1.SecretReference  // for the detaching call; nil for none
	// possibleOwner names a VolumeAttachment that may stand for the
	// publication, because that VolumeAttachment's volume or node is unknown.
	// Such a publication is not detached.
	possibleOwner string
}

// A comparison has the driver's list, and the cluster's state before and after
// the driver listed its volumes.
type comparison struct {
	listed        publications
	before, after []storagev1.VolumeAttachment
	*clusterState
}

// compare has the rules of the drift check. It does no I/O.
func (c *comparison) compare() drift {
	return drift{mismatched: c.mismatched(), dangling: c.dangling()}
}

// mismatched leaves out VolumeAttachments that changed while the driver was
// listing.
func (c *comparison) mismatched() (names []string) {
	versions := make(map[string]string, len(c.before))
	for i := range c.before {
		versions[c.before[i].Name] = c.before[i].ResourceVersion
	}
	for i := range c.after {
		a := &c.after[i]
		p, ok := c.publicationOf(a)
		if ok && versions[a.Name] == a.ResourceVersion && a.Status.Attached != c.listed[p] {
			names = append(names, a.Name)
		}
	}
	return names
}

// dangling finds only publications that this cluster may have attached: those
// of volumes that a PersistentVolume or the record of a VolumeAttachment names.
// Drivers list all volumes of the storage, whoever uses them: those of other
// clusters, and disks that Kubernetes never attached, even on nodes of this
// cluster.
func (c *comparison) dangling() map[publication]danglingInfo {
	known, recorded, ambiguous := publications{}, map[string]record{}, []*storagev1.VolumeAttachment{}
	for _, some := range [][]storagev1.VolumeAttachment{c.before, c.after} {
		for i := range some {
			a := &some[i]
			maps.Copy(known, c.possiblePublications(a))
			if r := recordOf(a); r.handle != "" {
				recorded[r.handle] = r
			}
			if handles, nodes := c.candidates(a); len(handles) == 0 || len(nodes) == 0 {
				ambiguous = append(ambiguous, a)
			}
		}
	}
	all := map[publication]danglingInfo{}
	for p := range c.listed {
		if known[p] {
			continue
		}
		d, ours := c.findVolume(p, recorded)
		if !ours {
			continue
		}
		if at := slices.IndexFunc(ambiguous, func(a *storagev1.VolumeAttachment) bool { return c.mayStandFor(a, p) }); at >= 0 {
			d.possibleOwner = ambiguous[at].Name
		}
		all[p] = d
	}
	return all
}

// findVolume returns what names the volume of a publication: a
// PersistentVolume, or a record.
func (c *comparison) findVolume(p publication, recorded map[string]record) (d danglingInfo, ours bool) {
	if volume := c.volumeOf(p); volume != nil {
		return danglingInfo{volume: volume, secret: volume.Spec.CSI.ControllerPublishSecretRef}, true
	}
	r, ours := recorded[p.handle]
	return danglingInfo{secret: r.secret}, ours
}

// publicationOf returns the publication of a VolumeAttachment, and false if its
// volume or node is unknown.
func (c *clusterState) publicationOf(a *storagev1.VolumeAttachment) (publication, bool) {
	r := recordOf(a)
	p := publication{r.handle, cmp.Or(r.nodeID, c.nodeIDByName[a.Spec.NodeName])}
	if p.handle == "" {
		p.handle = c.handleOf(a, p.nodeID)
	}
	return p, p.handle != "" && p.nodeID != ""
}

// possiblePublications returns all publications that a VolumeAttachment may
// stand for: what is on record, and what its volume and node are now.
func (c *clusterState) possiblePublications(a *storagev1.VolumeAttachment) publications {
	handles, nodes := c.candidates(a)
	all := publications{}
	for _, handle := range handles {
		for _, node := range nodes {
			all[publication{handle, node}] = true
		}
	}
	return all
}

// candidates returns the handles and node IDs that a VolumeAttachment may stand
// for, and none if they are unknown.
func (c *clusterState) candidates(a *storagev1.VolumeAttachment) (handles, nodeIDs []string) {
	r := recordOf(a)
	nodeIDs = distinct(r.nodeID, c.nodeIDByName[a.Spec.NodeName])
	possible := []string{r.handle}
	for _, node := range nodeIDs {
		possible = append(possible, c.handleOf(a, node))
	}
	if len(nodeIDs) == 0 {
		possible = append(possible, c.handleOf(a, ""))
	}
	return distinct(possible...), nodeIDs
}

// mayStandFor reports whether a VolumeAttachment whose volume or node is
// unknown may stand for a publication. An unknown node is one that the cluster
// does not have any more.
func (c *clusterState) mayStandFor(a *storagev1.VolumeAttachment, p publication) bool {
	handles, nodes := c.candidates(a)
	if len(handles) > 0 && !slices.Contains(handles, p.handle) {
		return false
	}
	if len(nodes) == 0 {
		return !c.nodeIDs[p.nodeID]
	}
	return slices.Contains(nodes, p.nodeID)
}

// handleOf returns the driver's handle of a VolumeAttachment's volume on a
// node, and "" if the volume is gone.
func (c *clusterState) handleOf(a *storagev1.VolumeAttachment, nodeID string) string {
	if inline := a.Spec.Source.InlineVolumeSpec; inline != nil && inline.CSI != nil {
		return inline.CSI.VolumeHandle
	}
	if v := c.volumes[volumeName(a)]; v != nil {
		return c.handleOnNode(v, nodeID)
	}
	return ""
}

// distinct returns the strings that are not empty, each once.
func distinct(some ...string) (all []string) {
	for _, one := range some {
		if one != "" && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}
