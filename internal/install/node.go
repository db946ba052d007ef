package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// nodePath is where the programs of a node are looked for.
const nodePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// errNoNode means that programs of the node cannot be run from here: only its files are there.
var errNoNode = errors.New("the node has no /proc")

// A node is the file system and the processes of a node.
type node struct {
	root string // where its file system is mounted
	// run runs a program of the node and returns its output.
	run func(ctx context.Context, args ...string) (string, error)
	// changed is called after each change of a file. Tests crash there.
	changed func()
}

func newNode(root string) *node {
	n := &node{root: filepath.Clean(root), changed: func() {}}
	n.run = n.runProgram
	return n
}

// resolve follows the links in a path of the node as the node would. What does not exist is
// taken as it is.
func (n *node) resolve(path string) (string, error) {
	const maxLinks = 40 // as in the kernel
	rest, done := strings.Split(path, "/"), "/"
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		target, err := os.Readlink(n.real(next))
		if err != nil {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("resolving %s: %w", path, unix.ELOOP)
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// real is a path of the node that has no links, as this process sees it.
func (n *node) real(path string) string { return filepath.Join(n.root, path) }

// read reads a file of the node.
func (n *node) read(path string) ([]byte, error) {
	path, err := n.resolve(path)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(n.real(path))
}

func (n *node) exists(path string) bool {
	path, err := n.resolve(path)
	if err != nil {
		return false
	}
	_, err = os.Stat(n.real(path))
	return err == nil
}

// lookPath finds a program in a list of directories. The result is empty if there is none.
func (n *node) lookPath(program, dirs string) string {
	for dir := range strings.SplitSeq(dirs, ":") {
		file := filepath.Join("/", dir, program)
		if resolved, err := n.resolve(file); err == nil && isProgram(n.real(resolved)) {
			return file
		}
	}
	return ""
}

func isProgram(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// glob returns the files of the node that match a pattern, sorted.
func (n *node) glob(pattern string) ([]string, error) {
	dir, err := n.resolve(filepath.Dir(pattern))
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(n.real(dir), filepath.Base(pattern)))
	for i := range found {
		found[i] = filepath.Join(filepath.Dir(pattern), filepath.Base(found[i]))
	}
	return found, err
}

// runProgram runs a program in the namespaces of the node's first process.
func (n *node) runProgram(ctx context.Context, args ...string) (string, error) {
	program := args[0]
	if !strings.Contains(program, "/") {
		if program = n.lookPath(program, nodePath); program == "" {
			return "", fmt.Errorf("%s: %w", args[0], exec.ErrNotFound)
		}
	}
	var out, problems bytes.Buffer
	cmd := &exec.Cmd{
		Path: program, Args: args, Dir: "/", Stdout: &out, Stderr: &problems,
		Env: []string{"PATH=" + nodePath},
	}
	if err := n.start(cmd); err != nil {
		return "", fmt.Errorf("starting %s on the node: %w", program, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), errors.Join(context.Cause(ctx), err), bytes.TrimSpace(problems.Bytes()))
	}
	return out.String(), nil
}

func (n *node) start(cmd *exec.Cmd) error {
	if n.root == "/" {
		return cmd.Start()
	}
	started := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it cannot go back and ends with this goroutine.
		goruntime.LockOSThread()
		started <- func() error {
			if err := n.enter(); err != nil {
				return err
			}
			return cmd.Start()
		}()
	}()
	return <-started
}

// enter moves the calling thread into namespaces of the node. The node's /proc, which criu
// needs, shows a process only if it is in the node's process namespace.
func (n *node) enter() error {
	namespaces := filepath.Join(n.root, "proc/1/ns")
	if _, err := os.Stat(namespaces); errors.Is(err, fs.ErrNotExist) {
		return errNoNode
	}
	processes, err := os.Open(filepath.Join(namespaces, "pid"))
	if err != nil {
		return fmt.Errorf("finding the node's process namespace: %w", err)
	}
	defer processes.Close()
	mounts, err := os.Open(filepath.Join(namespaces, "mnt"))
	if err != nil {
		return fmt.Errorf("finding the node's mount namespace: %w", err)
	}
	defer mounts.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared working directory: %w", err)
	}
	// A container without hostPID cannot enter it. Most programs do not need it.
	if err := unix.Setns(int(processes.Fd()), unix.CLONE_NEWPID); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("entering the node's process namespace (the container must be privileged): %w", err)
	}
	if err := unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the node's mount namespace (the container must be privileged): %w", err)
	}
	return nil
}
