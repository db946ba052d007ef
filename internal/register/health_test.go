package register

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// freePort returns a port of the loopback interface that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is at once.
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// health asks until the answer has the code.
func health(t *testing.T, port, want int) string {
	t.Helper()
	said := "nothing"
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/healthz", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			said = err.Error()
			continue
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		said = fmt.Sprint(response.StatusCode, " ", string(text), err)
		if response.StatusCode == want {
			return said
		}
	}
	t.Fatalf("the answer is %s, want %d", said, want)
	return ""
}

func TestHealthFollowsTheRegistrationSocket(t *testing.T) {
	o := options(t)
	o.Health.Port = freePort(t)
	_, stop := run(t, o)
	defer stop()
	health(t, o.Health.Port, http.StatusOK)
	if err := os.Remove(filepath.Join(o.Folder, o.Driver+"-reg.sock")); err != nil {
		t.Fatal(err)
	}
	if said := health(t, o.Health.Port, http.StatusInternalServerError); !strings.Contains(said, "registration socket") {
		t.Errorf("the answer does not say what is missing: %s", said)
	}
}

func TestTwoHealthAddressesAreAMistake(t *testing.T) {
	o := options(t)
	o.Health = HealthOptions{Endpoint: ":1", Port: 1}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--health-port") {
		t.Errorf("got %v", err)
	}
}

func TestAnExecProbeSeesTheRegistration(t *testing.T) {
	o := options(t)
	o.KubeletPath = filepath.Join(o.Folder, "csi.sock")
	if err := os.WriteFile(o.registeredFile(), nil, 0o600); err != nil { // of an earlier process
		t.Fatal(err)
	}
	_, stop := run(t, o)
	defer stop()
	client := kubelet(t, o)
	if _, err := client.GetInfo(t.Context(), &registration.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := Probe(o); err == nil || !strings.Contains(err.Error(), "has not registered") {
		t.Errorf("before the registration: %v", err)
	}
	if _, err := client.NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	if err := Probe(o); err != nil {
		t.Errorf("after the registration: %v", err)
	}
}
