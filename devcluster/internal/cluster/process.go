package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
)

// start runs a component as a child of this process, with its output in the
// cluster's logs folder. Its end, unless the cluster is stopping, is the end
// of the cluster.
func (c *Cluster) start(name string, args ...string) error {
	logFile := c.dir.at("logs", name+".log")
	log, err := os.Create(logFile)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := lifeline.Self(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = string(c.dir)
	c.line.Attach(cmd, c.lock)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	ended := make(chan struct{})
	c.children = append(c.children, child{cmd.Process, ended})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // Its error lacks what the state says of an end with code 0.
		c.fail(fmt.Errorf("%s ended: %s; %s says last: %s", name, cmd.ProcessState, filepath.Base(logFile), tail(logFile)))
	}()
	return nil
}

// A child is a component that was started.
type child struct {
	process *os.Process
	ended   <-chan struct{}
}

// stop ends the component, also if it does not listen: nothing that it holds
// is worth waiting for.
func (c child) stop() {
	_ = c.process.Kill() // The only reason to fail is that it has ended.
	<-c.ended
}

// tail is what a program said last: most say there why they gave up.
func tail(file string) string {
	const lines = 3
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
