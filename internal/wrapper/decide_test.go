package wrapper

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

func TestDecide(t *testing.T) {
	broken := errors.New("broken")
	by := func(decision ticket.Decision, request string) *ticket.Ticket {
		return &ticket.Ticket{Decision: decision, Request: request}
	}
	tests := map[string]struct {
		situation
		want action
	}{
		"an ordinary container starts":                                    {situation{}, pass},
		"an ordinary container starts if its ticket is garbage":           {situation{err: broken}, pass},
		"one that asks for a restore waits for its ticket":                {situation{request: "c"}, waitMore},
		"one that asks for a restore waits for a ticket that is readable": {situation{request: "c", err: broken}, waitMore},
		"a ticket restores": {situation{request: "c", ticket: by(ticket.Restore, "c")}, restore},
		"a ticket restores in place, without a request in the container": {situation{ticket: by(ticket.Restore, "c")}, restore},
		"a ticket to start afresh lets it start":                         {situation{request: "c", ticket: by(ticket.StartFresh, "c")}, pass},
		"a ticket to fail lets it fail":                                  {situation{request: "c", ticket: by(ticket.Fail, "c")}, fail},
		"a ticket to restore for another request is none":                {situation{request: "d", ticket: by(ticket.Restore, "c")}, waitMore},
		"a ticket to start afresh for another request is none":           {situation{request: "d", ticket: by(ticket.StartFresh, "c")}, waitMore},
		"a ticket to fail for another request is none":                   {situation{request: "d", ticket: by(ticket.Fail, "c")}, waitMore},
		"a decision that is not known is none":                           {situation{request: "c", ticket: by("Migrate", "c")}, waitMore},
		"after a restore the agent decides":                              {situation{undecided: true}, waitMore},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := decide(tt.situation); got != tt.want {
				t.Errorf("decide() = %d, want %d", got, tt.want)
			}
		})
	}
}

func newPlace(t *testing.T) *ticket.Container {
	t.Helper()
	place, err := ticket.At(t.TempDir(), "uid", "main")
	if err != nil {
		t.Fatal(err)
	}
	return place
}

func TestAwaitTakesATicketThatIsIssuedMeanwhile(t *testing.T) {
	place := newPlace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	issued := make(chan error)
	go func() { issued <- place.Issue(ticket.Ticket{Request: "c", Decision: ticket.StartFresh}) }()
	got, _ := await(ctx, place, "c")
	if err := <-issued; err != nil || got != pass {
		t.Errorf("await() = %d, want %d; %v", got, pass, err)
	}
}

func TestAfterARestoreTheAgentDecides(t *testing.T) {
	place := newPlace(t)
	if err := place.Issue(ticket.Ticket{Decision: ticket.Restore, Expires: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if _, err := place.Claim(time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []ticket.Outcome{{Error: "CRIU"}, {}} {
		if got := decide(observe(place, "")); got != waitMore {
			t.Errorf("decide() = %d before the agent has decided, want %d", got, waitMore)
		}
		if err := place.SetOutcome(outcome); err != nil {
			t.Fatal(err)
		}
	}
	if err := place.Issue(ticket.Ticket{Decision: ticket.StartFresh}); err != nil {
		t.Fatal(err)
	}
	if got := decide(observe(place, "")); got != pass {
		t.Errorf("decide() = %d after the agent has decided, want %d", got, pass)
	}
}

func TestNoTicketNamesWhatToLookAt(t *testing.T) {
	tests := map[string]struct {
		situation
		want string
	}{
		"no ticket":                    {situation{request: "c-1"}, "the restore from c-1: the agent has issued no ticket within 1s"},
		"a broken ticket":              {situation{request: "c-1", err: errors.New("cut off")}, "its ticket cannot be used: cut off"},
		"a ticket for another request": {situation{request: "c-1", ticket: &ticket.Ticket{Request: "c-2"}}, `a ticket for "c-2" only`},
		"a ticket of a newer version":  {situation{request: "c-1", ticket: &ticket.Ticket{Request: "c-1", Decision: "Move"}}, `the decision "Move"`},
		"a restore without a decision": {situation{undecided: true}, "the agent has decided nothing since"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			place := newPlace(t)
			if err := place.SetProgress("fetching, 40 %"); err != nil {
				t.Fatal(err)
			}
			got := noTicket(tt.situation, place, time.Second).Error()
			for _, want := range []string{tt.want, "fetching, 40 %", "kubectl describe pod", "agent (holdfast node)"} {
				if !strings.Contains(got, want) {
					t.Errorf("%s: want %q in it", got, want)
				}
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	containerd := map[string]string{containerdType: "container", containerdUID: "uid-1", containerdName: "main"}
	crio := map[string]string{crioType: "container", crioLabels: `{"io.kubernetes.pod.uid":"uid-1","io.kubernetes.container.name":"main"}`}
	with := func(all map[string]string, more ...string) map[string]string {
		merged := map[string]string{}
		for k, v := range all {
			merged[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			merged[more[i]] = more[i+1]
		}
		return merged
	}
	tests := map[string]struct {
		annotations map[string]string
		want        identity
		err         string
		pause       bool
	}{
		"a container of containerd":                   {annotations: containerd, want: identity{"uid-1", "main"}},
		"a container of CRI-O":                        {annotations: crio, want: identity{"uid-1", "main"}},
		"a pause container of containerd":             {annotations: with(containerd, containerdType, "sandbox"), pause: true},
		"a pause container of CRI-O":                  {annotations: with(crio, crioType, "sandbox"), pause: true},
		"a container of nobody":                       {},
		"CRI-O's labels are broken":                   {annotations: with(crio, crioLabels, "{"), err: "reading the annotation"},
		"a pod on CRI-O forges containerd's":          {annotations: with(crio, containerdType, "container", containerdUID, "uid-2", containerdName, "main"), err: "name two"},
		"a pod on containerd forges CRI-O's":          {annotations: with(containerd, crioType, "container", crioLabels, `{"io.kubernetes.pod.uid":"uid-2"}`), err: "name two"},
		"a pod that poses as a pause container":       {annotations: with(containerd, crioType, "sandbox"), err: "name two", pause: true},
		"both say the same":                           {annotations: with(crio, containerdType, "container", containerdUID, "uid-1", containerdName, "main"), want: identity{"uid-1", "main"}},
		"containerd's keys without the type are none": {annotations: with(crio, containerdUID, "uid-2"), want: identity{"uid-1", "main"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := annotations(tt.annotations)
			got, err := a.identity()
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("identity() = %+v, %v, want %+v, %q", got, err, tt.want, tt.err)
			}
			if a.isPause() != tt.pause {
				t.Errorf("isPause() = %v, want %v", a.isPause(), tt.pause)
			}
		})
	}
}

func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, name := range []string{"runc", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	defaults := config{runtime: filepath.Join(dir, "runc"), dir: ticket.DefaultDir, wait: defaultWait}
	tests := map[string]struct {
		text    string
		want    config
		warning string
	}{
		"whole": {
			text: `{"runtime":"` + dir + `/other","dir":"/x","wait":"5s"}`,
			want: config{runtime: filepath.Join(dir, "other"), dir: "/x", wait: 5 * time.Second},
		},
		"by name":                   {text: `{"runtime":"other"}`, want: config{runtime: filepath.Join(dir, "other"), dir: ticket.DefaultDir, wait: defaultWait}},
		"missing":                   {text: "", want: defaults, warning: "no such file"},
		"broken":                    {text: "{", want: defaults, warning: "unexpected end"},
		"of a runtime that is gone": {text: `{"runtime":"/nowhere/runc"}`, want: defaults, warning: "/nowhere/runc is not an OCI runtime"},
		"of itself":                 {text: `{"runtime":"` + self + `"}`, want: defaults, warning: "other than holdfast-runtime itself"},
		"of a directory":            {text: `{"runtime":"` + dir + `"}`, want: defaults, warning: "is not an OCI runtime"},
		"with a strange directory":  {text: `{"dir":"x/y"}`, want: defaults},
		"with a strange time":       {text: `{"wait":"soon"}`, want: defaults},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			called := filepath.Join(t.TempDir(), "oci-runtime")
			// The configuration is beside the link, not beside the program.
			if err := os.Symlink(self, called); err != nil {
				t.Fatal(err)
			}
			if tt.text != "" {
				if err := os.WriteFile(called+".json", []byte(tt.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := loadConfig(called)
			if err != nil || !strings.Contains(got.warning, tt.warning) || (got.warning == "") != (tt.warning == "") {
				t.Errorf("loadConfig() warns %q, %v, want %q", got.warning, err, tt.warning)
			}
			got.warning = ""
			if got != tt.want {
				t.Errorf("loadConfig() = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestANodeWithoutRuntimeIsAnError(t *testing.T) {
	t.Setenv("PATH", "")
	defer func(path []string) { searchPath = path }(searchPath)
	searchPath = nil
	if c, err := loadConfig("/nowhere/oci-runtime"); err == nil || !strings.Contains(err.Error(), "install runc") {
		t.Errorf("loadConfig() = %+v, %v", c, err)
	}
}

func TestReport(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log.json")
	c := call{log: log, logFormat: "json"}
	writeLog(c, "error", "one\ntwo")
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var entry struct{ Level, Msg, Time string }
	if err := json.Unmarshal(text, &entry); err != nil || entry.Level != "error" || entry.Msg != "one; two" {
		t.Errorf("the log has %s, %v", text, err)
	}
	if _, err := time.Parse(time.RFC3339, entry.Time); err != nil {
		t.Error(err)
	}
	c.logFormat = ""
	writeLog(c, "warning", "three")
	if text, err = os.ReadFile(log); err != nil || !strings.Contains(string(text), `level=warning msg="three"`) {
		t.Errorf("the log has %s, %v", text, err)
	}
}
