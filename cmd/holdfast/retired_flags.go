package main

import (
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/app"
)

// Flags that releases of the replaced programs had and later removed, from their
// changelogs and their first releases. A new release of such a program that removes a
// flag gets a row here.
var (
	connectionTimeout  = app.RetiredFlag{Name: "connection-timeout", Why: "the program waits for the driver"}
	leaderElectionType = app.RetiredFlag{Name: "leader-election-type", Why: "the lock is a Lease: a release that locks an Endpoints object must have ended before this program starts"}
	contentRetryCount  = app.RetiredFlag{Name: "create-snapshotcontent-retrycount", Why: "creating a VolumeSnapshotContent is retried until it succeeds"}
	contentInterval    = app.RetiredFlag{Name: "create-snapshotcontent-interval", Why: "use --retry-interval-start and --retry-interval-max"}
	grpcLogLength      = app.RetiredFlag{Name: "max-grpc-log-length", Why: "gRPC messages are not logged"}
)

func addRetiredProvisionerFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, connectionTimeout, leaderElectionType)
	app.AddAlias(fs, "enable-leader-election", "leader-election")
	app.AddCapacityModeFlag(fs)
}

func addRetiredAttacherFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, connectionTimeout, leaderElectionType, grpcLogLength,
		app.RetiredFlag{Name: "leader-election-identity", Why: "the identity is the name of the host and a random part"},
		app.RetiredFlag{Name: "resync", Why: "all changes are watched, and failures are retried"},
	)
	app.AddRefusedFlag(fs, "dummy", "it marked volumes as attached that the driver had not attached. A driver without PUBLISH_UNPUBLISH_VOLUME needs no flag")
}

func addRetiredResizerFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, connectionTimeout, leaderElectionType)
	app.AddAlias(fs, "csiTimeout", "timeout")
}

func addRetiredSnapshotterFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, connectionTimeout, leaderElectionType, contentRetryCount, contentInterval,
		app.RetiredFlag{Name: "snapshotter", Why: "the driver says its name"},
	)
	app.AddGateAlias(fs, "enable-volume-group-snapshots", "CSIVolumeGroupSnapshot")
}

func addRetiredSnapshotControllerFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, leaderElectionType, contentRetryCount, contentInterval)
	app.AddGateAlias(fs, "enable-volume-group-snapshots", "CSIVolumeGroupSnapshot")
}

func addRetiredRegistrarFlags(fs *pflag.FlagSet) {
	app.AddRetiredFlags(fs, connectionTimeout, grpcLogLength,
		app.RetiredFlag{Name: "driver-requires-attachment", Why: "set spec.attachRequired of the CSIDriver object"},
		app.RetiredFlag{Name: "pod-info-mount-version", Why: "set spec.podInfoOnMount of the CSIDriver object"},
	)
}
