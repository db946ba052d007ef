package checkpoint

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// floorPort is where CRIU listens in a lazy dump that [node.floor] makes. The engine's own
// dumps have a network namespace to themselves.
const floorPort = "27001"

// floor has CRIU dump everything but the memory: a lazy dump whose client needs no page. No
// way to checkpoint with this CRIU freezes a container for less.
func (n *node) floor(t testing.TB, c runtime.Container) {
	t.Helper()
	const dir = "/run/floor"
	n.Run(t, n.name, "mkdir", "-p", dir+"/images")
	defer n.Run(t, n.name, "rm", "-rf", dir)
	config := filepath.Join(dir, "criu.conf")
	if err := os.WriteFile(n.path(config), []byte("network-lock skip\naddress 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ready, status, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	// With the priority that the engine has while a container is frozen, in a session of its
	// own as there.
	const foreground = `if [ -e /proc/self/autogroup ]; then echo -15 > /proc/self/autogroup; fi; exec nice -n -15 "$@"`
	cmd := exec.Command("setsid", "--wait", "nsenter", "--target", strconv.Itoa(n.pid), "--mount", "--pid", "sh", "-c", foreground, "sh",
		"runc", "--root", runtimeRoot, "checkpoint", "--leave-running", "--file-locks", "--lazy-pages",
		"--page-server", "127.0.0.1:"+floorPort, "--status-fd", "3", "--image-path", dir+"/images", "--work-path", dir, c.ID)
	cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+config)
	cmd.ExtraFiles = []*os.File{status}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	status.Close()
	_, err = io.ReadFull(ready, make([]byte, 1))
	if err == nil {
		err = closeLazily()
	}
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatalf("CRIU's lazy dump: %v, %v: %s", err, waitErr, said.String())
	}
}

// closeLazily sends CRIU PS_IOV_CLOSE of its page-xfer.c and waits for its answer.
func closeLazily() error {
	const size, command = 32, 0x1023
	connection, err := net.Dial("tcp", "127.0.0.1:"+floorPort)
	if err != nil {
		return err
	}
	defer connection.Close()
	request := make([]byte, size)
	binary.LittleEndian.PutUint32(request, command)
	if _, err := connection.Write(request); err != nil {
		return err
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadFull(connection, make([]byte, 4))
	return err
}

// call has the kubelet make an archive, and returns how long that took and its size. The
// archive is removed.
func (n *kubeletNode) callKubelet(t testing.TB, c runtime.Container) (time.Duration, int64) {
	t.Helper()
	token, err := os.ReadFile(n.call.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		fmt.Sprintf("https://%s/checkpoint/%s/%s/%s", n.call.Address, c.Namespace, c.Pod, c.Name), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	start := time.Now()
	response, err := client.Do(request)
	whole := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the kubelet answers %s", response.Status)
	}
	var size int64
	for _, name := range n.archives(t) {
		if slices.Contains(n.foreign, name) {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	return whole, size
}
