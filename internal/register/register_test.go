package register

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// kubelet connects to the registration socket as the kubelet's watcher does.
func kubelet(t *testing.T, o Options) registration.RegistrationClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(o.Folder, o.Driver+"-reg.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return registration.NewRegistrationClient(conn)
}

func run(t *testing.T, o Options) (end chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	end = make(chan error, 1)
	go func() { end <- Run(ctx, o) }()
	return end, cancel
}

func options(t *testing.T) Options {
	t.Helper()
	// Paths of sockets are limited to 108 bytes.
	dir, err := os.MkdirTemp("", "reg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Options{Driver: "d.example.com", KubeletPath: "/var/lib/kubelet/plugins/d/csi.sock", Folder: dir}
}

func wait(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
		return nil
	}
}

func TestKubeletFindsTheDriver(t *testing.T) {
	o := options(t)
	// A process that was killed may have left this file.
	if err := os.WriteFile(filepath.Join(o.Folder, o.Driver+"-reg.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	end, stop := run(t, o)
	client := kubelet(t, o)
	info, err := client.GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Type != "CSIPlugin" || info.Name != o.Driver || info.Endpoint != o.KubeletPath || len(info.SupportedVersions) != 1 {
		t.Errorf("got %v", info)
	}
	if _, err := client.NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := wait(t, end); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Folder, o.Driver+"-reg.sock")); !os.IsNotExist(err) {
		t.Errorf("its socket is still there: %v", err)
	}
}

func TestRunEndsWhenTheKubeletRejectsTheDriver(t *testing.T) {
	o := options(t)
	end, stop := run(t, o)
	defer stop()
	if _, err := kubelet(t, o).NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{Error: "no such version"}); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, end); err == nil || !strings.Contains(err.Error(), "no such version") {
		t.Errorf("it ended with %v", err)
	}
}

func TestKubeletPathMustBeAbsolute(t *testing.T) {
	o := options(t)
	o.KubeletPath = "csi.sock"
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--kubelet-registration-path") {
		t.Errorf("got %v", err)
	}
}
