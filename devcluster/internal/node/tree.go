package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// suite is the Debian release of the tree. CRIU moves with the kernel: that of
// Debian 12 fails on kernels from 6.13 on, so the newest one is taken.
const suite = "sid"

var packages = []string{
	"criu", "containerd", "runc", "crun", "containernetworking-plugins", "iptables", "iproute2", "conntrack",
	"busybox-static", "ca-certificates", "mount", "procps", "e2fsprogs", "xfsprogs", "fuse3",
}

// Tree returns the Debian tree under all nodes. It is made by debootstrap the
// first time, below cache, from the mirror that this machine's apt uses; the
// output of that goes to log.
// It calls making before it starts on one.
func Tree(cache string, log io.Writer, making func()) (string, error) {
	recipe := sha256.Sum256([]byte(suite + strings.Join(packages, " ")))
	tree := filepath.Join(cache, fmt.Sprintf("tree-%x", recipe[:6]))
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	if err := canMakeTree(); err != nil {
		return "", err
	}
	making()
	return tree, makeTree(tree, log)
}

// canMakeTree says what is missing on this machine to make a tree.
func canMakeTree() error {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return errors.New("a node's files are made by debootstrap, which is not installed: apt-get install debootstrap")
	}
	return nil
}

func makeTree(tree string, log io.Writer) error {
	mirror, err := mirror()
	if err != nil {
		return err
	}
	half := tree + ".part"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}
	cmd := exec.Command("debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, half, mirror)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running debootstrap for %s from %s: %w", suite, mirror, err)
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

// mirror is the first Debian archive that this machine's apt is set up with.
func mirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt-get for its mirror (nodes need a Debian machine): %w", err)
	}
	for line := range strings.Lines(string(out)) {
		origin, uri, _ := strings.Cut(strings.TrimSpace(line), " ")
		if origin == "Debian" && !strings.Contains(uri, "security") {
			return uri, nil
		}
	}
	return "", errors.New("apt knows no Debian archive: run apt-get update, or check /etc/apt/sources.list")
}

// lock keeps two programs from making the same tree.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, errors.Join(err, f.Close()))
	}
	return func() { f.Close() }, nil
}
