package wrapper

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// base is the specification of a checkpoint.
const base = `{
	"process": {
		"terminal": false, "user": {"uid": 1000, "gid": 1000, "additionalGids": [10, 20]}, "args": ["server", "-v"], "cwd": "/srv",
		"env": ["PATH=/bin", "HOSTNAME=pod-1", "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_PORT_443_TCP_PROTO=tcp", "PASSWORD=hunter2"],
		"capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2048, "soft": 1024}], "noNewPrivileges": true
	},
	"root": {"path": "rootfs", "readonly": true},
	"mounts": [
		{"destination": "/proc", "type": "proc"},
		{"destination": "/data", "type": "bind", "source": "/var/lib/kubelet/pods/uid-1/x", "options": ["rbind", "rw"]},
		{"destination": "/config", "type": "bind", "source": "/var/lib/kubelet/pods/uid-1/y", "options": ["rbind", "ro"]}
	],
	"hostname": "pod-1",
	"annotations": {"io.kubernetes.cri.image-name": "example/server:1", "io.kubernetes.cri.sandbox-id": "s-1"},
	"linux": {
		"cgroupsPath": "/kubepods/uid-1", "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
		"namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
		"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
	}
}`

func parseSpec(t *testing.T, text string) *spec {
	t.Helper()
	s := &spec{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCompatible(t *testing.T) {
	tests := map[string]struct {
		old, new string // what is replaced in base, and by what
		want     string // the difference; "" if there is none
		relaxed  bool   // whether a relaxed comparison finds it, too
	}{
		"nothing differs":                 {"", "", "", false},
		"the host name of the pod":        {"pod-1", "pod-2", "", false},
		"the host name and a source":      {"uid-1", "uid-2", "", false},
		"the sandbox":                     {"s-1", "s-2", "", false},
		"the path of a namespace":         {"/proc/1/ns/net", "/proc/2/ns/net", "", false},
		"the address of a service":        {"10.0.0.1", "10.0.0.2", "", false},
		"a variable of a service is gone": {`"KUBERNETES_PORT_443_TCP_PROTO=tcp", `, "", "", false},
		"the image":                       {"server:1", "server:2", `image: "example/server:1" in the checkpoint, "example/server:2" in the new container`, false},
		"the command":                     {`"-v"`, `"-q"`, `command: "server -v" in the checkpoint, "server -q" in the new container`, false},
		"the working directory":           {"/srv", "/tmp", `working directory: "/srv" in the checkpoint, "/tmp"`, false},
		"the user":                        {`"uid": 1000`, `"uid": 0`, `user: "1000:1000" in the checkpoint, "0:1000"`, false},
		"a group":                         {"[10, 20]", "[10]", "supplementary group 20: present in the checkpoint, none", false},
		"a capability is gone":            {`"CAP_KILL", `, "", "capability (bounding) CAP_KILL: present in the checkpoint, none", false},
		"a capability more":               {`"CAP_KILL"`, `"CAP_KILL", "CAP_SYS_ADMIN"`, "capability (bounding) CAP_SYS_ADMIN: none in the checkpoint, present", false},
		"a limit":                         {"2048", "4096", "limit RLIMIT_NOFILE: 1024 to 2048 in the checkpoint, 1024 to 4096", false},
		"new privileges":                  {`"noNewPrivileges": true`, `"noNewPrivileges": false`, "no new privileges: yes in the checkpoint, no", false},
		"a root that is writable":         {`"readonly": true`, `"readonly": false`, "read-only root file system: yes in the checkpoint, no", false},
		"seccomp":                         {`{"defaultAction": "SCMP_ACT_ERRNO"}`, "null", "seccomp: yes in the checkpoint, no", false},
		"a device":                        {"229", "230", "device /dev/fuse: c 10:229 in the checkpoint, c 10:230", false},
		"a variable is gone":              {`"PATH=/bin", `, "", "environment variable PATH: set in the checkpoint, none", false},
		"a variable differs":              {"hunter2", "secret", "environment variable PASSWORD: one value in the checkpoint, another one", false},
		"a mount is writable":             {`"ro"`, `"rw"`, "mount /config: bind, read-only in the checkpoint, bind, writable", false},
		"a mount more":                    {`{"destination": "/proc"`, `{"destination": "/new", "type": "tmpfs"}, {"destination": "/proc"`, "mount /new: none in the checkpoint, tmpfs, writable", false},
		"a mount is missing":              {`{"destination": "/proc", "type": "proc"},`, "", "mount /proc: proc, writable in the checkpoint, none", true},
		"a mount of another kind":         {`"type": "proc"`, `"type": "tmpfs"`, "mount /proc: proc, writable in the checkpoint, tmpfs, writable", true},
		"a terminal":                      {`"terminal": false`, `"terminal": true`, "terminal: no in the checkpoint, yes", true},
		"a namespace is missing":          {`{"type": "pid"}, `, "", "namespace pid: its own in the checkpoint, none", true},
		"a namespace that is joined":      {`{"type": "pid"}`, `{"type": "pid", "path": "/proc/1/ns/pid"}`, "namespace pid: its own in the checkpoint, a joined one", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			then, now := parseSpec(t, base), parseSpec(t, strings.ReplaceAll(base, tt.old, tt.new))
			if tt.old == "" {
				now = then
			}
			for _, relaxed := range []bool{false, true} {
				err := compatible(then, now, relaxed)
				found := tt.want != "" && (tt.relaxed || !relaxed)
				if (err != nil) != found || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("compatible(relaxed: %v) = %v, want %q: %v", relaxed, err, tt.want, found)
				}
				var never *incompatibleError
				if err != nil && !errors.As(err, &never) {
					t.Errorf("the error is a %T", err)
				}
				if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret")) {
					t.Errorf("the value of a variable is told: %v", err)
				}
			}
		})
	}
}

func TestVariablesOfThePodAreNotCompared(t *testing.T) {
	for name, want := range map[string]bool{
		"HOSTNAME": true, "A_B_SERVICE_HOST": true, "A_SERVICE_PORT": true, "A_SERVICE_PORT_HTTP": true, "A_PORT": true, "A_PORT_80_TCP": true,
		"A_PORT_80_TCP_ADDR": true, "A_PORT_80_UDP_PROTO": true, "PORT": false, "SERVICE_HOST": false, "A_PORTS": false, "a_PORT": false, "A_PORT_X": false,
	} {
		if got := ofPod(name); got != want {
			t.Errorf("ofPod(%s) = %v, want %v", name, got, want)
		}
	}
}
