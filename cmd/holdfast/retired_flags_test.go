package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/app"
)

// Each row has the arguments of a program in manifests of its earlier releases.
func TestFlagsOfEarlierReleasesAreAccepted(t *testing.T) {
	logging := " -v=5 --logtostderr=true --alsologtostderr --stderrthreshold=2 --log_dir=/tmp --log_file=x --log_file_max_size=1" +
		" --log_backtrace_at=a.go:1 --skip_headers --skip_log_headers --add_dir_header --one_output"
	for name, tt := range map[string]struct {
		role func() *cobra.Command
		args string
	}{
		"external-provisioner 0.4":          {newProvisioner, "--provisioner=p --csi-address=/s --connection-timeout=15s"},
		"external-provisioner 1.6":          {newProvisioner, "--csi-address=/s --enable-leader-election --leader-election-type=leases --leader-election-namespace=n --metrics-address=:1 --volume-name-prefix=p"},
		"external-provisioner 2.0":          {newProvisioner, "--capacity-controller-deployment-mode=central --feature-gates=Topology=true --strict-topology"},
		"external-provisioner 5":            {newProvisioner, "--feature-gates=HonorPVReclaimPolicy=true,Topology=true,CSINodeExpandSecret=true --http-endpoint=:1 --leader-election"},
		"external-attacher 1":               {newAttacher, "--connection-timeout=15s --resync=10m --leader-election --leader-election-type=configmaps --leader-election-identity=me"},
		"external-attacher 4":               {newAttacher, "--max-grpc-log-length=1 --timeout=15s --worker-threads=3 --reconcile-sync=1m --dummy=false"},
		"external-resizer 0.2":              {newResizer, "--csiTimeout=60s --csi-address /s --leader-election"},
		"external-resizer 2.3":              {newResizer, "--resize-timeout=1m --modify-timeout=2m --handle-volume-inuse-error=false"},
		"external-snapshotter 1, sidecar":   {newSnapshotter, "--snapshotter=d --connection-timeout=15s --create-snapshotcontent-retrycount=5 --create-snapshotcontent-interval=10s --resync-period=60s"},
		"external-snapshotter 6, sidecar":   {newSnapshotter, "--enable-volume-group-snapshots=true --metrics-address=:1 --leader-election-type=leases"},
		"external-snapshotter 2":            {newSnapshotController, "--create-snapshotcontent-retrycount=5 --create-snapshotcontent-interval=10s --leader-election=false"},
		"external-snapshotter 6":            {newSnapshotController, "--enable-volume-group-snapshots --metrics-address=:1 --enable-distributed-snapshotting"},
		"node-driver-registrar 1":           {newRegistrar, "--connection-timeout=15s --driver-requires-attachment=true --pod-info-mount-version=v1 --kubelet-registration-path=/a/csi.sock"},
		"node-driver-registrar 2":           {newRegistrar, "--health-port=9809 --mode=registration --timeout=10s --plugin-registration-path=/registration"},
		"livenessprobe 1":                   {newLivenessProbe, "--connection-timeout=3s --csi-address=/s --health-port=9898"},
		"livenessprobe 2, separate metrics": {newLivenessProbe, "--probe-timeout=3s --metrics-address=:1 --metrics-path=/m"},
	} {
		t.Run(name, func(t *testing.T) {
			role := tt.role()
			var said bytes.Buffer
			role.Flags().SetOutput(&said)
			if err := role.ParseFlags(arguments(parentOf(role), append([]string{role.Name()}, strings.Fields(tt.args+logging)...))[1:]); err != nil {
				t.Fatal(err)
			}
			for _, flag := range []string{"log_dir", "one_output", "logtostderr"} {
				if !strings.Contains(said.String(), "Flag --"+flag+" has been deprecated, the log goes to standard error") {
					t.Errorf("nothing says that --%s has no effect: %s", flag, said.String())
				}
			}
			if usage := role.Flags().FlagUsages(); strings.Contains(usage, "log_dir") || strings.Contains(usage, "connection-timeout") {
				t.Error("--help shows a flag without an effect")
			}
		})
	}
}

// parentOf returns a program with this role.
func parentOf(role *cobra.Command) *cobra.Command {
	root := &cobra.Command{Use: "holdfast"}
	root.AddCommand(role)
	return root
}

func TestFlagsOfEarlierReleasesThatHaveAnEffect(t *testing.T) {
	parse := func(role *cobra.Command, args ...string) *cobra.Command {
		t.Helper()
		role.Flags().SetOutput(&bytes.Buffer{})
		if err := role.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return role
	}
	for name, tt := range map[string]struct {
		role       *cobra.Command
		flag, want string
	}{
		"--enable-leader-election":                     {parse(newProvisioner(), "--enable-leader-election"), "leader-election", "true"},
		"--enable-leader-election=false":               {parse(newProvisioner(), "--enable-leader-election=false"), "leader-election", "false"},
		"--capacity-controller-deployment-mode":        {parse(newProvisioner(), "--capacity-controller-deployment-mode=central"), "enable-capacity", "true"},
		"--capacity-controller-deployment-mode=none":   {parse(newProvisioner(), "--capacity-controller-deployment-mode=none"), "enable-capacity", "false"},
		"--csiTimeout":                                 {parse(newResizer(), "--csiTimeout=7s"), "timeout", "7s"},
		"--enable-volume-group-snapshots of a sidecar": {parse(newSnapshotter(), "--enable-volume-group-snapshots=false"), "feature-gates", "ReleaseLeaderElectionOnExit=true,CSIVolumeGroupSnapshot=false"},
		"--enable-volume-group-snapshots":              {parse(newSnapshotController(), "--enable-volume-group-snapshots"), "feature-gates", "ReleaseLeaderElectionOnExit=true,CSIVolumeGroupSnapshot=true"},
	} {
		if got := tt.role.Flags().Lookup(tt.flag).Value.String(); got != tt.want {
			t.Errorf("%s: --%s is %q, want %q", name, tt.flag, got, tt.want)
		}
	}
}

func TestFlagsOfEarlierReleasesThatWouldCostData(t *testing.T) {
	for args, want := range map[string]string{
		"--feature-gates=HonorPVReclaimPolicy=false":   "persistentVolumeReclaimPolicy: Retain",
		"--capacity-controller-deployment-mode=local":  "--node-deployment",
		"--capacity-controller-deployment-mode=centre": "--enable-capacity",
	} {
		if err := newProvisioner().ParseFlags([]string{args}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", args, err, want)
		}
	}
	if err := newAttacher().ParseFlags([]string{"--dummy"}); err == nil || !strings.Contains(err.Error(), "had not attached") {
		t.Errorf("--dummy: got %v", err)
	}
}

// As in upstream's csi-resizer, --timeout overrides the two others if it is set.
func TestTimeoutsOfTheResizer(t *testing.T) {
	for args, want := range map[string][2]time.Duration{
		"": {0, 0},
		"--resize-timeout=1m --modify-timeout=2m":              {time.Minute, 2 * time.Minute},
		"--resize-timeout=1m --modify-timeout=2m --timeout=3s": {0, 0},
		"--resize-timeout=1m --csiTimeout=3s":                  {0, 0},
	} {
		r := &resizer{sidecar: sidecar{role: role{work: app.WorkerOptions{Workers: 1}}}}
		command := r.command()
		command.Flags().SetOutput(&bytes.Buffer{})
		if err := command.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if err := r.complete(command); err != nil {
			t.Fatal(err)
		}
		if got := [2]time.Duration{r.resize.ExpandTimeout, r.resize.ModifyTimeout}; got != want {
			t.Errorf("%q: got %v, want %v", args, got, want)
		}
	}
}
