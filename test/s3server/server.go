// Package s3server runs versitygw, a real S3 server over a directory, for tests. It is
// built from go.tools.mod, so that the product does not depend on it.
package s3server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The credentials of the server's only account.
const (
	AccessKeyID     = "TESTACCESSKEYID"
	SecretAccessKey = "test/secret+access-key"
)

// startTimeout bounds how long a server takes to listen.
const startTimeout = time.Minute

// Options are the choices of a server. The zero value is a server over plain HTTP.
type Options struct {
	TLS        bool   // serve HTTPS, for 127.0.0.1, localhost and *.s3.test
	Size       string // of the filesystem with the data, such as "64m"; needs root; "" is no limit
	Versioning bool   // lets buckets have versions
	Domain     string // for requests that have the bucket in the host; "" is none
	ReadOnly   bool
}

// A Server is a process on a loopback address with a directory of its own.
type Server struct {
	Address string // host and port
	CA      []byte // PEM of the authority of its certificate; nil without TLS
	Dir     string // has a directory for each bucket

	options Options
	work    string
	log     *lockedBuffer
	stop    func()
}

// Start starts a server that ends with the test.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("the S3 server at %s has printed:\n%s", s.Address, s.log)
		}
	})
	return s
}

// New starts a server that ends with Close.
func New(options Options) (*Server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "s3server-")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: address, Dir: filepath.Join(work, "data"), options: options, work: work, log: &lockedBuffer{}}
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.Restart(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare creates what the server needs on disk.
func (s *Server) prepare() error {
	for _, dir := range []string{s.Dir, filepath.Join(s.work, "versions")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if s.options.Size != "" {
		if err := unix.Mount("s3server", s.Dir, "tmpfs", 0, "size="+s.options.Size); err != nil {
			return fmt.Errorf("mounting a tmpfs of %s, which needs root: %w", s.options.Size, err)
		}
	}
	if !s.options.TLS {
		return nil
	}
	var err error
	s.CA, err = writeCertificate(s.work)
	return err
}

// URL is the server's endpoint with its scheme.
func (s *Server) URL() string {
	if s.options.TLS {
		return "https://" + s.Address
	}
	return "http://" + s.Address
}

// Kill kills the process, as a crash would. The data stay.
func (s *Server) Kill() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Restart kills the process and starts it again at the same address.
func (s *Server) Restart() error {
	s.Kill()
	program, err := Program()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, s.arguments()...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKeyID, "ROOT_SECRET_KEY="+SecretAccessKey)
	cmd.Stdout, cmd.Stderr, cmd.Dir = s.log, s.log, s.work
	ended, err := run(cmd)
	if err != nil {
		return err
	}
	s.stop = func() { _ = cmd.Process.Kill(); <-ended }
	return s.wait(ended)
}

func (s *Server) arguments() []string {
	arguments := []string{"--port", s.Address, "--quiet", "--keep-alive"}
	if s.options.TLS {
		arguments = append(arguments, "--cert", filepath.Join(s.work, certificateFile), "--key", filepath.Join(s.work, keyFile))
	}
	if s.options.Domain != "" {
		arguments = append(arguments, "--virtual-domain", s.options.Domain)
	}
	if s.options.ReadOnly {
		arguments = append(arguments, "--readonly")
	}
	arguments = append(arguments, "posix")
	if s.options.Versioning {
		arguments = append(arguments, "--versioning-dir", filepath.Join(s.work, "versions"))
	}
	return append(arguments, s.Dir)
}

// run starts a process that does not survive this one, and returns a channel that is
// closed when it has ended.
func run(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // The signal is sent when the thread ends that has started the process.
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // It returns that the process was killed.
		}
	}()
	return done, <-started
}

// wait waits until the server takes connections.
func (s *Server) wait(ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("the S3 server has ended: %s", s.log)
		case <-ctx.Done():
			return fmt.Errorf("the S3 server does not listen at %s: %w: %s", s.Address, err, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close ends the server and removes its data.
func (s *Server) Close() {
	s.Kill()
	if s.options.Size != "" {
		_ = unix.Unmount(s.Dir, unix.MNT_DETACH) // It fails if it was never mounted.
	}
	os.RemoveAll(s.work)
}

// Parts returns the files that incomplete uploads have in a bucket.
func (s *Server) Parts(bucket string) ([]string, error) {
	var parts []string
	err := filepath.WalkDir(filepath.Join(s.Dir, bucket, ".sgwtmp", "multipart"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !e.IsDir() {
			parts = append(parts, path)
		}
		return err
	})
	return parts, err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Program returns the path of versitygw, and builds it unless it is newer than what it is
// built from. Packages that are tested at the same time wait for one build.
func Program() (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(root, "bin", ".versitygw.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("waiting for the build of versitygw: %w", err)
	}
	cmd := exec.Command("make", "-s", "-C", root, "bin/versitygw")
	cmd.Env = withoutMake(os.Environ())
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building versitygw with make bin/versitygw: %w: %s", err, bytes.TrimSpace(out))
	}
	return filepath.Join(root, "bin", "versitygw"), nil
}

// repository returns the folder with go.tools.mod: tests run in the folder of their package.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.tools.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no folder above the working directory has go.tools.mod")
		}
	}
}

// withoutMake removes what a make that runs the tests says to the makes below it.
func withoutMake(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "MAKE") && !strings.HasPrefix(variable, "MFLAGS") {
			kept = append(kept, variable)
		}
	}
	return kept
}
