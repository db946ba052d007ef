package runc

import (
	"os"
	"os/exec"
	"testing"
)

// Those that do are in TestVfork of test/checkpoint.
func TestSharesMemory(t *testing.T) {
	self := os.Getpid()
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Wait() }() // It returns that the process was killed.
	defer func() { _ = other.Process.Kill() }()
	if sharesMemory(other.Process.Pid, []int{self, other.Process.Pid}) {
		t.Error("a child after exec shares the memory of its parent")
	}
	if sharesMemory(self, []int{self}) {
		t.Error("a process whose parent is not of the container shares memory")
	}
}
