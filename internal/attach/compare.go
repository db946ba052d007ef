package attach

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// A publication is a volume on a node, by the driver's ids.
type publication struct{ handle, node string }

type publications map[publication]bool

// findings are what a survey has found.
type findings struct {
	// contradicted are the VolumeAttachments whose status is not what the driver
	// says.
	contradicted []string
	// dangling are the publications that no VolumeAttachment tells of.
	dangling map[publication]dangler
}

// A dangler is what is known about a publication that dangles.
type dangler struct {
	volume *corev1.PersistentVolume // the cluster's; nil if it is gone
	secret *corev1.SecretReference  // for detaching it; nil for none
	// doubt names a VolumeAttachment that may tell of it all the same: the volume
	// or the node of that cannot be told. Such a publication is not detached.
	doubt string
}

// A census is what a survey compares: the driver's list, and what the cluster
// said before and after that was made.
type census struct {
	listed        publications
	before, after []storagev1.VolumeAttachment
	*cluster
}

// compare holds the rules of the survey; it does no I/O.
func (c *census) compare() findings {
	return findings{contradicted: c.contradicted(), dangling: c.dangling()}
}

// contradicted leaves out what has changed while the driver was asked.
func (c *census) contradicted() (names []string) {
	versions := make(map[string]string, len(c.before))
	for i := range c.before {
		versions[c.before[i].Name] = c.before[i].ResourceVersion
	}
	for i := range c.after {
		a := &c.after[i]
		p, ok := c.about(a)
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
func (c *census) dangling() map[publication]dangler {
	known, recorded, uncertain := publications{}, map[string]record{}, []*storagev1.VolumeAttachment{}
	for _, some := range [][]storagev1.VolumeAttachment{c.before, c.after} {
		for i := range some {
			a := &some[i]
			maps.Copy(known, c.told(a))
			if r := recordOf(a); r.handle != "" {
				recorded[r.handle] = r
			}
			if handles, nodes := c.reach(a); len(handles) == 0 || len(nodes) == 0 {
				uncertain = append(uncertain, a)
			}
		}
	}
	all := map[publication]dangler{}
	for p := range c.listed {
		if known[p] {
			continue
		}
		d, ours := c.owner(p, recorded)
		if !ours {
			continue
		}
		if at := slices.IndexFunc(uncertain, func(a *storagev1.VolumeAttachment) bool { return c.mayBe(a, p) }); at >= 0 {
			d.doubt = uncertain[at].Name
		}
		all[p] = d
	}
	return all
}

// owner is what names the volume of a publication, if anything does.
func (c *census) owner(p publication, recorded map[string]record) (d dangler, ours bool) {
	if volume := c.volumeOf(p); volume != nil {
		return dangler{volume: volume, secret: volume.Spec.CSI.ControllerPublishSecretRef}, true
	}
	r, ours := recorded[p.handle]
	return dangler{secret: r.secret}, ours
}

// about is the publication of a VolumeAttachment, as far as it can be told.
func (c *cluster) about(a *storagev1.VolumeAttachment) (publication, bool) {
	r := recordOf(a)
	p := publication{r.handle, cmp.Or(r.node, c.nodes[a.Spec.NodeName])}
	if p.handle == "" {
		p.handle = c.handleOf(a, p.node)
	}
	return p, p.handle != "" && p.node != ""
}

// told are all publications that a VolumeAttachment may stand for: what is on
// record, and what the volume and the node are now.
func (c *cluster) told(a *storagev1.VolumeAttachment) publications {
	handles, nodes := c.reach(a)
	all := publications{}
	for _, handle := range handles {
		for _, node := range nodes {
			all[publication{handle, node}] = true
		}
	}
	return all
}

// reach are the volumes and the nodes that a VolumeAttachment may stand for; none
// if that cannot be told.
func (c *cluster) reach(a *storagev1.VolumeAttachment) (handles, nodes []string) {
	r := recordOf(a)
	nodes = distinct(r.node, c.nodes[a.Spec.NodeName])
	candidates := []string{r.handle}
	for _, node := range nodes {
		candidates = append(candidates, c.handleOf(a, node))
	}
	if len(nodes) == 0 {
		candidates = append(candidates, c.handleOf(a, ""))
	}
	return distinct(candidates...), nodes
}

// mayBe tells whether a publication may be that of a VolumeAttachment of which not
// all can be told. A node that cannot be told is none that the cluster has.
func (c *cluster) mayBe(a *storagev1.VolumeAttachment, p publication) bool {
	handles, nodes := c.reach(a)
	if len(handles) > 0 && !slices.Contains(handles, p.handle) {
		return false
	}
	if len(nodes) == 0 {
		return !c.ids[p.node]
	}
	return slices.Contains(nodes, p.node)
}

// handleOf is the volume that a VolumeAttachment names, as the driver knows it on
// a node; empty if that is gone.
func (c *cluster) handleOf(a *storagev1.VolumeAttachment, node string) string {
	if inline := a.Spec.Source.InlineVolumeSpec; inline != nil && inline.CSI != nil {
		return inline.CSI.VolumeHandle
	}
	if v := c.volumes[volumeName(a)]; v != nil {
		return c.handle(v, node)
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
