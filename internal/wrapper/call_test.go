package wrapper

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		args                                            string
		command, id, bundle, root, log, format, pidFile string
	}{
		"as containerd calls create": {
			args:    "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid abc",
			command: "create", id: "abc", bundle: "/b", root: "/run/containerd/runc/k8s.io", log: "/b/log.json", format: "json", pidFile: "/b/init.pid",
		},
		"as conmon calls create": {
			args:    "--systemd-cgroup --root=/run/runc create --bundle /b --pid-file /p abc",
			command: "create", id: "abc", bundle: "/b", root: "/run/runc", pidFile: "/p",
		},
		"options with one dash":                        {args: "-root /r create -bundle /b abc", command: "create", id: "abc", bundle: "/b", root: "/r"},
		"a short option with its value":                {args: "create -b/b abc", command: "create", id: "abc", bundle: "/b"},
		"a short option before its value":              {args: "create -b /b abc", command: "create", id: "abc", bundle: "/b"},
		"a boolean option before the command":          {args: "--debug start abc", command: "start", id: "abc"},
		"an option with a value that nobody knows":     {args: "--new value create --bundle /b abc", command: "create", id: "abc", bundle: "/b"},
		"a value that is the name of a command":        {args: "--root create start abc", command: "start", id: "abc", root: "create"},
		"an ID that is the name of a command":          {args: "--debug start create", command: "start", id: "create"},
		"the working directory is the bundle":          {args: "create abc", command: "create", id: "abc", bundle: "."},
		"two dashes end the options":                   {args: "create --bundle /b -- abc", command: "create", id: "abc", bundle: "/b"},
		"nothing":                                      {args: ""},
		"an option without its value":                  {args: "--root"},
		"crun's options":                               {args: "--cgroup-manager cgroupfs create -f /x/config.json abc", command: "create", id: "abc", bundle: "."},
		"an option of create that nobody knows":        {args: "create --new --bundle /b abc", command: "create", id: "abc", bundle: "/b"},
		"a descriptor option of create with its value": {args: "create --preserve-fds 3 abc", command: "create", id: "abc", bundle: "."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			c := parse(args)
			bundle := c.bundle
			if c.command == "create" {
				bundle = c.bundleDir()
			}
			got := []string{c.command, c.id, bundle, c.root, c.log, c.logFormat, c.pidFile}
			want := []string{tt.command, tt.id, tt.bundle, tt.root, tt.log, tt.format, tt.pidFile}
			if !slices.Equal(got, want) {
				t.Errorf("parse(%q) = %q, want %q", tt.args, got, want)
			}
			if all := slices.Concat(c.global, slices.DeleteFunc([]string{c.command}, func(s string) bool { return s == "" }), c.args); !slices.Equal(all, args) {
				t.Errorf("parse(%q) has changed the arguments to %q", tt.args, all)
			}
		})
	}
}

func TestStateDir(t *testing.T) {
	tests := map[string]struct{ id, root, runtime, want string }{
		"runc's default":                    {"abc", "", "/usr/sbin/runc", "/run/runc/abc"},
		"crun's default":                    {"abc", "", "/usr/bin/crun", "/run/crun/abc"},
		"that of containerd":                {"abc", "/run/containerd/runc/k8s.io", "/usr/sbin/runc", "/run/containerd/runc/k8s.io/abc"},
		"an ID that leads elsewhere":        {"../abc", "", "/usr/sbin/runc", ""},
		"an ID that is the directory above": {"..", "", "/usr/sbin/runc", ""},
		"no ID":                             {"", "", "/usr/sbin/runc", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := (call{id: tt.id, root: tt.root}).stateDir(tt.runtime); got != tt.want {
				t.Errorf("stateDir() = %q, want %q", got, tt.want)
			}
		})
	}
}
