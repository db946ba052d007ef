package wrapper

import (
	"encoding/json"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// annotations are those of an OCI runtime specification: what the CRI runtime says about the
// container, and the annotations of the pod that it passes on.
type annotations map[string]string

// An identity is which container of which pod a specification is for. It is zero for pause
// containers and for containers that Kubernetes does not know.
type identity struct {
	podUID, container string
}

// Annotations of the CRI runtimes: containerd's pkg/cri annotations, and CRI-O's
// pkg/annotations.
const (
	containerdType  = "io.kubernetes.cri.container-type"
	containerdUID   = "io.kubernetes.cri.sandbox-uid"
	containerdName  = "io.kubernetes.cri.container-name"
	crioType        = "io.kubernetes.cri-o.ContainerType"
	crioLabels      = "io.kubernetes.cri-o.Labels"
	labelUID        = "io.kubernetes.pod.uid"
	labelName       = "io.kubernetes.container.name"
	typeOfContainer = "container"
)

// identity finds out for which container the specification is. A CRI runtime may pass
// annotations of the pod on, also those with the names of the other one's own: if they
// contradict each other, none is believed.
func (a annotations) identity() (identity, error) {
	crio, err := a.crioIdentity()
	if err != nil {
		return identity{}, err
	}
	containerd := a.containerdIdentity()
	_, hasCRIO := a[crioType]
	_, hasContainerd := a[containerdType]
	switch {
	case hasCRIO && hasContainerd && crio != containerd:
		return identity{}, fmt.Errorf("the annotations of the container name two: container %q of pod %q (io.kubernetes.cri-o.*), and %q of %q (io.kubernetes.cri.*): "+
			"remove the annotations of the pod that begin with io.kubernetes.cri", crio.container, crio.podUID, containerd.container, containerd.podUID)
	case hasCRIO:
		return crio, nil
	default:
		return containerd, nil
	}
}

func (a annotations) crioIdentity() (identity, error) {
	if a[crioType] != typeOfContainer {
		return identity{}, nil
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(a[crioLabels]), &labels); err != nil {
		return identity{}, fmt.Errorf("reading the annotation %s: %w", crioLabels, err)
	}
	return identity{podUID: labels[labelUID], container: labels[labelName]}, nil
}

func (a annotations) containerdIdentity() identity {
	if a[containerdType] != typeOfContainer {
		return identity{}
	}
	return identity{podUID: a[containerdUID], container: a[containerdName]}
}

// isPause reports whether the specification is for the pause container of a pod.
func (a annotations) isPause() bool {
	return a[crioType] == "sandbox" || a[containerdType] == "sandbox"
}

// request is the value of the pod's annotation that asks for a restore, "" without it.
func (a annotations) request() string { return a[ticket.Annotation] }
