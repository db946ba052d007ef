package runc

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A shell has such children all the time.
func TestProcessWithoutMemory(t *testing.T) {
	child := exec.Command("true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	for deadline := time.Now().Add(time.Minute); ; {
		fields, err := statFields(pid)
		if err != nil {
			t.Fatal(err)
		}
		if fields[0] == "Z" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the child is in state %s", fields[0])
		}
	}
	u := &usage{}
	if err := u.inspect(&target{}, pid, map[string]bool{}); err != nil || u.memory() != 0 {
		t.Errorf("a child that has ended: %v, %+v", err, u)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := u.inspect(&target{}, pid, map[string]bool{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a child that is gone: %v", err)
	}
}
