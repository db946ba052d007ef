package wrapper

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// A spec is the part of an OCI runtime specification (config.json) that matters for a
// restore.
type spec struct {
	Process struct {
		Terminal bool `json:"terminal"`
		User     struct {
			UID            uint32   `json:"uid"`
			GID            uint32   `json:"gid"`
			AdditionalGIDs []uint32 `json:"additionalGids"`
		} `json:"user"`
		Args         []string            `json:"args"`
		Env          []string            `json:"env"`
		Cwd          string              `json:"cwd"`
		Capabilities map[string][]string `json:"capabilities"`
		Rlimits      []struct {
			Type string `json:"type"`
			Hard uint64 `json:"hard"`
			Soft uint64 `json:"soft"`
		} `json:"rlimits"`
		NoNewPrivileges bool   `json:"noNewPrivileges"`
		SELinuxLabel    string `json:"selinuxLabel"`
	} `json:"process"`
	Root struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	} `json:"root"`
	Mounts []struct {
		Destination string   `json:"destination"`
		Source      string   `json:"source"`
		Type        string   `json:"type"`
		Options     []string `json:"options"`
	} `json:"mounts"`
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
		Devices []struct {
			Path  string `json:"path"`
			Type  string `json:"type"`
			Major int64  `json:"major"`
			Minor int64  `json:"minor"`
		} `json:"devices"`
		Seccomp    json.RawMessage `json:"seccomp"`
		MountLabel string          `json:"mountLabel"`
	} `json:"linux"`
}

func readSpec(path string) (*spec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the OCI specification: %w", err)
	}
	s := &spec{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("reading the OCI specification %s: %w", path, err)
	}
	return s, nil
}

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
func (s *spec) identity() (identity, error) {
	crio, err := s.crioIdentity()
	if err != nil {
		return identity{}, err
	}
	containerd := s.containerdIdentity()
	_, hasCRIO := s.Annotations[crioType]
	_, hasContainerd := s.Annotations[containerdType]
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

func (s *spec) crioIdentity() (identity, error) {
	if s.Annotations[crioType] != typeOfContainer {
		return identity{}, nil
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(s.Annotations[crioLabels]), &labels); err != nil {
		return identity{}, fmt.Errorf("reading the annotation %s: %w", crioLabels, err)
	}
	return identity{podUID: labels[labelUID], container: labels[labelName]}, nil
}

func (s *spec) containerdIdentity() identity {
	if s.Annotations[containerdType] != typeOfContainer {
		return identity{}
	}
	return identity{podUID: s.Annotations[containerdUID], container: s.Annotations[containerdName]}
}

// isPause reports whether the specification is for the pause container of a pod.
func (s *spec) isPause() bool {
	return s.Annotations[crioType] == "sandbox" || s.Annotations[containerdType] == "sandbox"
}

// request is the value of the pod's annotation that asks for a restore, "" without it.
func (s *spec) request() string { return s.Annotations[ticket.Annotation] }
