package wrapper

import (
	"encoding/json"
	"fmt"
	"os"
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
	Annotations annotations `json:"annotations"`
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
	s := &spec{}
	return s, readConfigJSON(path, s)
}

// readAnnotations reads nothing else, which is faster: every container that starts waits for
// it.
func readAnnotations(path string) (annotations, error) {
	var s struct {
		Annotations annotations `json:"annotations"`
	}
	err := readConfigJSON(path, &s)
	return s.Annotations, err
}

func readConfigJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the OCI specification: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the OCI specification %s: %w", path, err)
	}
	return nil
}
