package register

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/holdfast-io/holdfast/internal/app"
)

// healthTimeout bounds one look at the registration socket.
const healthTimeout = time.Second

// HealthOptions configure the health endpoint: /healthz is 200 while the registration
// socket answers with the driver's name.
type HealthOptions struct {
	Endpoint string
	Port     int
	Profiles bool
}

// AddFlags declares the flags of the endpoint.
func (o *HealthOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Endpoint, "http-endpoint", "", "address of /healthz, such as :8080; empty for none")
	fs.IntVar(&o.Port, "health-port", 0, "port of /healthz on all addresses; 0 for none")
	fs.BoolVar(&o.Profiles, "enable-pprof", false, "serve Go profiles under /debug/pprof/ at the same address")
}

func (o *HealthOptions) validate() error {
	if o.Endpoint != "" && o.Port != 0 {
		return errors.New("--http-endpoint and --health-port are both addresses of /healthz: set only one of them")
	}
	if o.Port < 0 || o.Port > 65535 {
		return fmt.Errorf("--health-port %d is not a port", o.Port)
	}
	return nil
}

// Address returns the address to listen on, "" for none.
func (o *HealthOptions) Address() string {
	if o.Port > 0 {
		return net.JoinHostPort("", strconv.Itoa(o.Port))
	}
	return o.Endpoint
}

// serve serves the endpoint until ctx ends.
func (o *HealthOptions) serve(ctx context.Context, socket, driver string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := checkSocket(r.Context(), socket, driver); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("ok")) // An error means that the client is gone.
	})
	if o.Profiles {
		app.AddProfiles(mux)
	}
	return app.ServeHTTP(ctx, o.Address(), mux)
}

// checkSocket asks the registration socket for the driver, as the kubelet does: another
// program may have replaced the socket.
func checkSocket(ctx context.Context, socket, driver string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connecting to the registration socket: %w", err)
	}
	defer conn.Close()
	info, err := registration.NewRegistrationClient(conn).GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("asking the registration socket %s for the driver: %w", socket, err)
	}
	if info.Name != driver {
		return fmt.Errorf("the registration socket %s names driver %q, not %q", socket, info.Name, driver)
	}
	return nil
}
