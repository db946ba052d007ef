package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Ginkgo runs one suite per process, so each csi-sanity run is this test binary again,
// configured by environment variables.
const (
	sanityDir    = "HOLDFAST_SANITY_DIR"
	sanityAccess = "HOLDFAST_SANITY_ACCESS"
	sanityFocus  = "HOLDFAST_SANITY_FOCUS"
	sanityAttach = "HOLDFAST_SANITY_ATTACH"
	reportName   = "report.json"
	nobody       = 65534
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(sanityDir); dir != "" {
		os.Exit(sanityRun(dir))
	}
	os.Exit(m.Run())
}

// outcome is the part of testing.T that Ginkgo needs.
type outcome struct{ failed bool }

func (o *outcome) Fail() { o.failed = true }

// sanityRun serves the driver in dir and runs csi-sanity against it.
func sanityRun(dir string) int {
	o := &Options{Address: filepath.Join(dir, "csi.sock"), NodeID: "n1", DriverName: "local.holdfast.io",
		Services: allServices, Attach: os.Getenv(sanityAttach) != "", MaxVolumes: 4, Version: "test"}
	if err := o.Capacity.Set("1Ti"); err != nil {
		fmt.Println(err)
		return 1
	}
	store, err := volume.Open(filepath.Join(dir, "data"), o.storeOptions())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	listener, err := listen(o.sockets()[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	served := make(chan error, 1)
	go func() { served <- serve(ctx, o, store, []net.Listener{listener}) }()

	config := sanity.NewTestConfig()
	config.Address = o.Address
	config.TargetPath = filepath.Join(dir, "target")
	config.StagingPath = filepath.Join(dir, "staging")
	config.TestVolumeSize = 320 << 20
	config.TestVolumeExpandSize = 640 << 20
	config.TestNodeVolumeAttachLimit = o.Attach
	config.TestVolumeAccessType = os.Getenv(sanityAccess)
	suite, reporter := ginkgo.GinkgoConfiguration()
	reporter.JSONReport = filepath.Join(dir, reportName)
	if focus := os.Getenv(sanityFocus); focus != "" {
		suite.FocusStrings = strings.Split(focus, ",")
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	tests := sanity.GinkgoTest(&config)
	var result outcome
	ginkgo.RunSpecs(&result, "csi-sanity", suite, reporter)
	tests.Finalize()
	stop()
	if err := <-served; err != nil || result.failed {
		fmt.Println(err)
		return 1
	}
	return 0
}

// skips are the accepted reasons for a skipped spec: the driver does not report the
// capability that it tests.
var skips = map[string]func(o *Options) (announced bool){
	"ControllerPublishVolume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
	},
	"ControllerUnpublishVolume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
	},
	"Controller Publish, UnpublishVolume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
	},
	"Modify volume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	},
	"Modify Volume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	},
	"ControllerModifyVolume not supported": func(o *Options) bool {
		return o.controls(csi.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	},
	"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported": func(o *Options) bool {
		return o.plugs(csi.PluginCapability_Service_SNAPSHOT_ACCESSIBILITY_CONSTRAINTS)
	},
	"GroupControllerService not supported": func(o *Options) bool {
		return o.plugs(csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	},
}

func (o *Options) controls(c csi.ControllerServiceCapability_RPC_Type) bool {
	return slices.ContainsFunc(o.controllerCapabilities(), func(have *csi.ControllerServiceCapability) bool {
		return have.GetRpc().GetType() == c
	})
}

func (o *Options) plugs(c csi.PluginCapability_Service_Type) bool {
	return slices.ContainsFunc(o.pluginCapabilities(), func(have *csi.PluginCapability) bool {
		return have.GetService().GetType() == c
	})
}

func TestSanity(t *testing.T) {
	disktest.NeedRoot(t)
	tests := map[string]struct {
		access string
		uid    uint32
		focus  string // "" is the whole suite
		attach bool
	}{
		"everything as filesystems":           {access: "mount"},
		"everything as raw devices":           {access: "block"},
		"controller calls need no privileges": {access: "mount", uid: nobody, focus: "Controller Server,Identity Service"},
		"everything attached as filesystems":  {access: "mount", attach: true},
		"everything attached as raw devices":  {access: "block", attach: true},
		"attaching needs no privileges":       {access: "mount", uid: nobody, focus: "Controller Server,Identity Service", attach: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			program := filepath.Join(dir, "program")
			copyProgram(t, program)
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), sanityDir+"="+dir, sanityAccess+"="+tt.access, sanityFocus+"="+tt.focus)
			if tt.attach {
				cmd.Env = append(cmd.Env, sanityAttach+"=1")
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("csi-sanity: %v\n%s", err, output)
			}
			checkReport(t, filepath.Join(dir, reportName), tt.focus == "", &Options{Attach: tt.attach, Services: allServices})
		})
	}
}

// checkReport checks that every spec passed, except for skips with an accepted reason.
func checkReport(t *testing.T, path string, whole bool, o *Options) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var reports []types.Report
	must(t, json.Unmarshal(data, &reports))
	counts := map[types.SpecState]int{}
	reasons := map[string]int{}
	for _, spec := range reports[0].SpecReports.WithLeafNodeType(types.NodeTypeIt) {
		unfocused := spec.State == types.SpecStateSkipped && spec.Failure.Message == ""
		if unfocused && !whole && spec.ContainerHierarchyTexts[0] != "Controller Service [Controller Server]" {
			continue
		}
		counts[spec.State]++
		if spec.State == types.SpecStateSkipped {
			reasons[spec.Failure.Message]++
		}
		if !acceptable(spec, o) {
			t.Errorf("spec %q: %s: %s", spec.FullText(), spec.State, spec.Failure.Message)
		}
	}
	t.Logf("specs: %v, skipped: %v", counts, reasons)
	if counts[types.SpecStatePassed] < 40 {
		t.Errorf("only %d specs ran", counts[types.SpecStatePassed])
	}
}

// acceptable reports whether the outcome of a spec is accepted.
func acceptable(spec types.SpecReport, o *Options) bool {
	switch spec.State {
	case types.SpecStatePassed, types.SpecStatePending: // pending is switched off in csi-sanity itself
		return true
	case types.SpecStateSkipped:
		announced, known := skips[spec.Failure.Message]
		return known && !announced(o)
	default:
		return false
	}
}

// openDir returns a directory that every user may use.
func openDir(t *testing.T) string {
	t.Helper()
	dir := disktest.Dir(t)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}
