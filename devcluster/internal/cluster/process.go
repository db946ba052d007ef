package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{name}, args...) // The name it is called under is the role.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = string(c.dir)
	c.line.Attach(cmd, c.lock)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	c.children.Add(1)
	go func() {
		defer c.children.Done()
		err := cmd.Wait()
		c.fail(fmt.Errorf("%s ended: %v; its log %s says: %s", name, err, logFile, tail(logFile)))
	}()
	return nil
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
