package ticket

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newContainer(t *testing.T) *Container {
	t.Helper()
	c, err := At(t.TempDir(), "uid-1", "main")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestATicketToRestoreIsUsedOnce(t *testing.T) {
	c := newContainer(t)
	now := time.Now()
	if _, err := c.Claim(now); !errors.Is(err, ErrNone) {
		t.Fatalf("Claim() without a ticket = %v, want ErrNone", err)
	}
	if err := c.Issue(Ticket{Request: "c-1", Decision: Restore, Expires: now.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Claim(now)
	if err != nil || got.Decision != Restore || got.Request != "c-1" {
		t.Fatalf("Claim() = %+v, %v", got, err)
	}
	if used, err := c.IsClaimInUse(); err != nil || !used {
		t.Errorf("IsClaimInUse() = %v, %v while the process has it", used, err)
	}
	if err := c.Release(); err != nil { // as when it ends
		t.Fatal(err)
	}
	if used, err := c.IsClaimInUse(); err != nil || used {
		t.Errorf("IsClaimInUse() = %v, %v after the process has ended", used, err)
	}
	if _, err := c.Claim(now); !errors.Is(err, ErrNone) {
		t.Errorf("the second Claim() = %v, want ErrNone", err)
	}
	if got, err := c.Claimed(); err != nil || got.Request != "c-1" {
		t.Errorf("Claimed() = %+v, %v", got, err)
	}
}

func TestTicketsThatDoNotRestoreStayValid(t *testing.T) {
	for _, decision := range []Decision{StartFresh, Fail} {
		c := newContainer(t)
		if err := c.Issue(Ticket{Decision: decision}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := c.Claim(time.Now()); err != nil || got.Decision != decision {
				t.Errorf("Claim() = %+v, %v, want %s", got, err, decision)
			}
		}
	}
}

func TestIssueRemovesWhatIsLeftOfFormerTickets(t *testing.T) {
	c := newContainer(t)
	now := time.Now()
	if err := c.Issue(Ticket{Decision: Restore, Expires: now.Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Claim(now); err != nil {
		t.Fatal(err)
	}
	if err := c.SetOutcome(Outcome{ContainerID: "id", Error: "CRIU has failed"}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Outcome(); err != nil || got.Error != "CRIU has failed" || got.ContainerID != "id" {
		t.Fatalf("Outcome() = %+v, %v", got, err)
	}
	if err := c.Issue(Ticket{Decision: StartFresh}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Outcome(); !errors.Is(err, ErrNone) {
		t.Errorf("Outcome() = %v, want ErrNone", err)
	}
	if _, err := c.Claimed(); !errors.Is(err, ErrNone) {
		t.Errorf("Claimed() = %v, want ErrNone", err)
	}
}

func TestTicketsThatAreRejected(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"of another pod":       {`{"version":1,"podUID":"uid-2","container":"main","decision":"Restore"}`, "uid-2"},
		"of another container": {`{"version":1,"podUID":"uid-1","container":"log","decision":"Restore"}`, "container log"},
		"of a newer version":   {`{"version":3,"podUID":"uid-1","container":"main"}`, "version 3"},
		"without a version":    {`{"podUID":"uid-1","container":"main"}`, "version 0"},
		"expired":              {`{"version":1,"podUID":"uid-1","container":"main","decision":"Restore","expires":"2020-01-01T00:00:00Z"}`, "expired"},
		"cut off":              {`{"version":1,"podUID":"uid-1"`, "unexpected EOF"},
		"too large":            {strings.Repeat(" ", maxFile+1), "too large"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			if err := os.MkdirAll(c.Dir(), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(c.Dir(), ticketFile), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Claim(time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Claim() = %+v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

// An agent that was not replaced yet issues tickets of the first version.
func TestATicketOfAnOlderVersionIsClaimed(t *testing.T) {
	c := newContainer(t)
	if err := os.MkdirAll(c.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	text := []byte(`{"version":1,"podUID":"uid-1","container":"main","decision":"StartFresh","expires":"2999-01-01T00:00:00Z"}`)
	if err := os.WriteFile(filepath.Join(c.Dir(), ticketFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Claim(time.Now()); err != nil || got.Decision != StartFresh {
		t.Errorf("Claim() = %+v, %v", got, err)
	}
}

func TestNamesThatLeadElsewhereAreRejected(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".x", "a\x00", strings.Repeat("a", 254)} {
		if _, err := At("/x", name, "main"); err == nil {
			t.Errorf("At() accepts the pod %q", name)
		}
		if _, err := At("/x", "uid", name); err == nil {
			t.Errorf("At() accepts the container %q", name)
		}
	}
}

func TestFilesAreForRootOnly(t *testing.T) {
	c := newContainer(t)
	if err := errors.Join(c.Issue(Ticket{Decision: Restore}), c.SetProgress("fetching")); err != nil {
		t.Fatal(err)
	}
	if c.Progress() != "fetching" {
		t.Errorf("Progress() = %q", c.Progress())
	}
	for path, want := range map[string]os.FileMode{c.Dir(): 0o700, filepath.Join(c.Dir(), ticketFile): 0o600, filepath.Join(c.Dir(), progressFile): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}
