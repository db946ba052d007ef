package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
)

// suite is the Debian release of the tree. CRIU moves with the kernel: that of
// Debian 12 fails on kernels from 6.13 on, so the newest one is taken.
const suite = "sid"

var packages = []string{
	"criu", "containerd", "runc", "crun", "containernetworking-plugins", "iptables", "iproute2", "conntrack",
	"busybox-static", "ca-certificates", "mount", "procps", "e2fsprogs", "xfsprogs", "fuse3",
}

// A TreeMaker makes the Debian tree under all nodes, once.
type TreeMaker struct {
	// Cache is the folder of trees.
	Cache string
	// Log is the file for the output of debootstrap.
	Log string
	// Line ends the making with this process.
	Line *lifeline.Line
	// Tell receives a line on what takes long.
	Tell func(format string, args ...any)
}

// Tree returns the tree. If there is none for this program yet, debootstrap
// makes one from the mirror that this machine's apt uses.
func (m TreeMaker) Tree(ctx context.Context) (string, error) {
	recipe := sha256.Sum256([]byte(suite + strings.Join(packages, " ")))
	tree := filepath.Join(m.Cache, fmt.Sprintf("tree-%x", recipe[:6]))
	if there(tree) {
		return tree, nil
	}
	lock, err := m.lock(ctx)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if there(tree) {
		return tree, nil // Another process has made it meanwhile.
	}
	return tree, m.make(ctx, tree, lock)
}

func there(tree string) bool {
	_, err := os.Stat(tree)
	return err == nil
}

// lock keeps two processes from making a tree at the same time.
func (m TreeMaker) lock(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(m.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("making %s: %w", m.Cache, err)
	}
	f, err := os.OpenFile(filepath.Join(m.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", m.Cache, err)
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", m.Cache, err), f.Close())
		}
		if !told {
			m.Tell("another process is making a Debian tree for nodes; waiting for it")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the Debian tree: %w", context.Cause(ctx)), f.Close())
		case <-time.After(pulse):
		}
	}
}

// pulse is how often something is looked at that is waited for.
const pulse = 20 * time.Millisecond

// make fills a folder beside the tree and gives it the tree's name when it is
// whole.
func (m TreeMaker) make(ctx context.Context, tree string, lock *os.File) error {
	if err := removeParts(m.Cache); err != nil {
		return err
	}
	half := tree + part
	if err := m.debootstrap(ctx, half, lock); err != nil {
		return errors.Join(err, removeParts(m.Cache))
	}
	for _, dir := range []string{"var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"} {
		if err := os.RemoveAll(filepath.Join(half, dir)); err != nil {
			return fmt.Errorf("trimming the tree: %w", err)
		}
	}
	unix.Sync() // A tree that is there must be whole, also after a power cut.
	if err := os.Rename(half, tree); err != nil {
		return fmt.Errorf("moving the tree to its place: %w", err)
	}
	return nil
}

// part ends the name of a tree that is being made.
const part = ".part"

// removeParts removes trees that were begun. The caller holds the lock, and so
// does whoever is still making one.
func removeParts(cache string) error {
	parts, _ := filepath.Glob(filepath.Join(cache, "*"+part)) // The pattern is well-formed.
	for _, p := range parts {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("removing a tree that was begun: %w", err)
		}
	}
	return nil
}

// DebootstrapRole is the name under which the program runs debootstrap.
const DebootstrapRole = "node-debootstrap"

// debootstrap runs in mount and process namespaces of its own: what it mounts
// in the tree and whatever it started is gone when it ends, or when this
// process does, and the lock is held until then.
func (m TreeMaker) debootstrap(ctx context.Context, to string, lock *os.File) error {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return errors.New("a node's files are made by debootstrap, which is not installed: apt-get install debootstrap")
	}
	from, err := mirror()
	if err != nil {
		return err
	}
	log, err := openLog(m.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	m.Tell("making a Debian tree for nodes from %s: a minute, the first time", from)
	cmd := lifeline.Self(DebootstrapRole, "--variant=minbase", "--include="+strings.Join(packages, ","), suite, to, from)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	cmd.Stdout, cmd.Stderr = log, log
	m.Line.Attach(cmd, lock)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("making namespaces for debootstrap (in a container, it must be privileged): %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("running debootstrap for %s from %s: %w: %s", suite, from, errors.Join(context.Cause(ctx), err), lastLine(m.Log))
	}
	m.Tell("the tree is made: %s", strings.TrimSuffix(to, part))
	return nil
}

// RunDebootstrap runs debootstrap as the first process of its namespaces.
func RunDebootstrap(args []string) int {
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
	); err != nil {
		fmt.Fprintln(os.Stderr, "mounting /proc:", err)
		return 1
	}
	cmd := exec.Command("debootstrap", args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
