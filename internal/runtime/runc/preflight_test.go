package runc

import (
	"math"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestEstablishedOf(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:C351 0100007F:1F90 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
`
	tests := map[string]struct {
		sockets map[string]bool
		want    int
	}{
		"a listening socket is no connection":            {map[string]bool{"100": true}, 0},
		"one end of a connection":                        {map[string]bool{"100": true, "101": true}, 1},
		"both ends of a connection":                      {map[string]bool{"101": true, "102": true}, 2},
		"connections of another container do not count":  {nil, 0},
		"a connection that is closed and has no process": {map[string]bool{"0": true}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := establishedOf(table, tt.sockets); got != tt.want {
				t.Errorf("%d connections, want %d", got, tt.want)
			}
		})
	}
}

// Somebody may free space until the next attempt.
func TestFullDiskIsWorthAnotherAttempt(t *testing.T) {
	err := checkDisk(t.TempDir(), math.MaxInt64)
	if runtime.ReasonOf(err) != runtime.InsufficientNodeDisk || !runtime.IsRetryable(err) {
		t.Errorf("checkDisk() = %v, want InsufficientNodeDisk, to be retried", err)
	}
}

func TestOlder(t *testing.T) {
	tests := map[string]struct {
		a, b string
		want bool
	}{
		"the same":              {"3.16", "3.16", false},
		"a patch is newer":      {"3.16.1", "3.16", false},
		"compared as numbers":   {"3.9", "3.16", true},
		"an older major":        {"2.99", "3.16", true},
		"what follows a number": {"4.2-rc1", "4.1", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := older(tt.a, tt.b); got != tt.want {
				t.Errorf("%s is older than %s: %v", tt.a, tt.b, got)
			}
		})
	}
}

func TestIdentityOf(t *testing.T) {
	want := runtime.Container{Namespace: "ns", Pod: "pod", PodUID: "uid", Name: "main"}
	tests := map[string]struct {
		annotations map[string]string
		wantErr     bool
	}{
		"containerd": {map[string]string{"io.kubernetes.cri.container-name": "main", "io.kubernetes.cri.sandbox-name": "pod",
			"io.kubernetes.cri.sandbox-namespace": "ns", "io.kubernetes.cri.sandbox-uid": "uid"}, false},
		"CRI-O": {map[string]string{"io.kubernetes.cri-o.Labels": `{"io.kubernetes.container.name":"main","io.kubernetes.pod.name":"pod",` +
			`"io.kubernetes.pod.namespace":"ns","io.kubernetes.pod.uid":"uid"}`}, false},
		"neither": {nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := identityOf(tt.annotations)
			if (err != nil) != tt.wantErr || err == nil && got != want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestCgroupDir(t *testing.T) {
	v1 := []*mountinfo.Info{
		{FSType: "cgroup", Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", Root: "/", VFSOptions: "rw,cpu,cpuacct"},
		{FSType: "cgroup", Mountpoint: "/sys/fs/cgroup/systemd", Root: "/", VFSOptions: "rw,name=systemd"},
		{FSType: "cgroup2", Mountpoint: "/sys/fs/cgroup/unified", Root: "/", VFSOptions: "rw"},
	}
	nested := []*mountinfo.Info{{FSType: "cgroup2", Mountpoint: "/sys/fs/cgroup", Root: "/docker/abc", VFSOptions: "rw"}}
	tests := map[string]struct {
		line   string
		mounts []*mountinfo.Info
		want   string
	}{
		"controllers that are mounted together": {"4:cpu,cpuacct:/init.scope", v1, "/sys/fs/cgroup/cpu,cpuacct/init.scope"},
		"a named hierarchy":                     {"1:name=systemd:/init.scope", v1, "/sys/fs/cgroup/systemd/init.scope"},
		"version 2":                             {"0::/init.scope", v1, "/sys/fs/cgroup/unified/init.scope"},
		"a node that is a container":            {"0::/docker/abc/init.scope", nested, "/sys/fs/cgroup/init.scope"},
		"a hierarchy that is not mounted":       {"5:net_cls:/", v1, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := cgroupDir(tt.line, tt.mounts); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestAddMapped(t *testing.T) {
	mapped := mappedFiles{paths: map[string]bool{}, inodes: map[uint64]bool{}}
	mapped.add(`7f00-7f01 rw-s 00000000 fe:00 12 /data/a file
7f02-7f03 r--s 00000000 fe:00 13 /data/read
7f04-7f05 rw-p 00000000 fe:00 14 /data/private
7f06-7f07 rw-p 00000000 00:00 0
`)
	if len(mapped.paths) != 1 || len(mapped.inodes) != 1 || !mapped.has("/data/a file", 0) || !mapped.has("", 12) {
		t.Errorf("%v", mapped)
	}
}

// A node may be a container itself, without some of root's capabilities.
func TestProcessesWhoseLimitsCannotBeRead(t *testing.T) {
	goruntime.LockOSThread() // The thread ends with the test, and with it the lack of a capability.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var capabilities [2]unix.CapUserData
	if err := unix.Capget(&header, &capabilities[0]); err != nil {
		t.Fatal(err)
	}
	capabilities[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&header, &capabilities[0]); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[uint32]runtime.Reason{0: "", 999: runtime.RuntimeNotReady} {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err := checkLimits(&target{}, cmd.Process.Pid)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // It was killed.
		if want == "" && err != nil || want != "" && (runtime.ReasonOf(err) != want || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE")) {
			t.Errorf("a process of user %d: %v, want %q", user, err, want)
		}
	}
}
