package wrapper

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

const (
	// defaultRuntime is the OCI runtime if the configuration does not name one.
	defaultRuntime = "runc"
	// defaultWait is how long a container waits for its ticket. The kubelet gives up a request
	// to the CRI runtime after two minutes by default.
	defaultWait = 90 * time.Second
)

// searchPath is where the runtime is searched for if it is not in PATH.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// A config is the configuration of the program on a node.
type config struct {
	runtime string        // path of the real OCI runtime
	dir     string        // of tickets
	wait    time.Duration // for a ticket
	warning string        // what of the configuration file is not used, and why
}

// configFile returns the path of the configuration file: the path under which the program
// was called, without following links, and ".json".
func configFile(argv0 string) (string, error) {
	path := argv0
	if filepath.Base(argv0) == argv0 {
		found, err := exec.LookPath(argv0)
		if err != nil {
			return "", fmt.Errorf("finding the configuration: %w", err)
		}
		path = found
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding the configuration: %w", err)
	}
	return path + ".json", nil
}

// loadConfig reads the configuration. Whatever is missing or broken in it is replaced by its
// default: containers must start. Only a node without any OCI runtime is an error.
func loadConfig(argv0 string) (config, error) {
	c := config{dir: ticket.DefaultDir, wait: defaultWait}
	file, err := readConfig(argv0)
	if err != nil {
		c.warning = err.Error()
	}
	if filepath.IsAbs(file.Dir) {
		c.dir = file.Dir
	}
	if wait, err := time.ParseDuration(file.Wait); err == nil && wait >= 0 {
		c.wait = wait
	}
	if file.Runtime != "" {
		if c.runtime, err = findRuntime(file.Runtime); err == nil {
			return c, nil
		}
		c.warning = fmt.Sprintf("the runtime of the configuration cannot be used, runc is used: %v", err)
	}
	c.runtime, err = findRuntime(defaultRuntime)
	return c, err
}

// A configText is the contents of the configuration file.
type configText struct {
	Runtime string `json:"runtime"`
	Dir     string `json:"dir"`
	Wait    string `json:"wait"`
}

func readConfig(argv0 string) (configText, error) {
	name, err := configFile(argv0)
	if err != nil {
		return configText{}, err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return configText{}, fmt.Errorf("reading the configuration: %w", err)
	}
	var file configText
	if err := json.Unmarshal(text, &file); err != nil {
		return configText{}, fmt.Errorf("reading the configuration %s: %w", name, err)
	}
	return file, nil
}

// findRuntime returns the path of a program that is not this one.
func findRuntime(name string) (string, error) {
	candidates := []string{name}
	if filepath.Base(name) == name {
		candidates = candidates[:0]
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), searchPath...) {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("finding the program itself: %w", err)
	}
	for _, candidate := range candidates {
		info, err := os.Stat(candidate)
		if err != nil || os.SameFile(info, self) || !filepath.IsAbs(candidate) {
			continue
		}
		if info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s is not an OCI runtime other than holdfast-runtime itself: install runc, "+
		"or name the path of a runtime in the configuration file beside holdfast-runtime", name)
}
