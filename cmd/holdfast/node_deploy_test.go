package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// agentDaemonSet returns the DaemonSet of deploy/checkpoint-operator.yaml as JSON.
func agentDaemonSet(t *testing.T) []byte {
	t.Helper()
	file, err := os.Open("../../deploy/checkpoint-operator.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for documents := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		var document json.RawMessage
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			t.Fatal("there is no DaemonSet")
		} else if err != nil {
			t.Fatal(err)
		}
		var kind struct{ Kind string }
		if err := json.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Kind == "DaemonSet" {
			return document
		}
	}
}

// The patch of the agent fits the DaemonSet, and its command line the program.
func TestThePatchThatInstallsTheWrapper(t *testing.T) {
	text, err := os.ReadFile("../../deploy/checkpoint-agent-install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	patch, err := yaml.ToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := strategicpatch.StrategicMergePatch(agentDaemonSet(t), patch, appsv1.DaemonSet{})
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	decoder := json.NewDecoder(bytes.NewReader(patched))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if len(pod.InitContainers) != 1 || len(pod.Containers) != 1 || !pod.HostPID {
		t.Fatalf("the pod has %d init containers and %d containers", len(pod.InitContainers), len(pod.Containers))
	}
	install := pod.InitContainers[0]
	if agent := pod.Containers[0]; install.Image != agent.Image || !*install.SecurityContext.Privileged {
		t.Errorf("the init container has the image %s, the agent %s", install.Image, agent.Image)
	}
	command := newNodeInstall()
	if err := command.ParseFlags(install.Args); err != nil {
		t.Error(err)
	}
	root := command.Flag("host-root").Value.String()
	if !isHostMount(&pod, &install, root) {
		t.Errorf("--host-root=%s is not where the root of the node is mounted", root)
	}
}

// isHostMount reports whether the root of the node is mounted at a path of a container, and
// can be written.
func isHostMount(pod *corev1.PodSpec, container *corev1.Container, path string) bool {
	for _, mount := range container.VolumeMounts {
		for _, volume := range pod.Volumes {
			if mount.Name == volume.Name && mount.MountPath == path && !mount.ReadOnly {
				return volume.HostPath != nil && volume.HostPath.Path == "/"
			}
		}
	}
	return false
}
