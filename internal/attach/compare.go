package attach

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// A publication is a volume on a node, by the driver's ids.
type publication struct{ handle, nodeID string }

type publications map[publication]bool

// drift are what a survey has found.
type drift struct {
	// mismatched are the VolumeAttachments whose status is not what the driver
	// says.
	mismatched []string
	// dangling are the publications that no VolumeAttachment tells of.
	dangling map[publication]danglingInfo
}

// A danglingInfo is what is known about a publication that dangles.
type danglingInfo struct {
	volume *corev1.PersistentVolume // the cluster's; nil if it is gone
	secret *corev1.SecretReference  // for detaching it; nil for none
	// possibleOwner names a VolumeAttachment that may tell of it all the same: the volume
	// or the node of that cannot be told. Such a publication is not detached.
	possibleOwner string
}

// A comparison is what a survey compares: the driver's list, and what the cluster
// said before and after that was made.
type comparison struct {
	listed        publications
	before, after []storagev1.VolumeAttachment
	*clusterState
}

// compare holds the rules of the survey; it does no I/O.
func (c *comparison) compare() drift {
	return drift{mismatched: c.mismatched(), dangling: c.dangling()}
}

// mismatched leaves out what has changed while the driver was asked.
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

// dangling is only what this cluster has attached, as far as is known: volumes
// that a PersistentVolume or the record of a VolumeAttachment names. Drivers list
// all that there is at the storage, with whoever uses it: other clusters' volumes,
// and disks that Kubernetes never attached, also of this cluster's own nodes.
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

// findVolume is what names the volume of a publication, if anything does.
func (c *comparison) findVolume(p publication, recorded map[string]record) (d danglingInfo, ours bool) {
	if volume := c.volumeOf(p); volume != nil {
		return danglingInfo{volume: volume, secret: volume.Spec.CSI.ControllerPublishSecretRef}, true
	}
	r, ours := recorded[p.handle]
	return danglingInfo{secret: r.secret}, ours
}

// publicationOf is the publication of a VolumeAttachment, as far as it can be told.
func (c *clusterState) publicationOf(a *storagev1.VolumeAttachment) (publication, bool) {
	r := recordOf(a)
	p := publication{r.handle, cmp.Or(r.nodeID, c.nodeIDByName[a.Spec.NodeName])}
	if p.handle == "" {
		p.handle = c.handleOf(a, p.nodeID)
	}
	return p, p.handle != "" && p.nodeID != ""
}

// possiblePublications are all publications that a VolumeAttachment may stand for: what is on
// record, and what the volume and the node are now.
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

// candidates are the volumes and the nodes that a VolumeAttachment may stand for; none
// if that cannot be told.
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

// mayStandFor tells whether a publication may be that of a VolumeAttachment of which not
// all can be told. A node that cannot be told is none that the cluster has.
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

// handleOf is the volume that a VolumeAttachment names, as the driver knows it on
// a node; empty if that is gone.
func (c *clusterState) handleOf(a *storagev1.VolumeAttachment, nodeID string) string {
	if inline := a.Spec.Source.InlineVolumeSpec; inline != nil && inline.CSI != nil {
		return inline.CSI.VolumeHandle
	}
	if v := c.volumes[volumeName(a)]; v != nil {
		return c.handleOnNode(v, nodeID)
	}
	return ""
}

// distinct are the strings that are not empty, each once.
func distinct(some ...string) (all []string) {
	for _, one := range some {
		if one != "" && !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}
