package csi_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// secret looks different raw, in a URL and in base64.
const secret = "p@ss/word+&=?"

func secretForms() []string {
	return []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))}
}

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) logger(verbosity int) logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.text.WriteString(prefix + " " + args + "\n")
	}, funcr.Options{Verbosity: verbosity})
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func secretCalls() map[csi.Method]func(context.Context, *csi.Driver) error {
	secrets := map[string]string{"key": secret, "with-newline": secret + "\n", "short": "a"}
	return map[csi.Method]func(context.Context, *csi.Driver) error{
		csi.CreateVolume: func(ctx context.Context, d *csi.Driver) error {
			req := volumeRequest("a", mib)
			req.Secrets = secrets
			_, err := d.CreateVolume(ctx, req)
			return err
		},
		csi.DeleteVolume: func(ctx context.Context, d *csi.Driver) error {
			return d.WithPrecondition(csi.Unconditional).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: "volume-1", Secrets: secrets})
		},
		csi.ControllerPublishVolume: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.ControllerPublishVolume(ctx, &csipb.ControllerPublishVolumeRequest{VolumeId: "volume-1", Secrets: secrets})
			return err
		},
		csi.ControllerUnpublishVolume: func(ctx context.Context, d *csi.Driver) error {
			return d.WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(ctx, &csipb.ControllerUnpublishVolumeRequest{VolumeId: "volume-1", Secrets: secrets})
		},
		csi.ControllerExpandVolume: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.ControllerExpandVolume(ctx, &csipb.ControllerExpandVolumeRequest{VolumeId: "volume-1", Secrets: secrets})
			return err
		},
		csi.ControllerModifyVolume: func(ctx context.Context, d *csi.Driver) error {
			return d.ControllerModifyVolume(ctx, &csipb.ControllerModifyVolumeRequest{VolumeId: "volume-1", Secrets: secrets})
		},
		csi.CreateSnapshot: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.CreateSnapshot(ctx, &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: "volume-1", Secrets: secrets})
			return err
		},
		csi.DeleteSnapshot: func(ctx context.Context, d *csi.Driver) error {
			return d.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: "snapshot-1", Secrets: secrets})
		},
		csi.CreateVolumeGroupSnapshot: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.CreateVolumeGroupSnapshot(ctx, &csipb.CreateVolumeGroupSnapshotRequest{Name: "s", SourceVolumeIds: []string{"volume-1"}, Secrets: secrets})
			return err
		},
		csi.DeleteVolumeGroupSnapshot: func(ctx context.Context, d *csi.Driver) error {
			return d.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: "group-1", Secrets: secrets})
		},
		csi.GetVolumeGroupSnapshot: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.GetVolumeGroupSnapshot(ctx, &csipb.GetVolumeGroupSnapshotRequest{GroupSnapshotId: "group-1", Secrets: secrets})
			return err
		},
		csi.GetSnapshot: func(ctx context.Context, d *csi.Driver) error {
			_, err := d.GetSnapshot(ctx, &csipb.GetSnapshotRequest{SnapshotId: "snapshot-1", Secrets: secrets})
			return err
		},
		csi.ListSnapshots: func(ctx context.Context, d *csi.Driver) error {
			for _, err := range d.ListSnapshots(ctx, &csipb.ListSnapshotsRequest{Secrets: secrets}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// At every verbosity, whether the driver succeeds or repeats the secrets in its
// message.
func TestSecretsAreInNeitherLogsNorErrors(t *testing.T) {
	leak := status.Errorf(codes.Internal, "running: array --pass %s && curl https://u:%s@array/ -H %q: as asked", secretForms()[0], secretForms()[1], secretForms()[2])
	for method, call := range secretCalls() {
		t.Run(string(method), func(t *testing.T) {
			fake := csitest.New(csitest.Options{})
			driver := connectReady(t, fake)
			for verbosity := range 11 {
				for _, resp := range []error{nil, leak} {
					fake.SetHooks(csitest.Hooks{Before: func(context.Context, csi.Method, any) error { return resp }})
					book := &logBuffer{}
					err := call(klog.NewContext(t.Context(), book.logger(verbosity)), driver)
					wantNoSecret(t, book.String()+fmt.Sprintf("%v %+v %q", err, err, err))
					if logged := strings.Contains(book.String(), "/"+string(method)); logged != (verbosity >= 5) {
						t.Errorf("at verbosity %d the log is %q", verbosity, book)
					}
					if resp != nil {
						wantMessage(t, err, ": as asked")
					}
				}
			}
		})
	}
}

// wantMessage checks that the rest of the driver's message is still there.
func wantMessage(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("%q is not in %v", part, err)
	}
}

func wantNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, form := range secretForms() {
		if strings.Contains(text, form) {
			t.Errorf("%q is in %s", form, text)
		}
	}
}

// The specification forbids details, and they may contain anything.
func TestDetailsOfErrorsAreDropped(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	fake.SetHooks(csitest.Hooks{Before: func(context.Context, csi.Method, any) error {
		withDetails, err := status.New(codes.Internal, "no").WithDetails(&csipb.CreateVolumeRequest{Name: secret})
		if err != nil {
			return err
		}
		return withDetails.Err()
	}})
	_, err := driver.CreateVolume(t.Context(), volumeRequest("a", mib))
	if got, _ := status.FromError(err); got.Code() != codes.Internal || len(got.Details()) != 0 {
		t.Errorf("got %v with details %v", err, got.Details())
	}
}
