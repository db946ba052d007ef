package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
)

// PauseImage is the image of a pod's first container.
const PauseImage = "devcluster.local/pause:1"

// WriteConfig writes the node's configuration into its files folder, where
// ca.crt, kubelet.crt, kubelet.key and the kubeconfigs are expected too.
func WriteConfig(spec Spec) error {
	for name, text := range map[string]string{"kubelet.yaml": kubeletConfig, "containerd.toml": containerdConfig} {
		if err := fill(filepath.Join(spec.Files(), name), text, spec); err != nil {
			return err
		}
	}
	return nil
}

func fill(file, text string, spec Spec) error {
	t, err := template.New(filepath.Base(file)).Parse(text)
	if err != nil {
		return fmt.Errorf("reading the template of %s: %w", file, err)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer f.Close()
	data := map[string]any{"Spec": spec, "At": FilesAt, "Socket": containerdSocket, "Pause": PauseImage, "Runtime": RuntimeAt}
	if err := t.Execute(f, data); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return f.Close()
}

// What the kubelet would do to a whole machine is switched off: limits for all
// pods together, swap checks, eviction while there is room. Both cgroup versions
// will do. Pods stay below the node's own group only because cgroupsPerQOS is
// on, as it is by default: without it the kubelet names no parent and the
// container runtime puts all pods of all nodes into one group.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{{.Socket}}
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: {{.At}}/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: {{.At}}/kubelet.crt
tlsPrivateKeyFile: {{.At}}/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: {{.Spec.Cgroup}}
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 10Mi, nodefs.available: 1%, imagefs.available: 1%}
maxPods: 250
`

// Machines for development often lack CAP_SYS_RESOURCE and AppArmor.
const containerdConfig = `version = 3

[grpc]
  address = '{{.Socket}}'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{{.Pause}}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    pod_annotations = ['checkpoint.example.com/*']

    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{{.Runtime}}'
      SystemdCgroup = false
`

// cniConfig puts pods on a bridge of the node. Every pod address is routable
// in the whole cluster and from the machine, so nothing is masqueraded.
func cniConfig(pods netip.Prefix) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "devcluster",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, pods)
}
