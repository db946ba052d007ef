package local

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Options configures the driver.
type Options struct {
	// Address is the socket to serve, a path or unix:///path; several are separated by
	// commas.
	Address string
	// NodeID is the name of this machine in topology and responses.
	NodeID string
	// DataDir is the directory of images and records. One driver uses it at a time, or
	// with Attach one controller service and the services of all nodes.
	DataDir string
	// Attach lets several nodes of one machine use the volumes, one node at a time.
	Attach bool
	// Services selects the services of this process.
	Services string
	// Capacity limits the sum of all sizes. 0 means the size of the disk.
	Capacity resource.QuantityValue
	// DriverName is the name under which the driver registers.
	DriverName string
	// MaxVolumes is the node's limit of volumes (NodeGetInfo), 0 for none.
	MaxVolumes int64
	// IgnoredParameters are StorageClass parameters that the driver accepts without
	// effect, so that classes of another driver can be tried with this one.
	IgnoredParameters []string
	// Version is reported as the driver's version. It is not a flag.
	Version string
}

// AddFlags adds the flags. Environment variables set their defaults.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Address, "csi-address", fromEnv("CSI_ENDPOINT", "unix:///csi/csi.sock"), "Socket to serve, a path or unix:///path; several are separated by commas (env CSI_ENDPOINT)")
	fs.StringVar(&o.NodeID, "node-id", fromEnv("NODE_NAME", ""), "Name of this node (env NODE_NAME)")
	fs.StringVar(&o.DataDir, "data-dir", "/var/lib/holdfast/local", "Directory for images and their records")
	fs.BoolVar(&o.Attach, "attach", false, "Publish volumes to one of several nodes of this machine, which share --data-dir")
	fs.StringVar(&o.Services, "services", allServices, "Services of this process: all, or with --attach controller, node or publish")
	fs.Var(&o.Capacity, "capacity", "Limit for the total size of all volumes and snapshots, for example 100Gi; 0 for the size of the disk")
	fs.StringVar(&o.DriverName, "driver-name", "local.holdfast.io", "Name of the CSI driver, also the prefix of its topology key")
	fs.StringSliceVar(&o.IgnoredParameters, "ignore-parameters", nil, "StorageClass parameters that the driver accepts without effect")
	fs.Int64Var(&o.MaxVolumes, "max-volumes", 0, "Maximum number of volumes that the node reports; 0 for no limit")
}

// The values of Services.
const (
	allServices       = "all"
	controllerService = "controller"
	nodeService       = "node"
	// publishService is the part of the controller service that publishes volumes. Any
	// number of processes can run it next to the controller.
	publishService = "publish"
)

func fromEnv(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// Rules of the CSI spec for plugin names (GetPluginInfoResponse) and for topology
// values, which include the node ID.
var (
	driverNameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)
	nodeIDRule     = regexp.MustCompile(`^[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)
)

// Validate returns all invalid options in one error.
func (o *Options) Validate() error {
	var errs []error
	for _, path := range o.sockets() {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("--csi-address %q: must be a socket path or unix:///path, or several separated by commas", o.Address))
		}
	}
	if err := o.checkServices(); err != nil {
		errs = append(errs, err)
	}
	if o.serves(nodeService) && !nodeIDRule.MatchString(o.NodeID) {
		errs = append(errs, fmt.Errorf("--node-id %q: must be up to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends", o.NodeID))
	}
	if !driverNameRule.MatchString(o.DriverName) {
		errs = append(errs, fmt.Errorf("--driver-name %q: must be a DNS name of up to 63 characters", o.DriverName))
	}
	if o.DataDir == "" {
		errs = append(errs, errors.New("--data-dir: must not be empty"))
	}
	if !o.hasValidCapacity() {
		errs = append(errs, fmt.Errorf("--capacity %s: must not be negative, and must be less than 8Ei", o.Capacity.String()))
	}
	if o.MaxVolumes < 0 {
		errs = append(errs, fmt.Errorf("--max-volumes %d: must not be negative", o.MaxVolumes))
	}
	return errors.Join(errs...)
}

func (o *Options) hasValidCapacity() bool {
	return o.Capacity.Sign() >= 0 && o.Capacity.CmpInt64(math.MaxInt64) <= 0
}

func (o *Options) checkServices() error {
	switch {
	case o.Services == allServices, o.Attach && slices.Contains([]string{controllerService, nodeService, publishService}, o.Services):
		return nil
	case !o.Attach:
		return fmt.Errorf("--services %q: without --attach a process runs all services of its directory", o.Services)
	default:
		return fmt.Errorf("--services %q: must be %s, %s, %s or %s", o.Services, allServices, controllerService, nodeService, publishService)
	}
}

// serves reports whether this process has the service.
func (o *Options) serves(service string) bool {
	return o.Services == allServices || o.Services == service
}

// storeOptions returns the options of the store.
func (o *Options) storeOptions() volume.Options {
	s := volume.Options{Capacity: o.Capacity.Value(), Shared: o.Attach}
	if !o.Attach {
		s.Home = o.NodeID
		return s
	}
	s.NodeOnly = !o.serves(controllerService)
	if o.serves(nodeService) {
		s.Node, s.MaxVolumes = o.NodeID, o.MaxVolumes
	}
	return s
}

// sockets returns the paths in Address, at least one.
func (o *Options) sockets() []string {
	all := strings.Split(o.Address, ",")
	for i := range all {
		all[i] = strings.TrimPrefix(all[i], "unix://")
	}
	return all
}
