package attach

import (
	"maps"

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
	// dangling are the publications that no VolumeAttachment tells of, with the
	// cluster's volume, which may be nil.
	dangling map[publication]*corev1.PersistentVolume
}

// A census is what a survey compares: the driver's list, and what the cluster
// said before and after that was made.
type census struct {
	listed        publications
	before, after []storagev1.VolumeAttachment
	volumes       map[string]*corev1.PersistentVolume // the driver's, by name
	nodes         map[string]string                   // the driver's ids, by name
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
		p, ok := about(a, c.volumes, c.nodes)
		if ok && versions[a.Name] == a.ResourceVersion && a.Status.Attached != c.listed[p] {
			names = append(names, a.Name)
		}
	}
	return names
}

// dangling is only what is this cluster's, by its volume or its node: other
// clusters may use the same storage.
func (c *census) dangling() map[publication]*corev1.PersistentVolume {
	known := publications{}
	for _, some := range [][]storagev1.VolumeAttachment{c.before, c.after} {
		for i := range some {
			maps.Copy(known, told(&some[i], c.volumes, c.nodes))
		}
	}
	volumes, nodes := map[string]*corev1.PersistentVolume{}, map[string]bool{}
	for _, v := range c.volumes {
		volumes[v.Spec.CSI.VolumeHandle] = v
	}
	for _, id := range c.nodes {
		nodes[id] = true
	}
	all := map[publication]*corev1.PersistentVolume{}
	for p := range c.listed {
		if volume := volumes[p.handle]; !known[p] && (volume != nil || nodes[p.node]) {
			all[p] = volume
		}
	}
	return all
}

// about is the publication of a VolumeAttachment, as far as it can be told.
func about(a *storagev1.VolumeAttachment, volumes map[string]*corev1.PersistentVolume, nodes map[string]string) (publication, bool) {
	r := recordOf(a)
	p := publication{r.handle, r.node}
	if p.node == "" {
		p.node = nodes[a.Spec.NodeName]
	}
	if p.handle == "" {
		p.handle = handleOf(a, volumes)
	}
	return p, p.handle != "" && p.node != ""
}

// told are all publications that a VolumeAttachment may stand for: what is on
// record, and what the volume and the node are now.
func told(a *storagev1.VolumeAttachment, volumes map[string]*corev1.PersistentVolume, nodes map[string]string) publications {
	r, all := recordOf(a), publications{}
	for _, handle := range []string{r.handle, handleOf(a, volumes)} {
		for _, node := range []string{r.node, nodes[a.Spec.NodeName]} {
			if handle != "" && node != "" {
				all[publication{handle, node}] = true
			}
		}
	}
	return all
}

// handleOf is the volume that a VolumeAttachment names; empty if it is gone.
func handleOf(a *storagev1.VolumeAttachment, volumes map[string]*corev1.PersistentVolume) string {
	if inline := a.Spec.Source.InlineVolumeSpec; inline != nil && inline.CSI != nil {
		return inline.CSI.VolumeHandle
	}
	if v := volumes[volumeName(a)]; v != nil {
		return v.Spec.CSI.VolumeHandle
	}
	return ""
}
