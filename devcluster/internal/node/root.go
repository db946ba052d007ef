package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// enterRoot makes the node's root and moves this process into it. A chroot
// would not do: CRIU requires that the tree is the root of its mount namespace.
func enterRoot(spec Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	root, err := layRoot(spec)
	if err != nil {
		return err
	}
	if err := fillRoot(spec, root); err != nil {
		return err
	}
	if err := pivot(root); err != nil {
		return err
	}
	// Mounts that a CSI driver's pod makes must reach the kubelet and other pods.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making mounts shared: %w", err)
	}
	return nil
}

// layRoot puts a writable layer of the node's own over the shared tree.
func layRoot(spec Spec) (string, error) {
	root, upper, work := filepath.Join(spec.State, "root"), filepath.Join(spec.State, "upper"), filepath.Join(spec.State, "work")
	for _, dir := range []string{root, upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("making the node's root: %w", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", spec.Tree, upper, work)
	if err := unix.Mount("devcluster", root, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mounting an overlay in %s: %w%s", spec.State, err, overlayHint(err))
	}
	return root, nil
}

// overlayHint says what the kernel's terse answers mean here.
func overlayHint(err error) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return ": the kernel has none (CONFIG_OVERLAY_FS)"
	case errors.Is(err, unix.EINVAL):
		return ": its filesystem cannot hold one, perhaps it is an overlay itself; set DEVCLUSTER_HOME to a folder on another"
	default:
		return ""
	}
}

// fillRoot adds what the tree lacks: the kernel's filesystems, /var on the
// state folder's own filesystem (containerd cannot work on an overlay), the
// configuration and this program.
func fillRoot(spec Spec, root string) error {
	for _, dir := range []string{"lib/kubelet", "log", "tmp"} {
		if err := os.MkdirAll(filepath.Join(spec.Var(), dir), 0o755); err != nil {
			return fmt.Errorf("making /var: %w", err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(spec.Var(), "run")); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making /var/run: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC},
		{"/sys", "sys", "", unix.MS_BIND | unix.MS_REC},
		{"proc", "proc", "proc", 0},
		{"run", "run", "tmpfs", 0},
		{"tmp", "tmp", "tmpfs", 0},
		{spec.Var(), "var", "", unix.MS_BIND},
		{spec.Shared, SharedAt, "", unix.MS_BIND},
		{spec.Files(), FilesAt, "", unix.MS_BIND},
		{self, "usr/local/bin/kubelet", "", unix.MS_BIND},
		{self, "usr/local/bin/kube-proxy", "", unix.MS_BIND},
	}
	for _, m := range mounts {
		target := filepath.Join(root, m.target)
		if err := mountPoint(m.source, target); err != nil {
			return err
		}
		if err := unix.Mount(m.source, target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting /%s: %w", m.target, err)
		}
	}
	return settle(spec, root)
}

// mountPoint makes target the kind of thing that source is.
func mountPoint(source, target string) error {
	if info, err := os.Stat(source); err == nil && info.Mode().IsRegular() {
		f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o755)
		if err != nil {
			return fmt.Errorf("making %s: %w", target, err)
		}
		return f.Close()
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", target, err)
	}
	return nil
}

// settle writes the files that programs look for at fixed places.
func settle(spec Spec, root string) error {
	files := map[string]string{
		"etc/hostname":                         spec.Name + "\n",
		"etc/hosts":                            "127.0.0.1 localhost\n" + spec.Address.String() + " " + spec.Name + "\n",
		"etc/resolv.conf":                      "",
		"etc/cni/net.d/10-devcluster.conflist": cniConfig(spec.Pods),
	}
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("making the folder of /%s: %w", name, err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("writing /%s: %w", name, err)
		}
	}
	if err := os.Symlink("../../sbin/runc", filepath.Join(root, RuntimeAt)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("linking %s to runc: %w", RuntimeAt, err)
	}
	return nil
}

func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("entering the node's root: %w", err)
	}
	// The old root goes on top of the new one and is taken off at once; see pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the old root: %w", err)
	}
	return os.Chdir("/")
}
