package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Manifests that were written for upstream's programs must work with both roles. These
// defaults differ from upstream on purpose: no limit of requests, fewer workers and a
// shorter retry period of the controller, and the Lease is released on exit.
func TestFlagsOfSnapshotRoles(t *testing.T) {
	both := map[string]string{
		"version": "false", "kubeconfig": "", "resync-period": "15m0s", "kube-api-qps": "0", "kube-api-burst": "0",
		"leader-election": "false", "leader-election-namespace": "", "leader-election-labels": "",
		"leader-election-lease-duration": "15s", "leader-election-renew-deadline": "10s",
		"http-endpoint": "", "metrics-path": "/metrics", "retry-interval-start": "1s", "retry-interval-max": "5m0s",
		"feature-gates": "ReleaseLeaderElectionOnExit=true,CSIVolumeGroupSnapshot=true",
		"automaxprocs":  "true", "v": "0", "logging-format": "text",
	}
	roles := map[string]struct {
		command *cobra.Command
		own     map[string]string
	}{
		"csi-snapshotter": {newSnapshotter(), map[string]string{
			"csi-address": "/run/csi/socket", "timeout": "1m0s", "worker-threads": "10", "leader-election-retry-period": "5s",
			"snapshot-name-prefix": "snapshot", "snapshot-name-uuid-length": "-1",
			"groupsnapshot-name-prefix": "groupsnapshot", "groupsnapshot-name-uuid-length": "-1",
			"extra-create-metadata": "false", "node-deployment": "false", "metrics-address": "",
		}},
		"snapshot-controller": {newSnapshotController(), map[string]string{
			"worker-threads": "5", "leader-election-retry-period": "2s", "enable-distributed-snapshotting": "false",
			"prevent-volume-mode-conversion": "true", "retry-crd-interval-max": "30s", "log-level": "info",
		}},
	}
	for name, role := range roles {
		t.Run(name, func(t *testing.T) {
			for _, wanted := range []map[string]string{both, role.own} {
				for flag, value := range wanted {
					if found := role.command.Flags().Lookup(flag); found == nil || found.DefValue != value {
						t.Errorf("--%s is %+v, want the default %q", flag, found, value)
					}
				}
			}
		})
	}
}

// startError runs a role that cannot start, and returns its error.
func startError(t *testing.T, command *cobra.Command, args ...string) string {
	t.Helper()
	command.SetArgs(args)
	command.SetOut(io.Discard)
	command.SetErr(io.Discard)
	err := command.ExecuteContext(t.Context())
	if err == nil {
		t.Fatal("the role ended without an error")
	}
	return err.Error()
}

// Each environment variable sets its flag. All values are invalid, and the error names
// all of them.
func TestEnvironmentOfTheSnapshotController(t *testing.T) {
	for name, value := range map[string]string{
		"LEASE_DURATION": "7s", "RENEW_DEADLINE": "8s", "RETRY_PERIOD": "9s", "WORKERS": "0", "LOG_LEVEL": "loud", "RETRY_INTERVAL": "-1",
	} {
		t.Setenv(name, value)
	}
	got := startError(t, newSnapshotController(), "--leader-election")
	for _, want := range []string{
		"--leader-election-lease-duration 7s must be above --leader-election-renew-deadline 8s", "--leader-election-retry-period 9s",
		"--worker-threads 0", `LOG_LEVEL="loud"`, "--retry-interval-start -1s",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the error does not contain %q: %s", want, got)
		}
	}
}

func TestInvalidFlagsOfSnapshotRoles(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	if err := os.Unsetenv("NODE_NAME"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		role func() *cobra.Command
		args string
		want string
	}{
		"an empty name prefix":                  {newSnapshotter, "--snapshot-name-prefix=", "--snapshot-name-prefix"},
		"names without a UID":                   {newSnapshotter, "--snapshot-name-uuid-length=0", "--snapshot-name-uuid-length 0"},
		"more characters than a UID has":        {newSnapshotter, "--snapshot-name-uuid-length=33", "--snapshot-name-uuid-length 33"},
		"an empty group name prefix":            {newSnapshotter, "--groupsnapshot-name-prefix=", "--groupsnapshot-name-prefix"},
		"group names with too little of a UID":  {newSnapshotter, "--groupsnapshot-name-uuid-length=7", "--groupsnapshot-name-uuid-length 7"},
		"a node without a name":                 {newSnapshotter, "--node-deployment", "NODE_NAME"},
		"node deployment with leader election":  {newSnapshotter, "--node-deployment --leader-election", "remove --leader-election"},
		"no workers of the sidecar":             {newSnapshotter, "--worker-threads=0", "--worker-threads 0"},
		"two metrics addresses":                 {newSnapshotter, "--metrics-address=:1 --http-endpoint=:1", "--metrics-address"},
		"an unknown feature gate":               {newSnapshotter, "--feature-gates=Surprise=true", "CSIVolumeGroupSnapshot"},
		"a CRD check interval below a second":   {newSnapshotController, "--retry-crd-interval-max=10ms", "--retry-crd-interval-max 10ms"},
		"no workers of the controller":          {newSnapshotController, "--worker-threads=0", "--worker-threads 0"},
		"a first retry pause above the maximum": {newSnapshotController, "--retry-interval-start=1h", "--retry-interval-start 1h0m0s"},
		"an unknown log level":                  {newSnapshotController, "--log-level=loud", "debug, info, warn, error"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := startError(t, tt.role(), strings.Fields(tt.args)...); !strings.Contains(got, tt.want) {
				t.Errorf("the error does not contain %q: %s", tt.want, got)
			}
		})
	}
}
