package node

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartPause keeps a program that cannot start from taking a whole core.
const restartPause = time.Second

// A supervisor starts programs in a process that is the first of its
// namespace, where every orphan must be waited for as well. That rules out
// os/exec: the wait for any child would take its exit status away.
type supervisor struct {
	mu    sync.Mutex
	exits map[int]chan syscall.WaitStatus
}

func newSupervisor() *supervisor {
	s := &supervisor{exits: map[int]chan syscall.WaitStatus{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	go func() {
		for range signals {
			s.reap()
		}
	}()
	return s
}

// reap collects every child that has ended, ours and orphans.
func (s *supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if exit, ok := s.exits[pid]; ok {
			delete(s.exits, pid)
			exit <- status
		}
	}
}

// start runs a program of the node's path with its output in /var/log.
func (s *supervisor) start(name string, args ...string) (<-chan syscall.WaitStatus, error) {
	log, err := openLog("/var/log/" + name + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	defer null.Close()
	binary, err := find(args[0])
	if err != nil {
		return nil, err
	}
	s.mu.Lock() // The exit must not be seen before it is expected.
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(binary, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + path, "HOME=/root"},
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	exit := make(chan syscall.WaitStatus, 1)
	s.exits[pid] = exit
	return exit, nil
}

// run starts a program and waits for it.
func (s *supervisor) run(args ...string) error {
	exit, err := s.start(args[0], args...)
	if err != nil {
		return err
	}
	if status := <-exit; status != 0 {
		return fmt.Errorf("%s ended with status %d", args[0], status.ExitStatus())
	}
	return nil
}

// keep runs a program for as long as the node lives: one that ends, or is
// killed by a test, comes back as it would under a service manager.
func (s *supervisor) keep(name string, args ...string) {
	go func() {
		for ; ; time.Sleep(restartPause) {
			exit, err := s.start(name, args...)
			if err != nil {
				fmt.Fprintf(os.Stderr, "devcluster: %v\n", err)
				continue
			}
			<-exit
		}
	}()
}

func find(program string) (string, error) {
	for _, dir := range []string{"/usr/local/bin", "/usr/local/sbin", "/usr/sbin", "/usr/bin"} {
		file := dir + "/" + program
		if unix.Access(file, unix.X_OK) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("the node's tree has no program %s", program)
}
