package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Unmount unmounts a directory in which the test process has no open file, and fails the
// test if it has one. It waits: a process that another test starts has copies of all open
// files from its fork to its exec, and keeps the directory busy for that long.
func Unmount(t testing.TB, dir string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(context.Background(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		err := unix.Unmount(dir, 0)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		t.Errorf("unmounting %s, which should have no open files: %v", dir, err)
	}
}
