package csitest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
)

// reportVariable is the environment variable with the file for the report of
// TestSanityChild, which is skipped without it. A process can run only one Ginkgo
// suite, so each run of csi-sanity has its own process.
const reportVariable = "CSITEST_SANITY_REPORT"

// expectedSkips are the messages of skipped specs, with the capability that is not
// announced. Any other skip fails TestSanity.
func expectedSkips() map[string]string {
	return map[string]string{
		"ControllerGetVolumeHealth not supported":          "GET_VOLUME_HEALTH is not announced",
		"ControllerListVolumeHealth not supported":         "LIST_VOLUME_HEALTH is not announced",
		"NodeGetVolumeHealth not supported":                "the node's GET_VOLUME_HEALTH is not announced",
		"NodeGetStorageHealth not supported":               "the node's GET_STORAGE_HEALTH is not announced",
		"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported": "snapshots have no topology",
	}
}

func variants() map[string]func(*Options, *sanity.TestConfig) {
	return map[string]func(*Options, *sanity.TestConfig){
		"mounted": func(*Options, *sanity.TestConfig) {},
		"block":   func(_ *Options, c *sanity.TestConfig) { c.TestVolumeAccessType = "block" },
		"topology and limits": func(o *Options, _ *sanity.TestConfig) {
			o.Segments = []map[string]string{{"zone": "a"}, {"zone": "b"}}
			o.Capacity, o.MaxVolumeSize = 1<<40, 1<<39
		},
	}
}

func TestSanity(t *testing.T) {
	for name := range variants() {
		t.Run(name, func(t *testing.T) {
			report := filepath.Join(t.TempDir(), "report.json")
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSanityChild$/^"+strings.ReplaceAll(name, " ", "_")+"$")
			child.Env = append(os.Environ(), reportVariable+"="+report)
			var output bytes.Buffer
			child.Stdout, child.Stderr = &output, &output
			if err := child.Run(); err != nil {
				t.Fatalf("csi-sanity: %v\n%s", err, output.String())
			}
			checkReport(t, report)
		})
	}
}

func checkReport(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		t.Fatal(err)
	}
	right, passed, skipped := expectedSkips(), 0, 0
	for _, spec := range reports[0].SpecReports {
		switch {
		case spec.State == types.SpecStatePassed:
			passed++
		case spec.State == types.SpecStateSkipped && right[spec.FailureMessage()] != "":
			skipped++
		case spec.State == types.SpecStatePending:
			t.Logf("pending in csi-sanity itself: %s", spec.FullText())
		default:
			t.Errorf("%s: %s: %s", spec.State, spec.FullText(), spec.FailureMessage())
		}
	}
	t.Logf("%d specs passed, %d skipped", passed, skipped)
	if passed < 75 {
		t.Errorf("only %d specs passed, want at least 75", passed)
	}
}

// TestSanityChild runs csi-sanity.
func TestSanityChild(t *testing.T) {
	report := os.Getenv(reportVariable)
	if report == "" {
		t.Skip("TestSanity runs this test in a process of its own")
	}
	for name, change := range variants() {
		t.Run(name, func(t *testing.T) {
			opts := Options{MaxVolumesPerNode: 4}
			config := sanity.NewTestConfig()
			change(&opts, &config)
			d := New(opts)
			config.Address = d.Serve(t)
			config.TargetPath, config.StagingPath = filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "staging")
			config.TestVolumeMutableParameters = map[string]string{"iops": "3000"}
			config.TestNodeVolumeAttachLimit = true

			context := sanity.GinkgoTest(&config)
			gomega.RegisterFailHandler(ginkgo.Fail)
			suite, reporter := ginkgo.GinkgoConfiguration()
			reporter.JSONReport = report
			ginkgo.RunSpecs(t, "csi-sanity", suite, reporter)
			context.Finalize()
			if diff := cmp.Diff(inventory{}, inventoryOf(d)); diff != "" {
				t.Errorf("csi-sanity left objects behind:\n%s", diff)
			}
		})
	}
}

type inventory struct {
	Volumes   []Volume
	Snapshots []Snapshot
	Groups    []Group
}

func inventoryOf(d *Driver) inventory { return inventory{d.Volumes(), d.Snapshots(), d.Groups()} }

func TestCallsWithoutTheirCapabilityAreUnimplemented(t *testing.T) {
	d := New(Options{
		Controller: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_LIST_VOLUMES},
		Group:      []csipb.GroupControllerServiceCapability_RPC_Type{},
	})
	for method := range neededGroup() {
		if d.checkCapability(method) == nil {
			t.Errorf("%s is there", method)
		}
	}
	for method, needed := range neededController() {
		err := d.checkCapability(method)
		if has := needed == csipb.ControllerServiceCapability_RPC_LIST_VOLUMES; has != (err == nil) {
			t.Errorf("%s: announced %v, error %v", method, has, err)
		}
	}
}
