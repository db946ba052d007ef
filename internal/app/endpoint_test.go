package app

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/wait"
)

func TestAddressesOfTheEndpoint(t *testing.T) {
	required := func(values ...string) (all []address) {
		for _, v := range values {
			all = append(all, address{value: v})
		}
		return all
	}
	optional := address{value: ":8080", optional: true}
	tests := map[string]struct {
		args []string
		want []address
	}{
		"defaults are done without if another program has them":         {nil, []address{optional, {value: ":9808", optional: true}}},
		"--http-endpoint is the only address":                           {[]string{"--http-endpoint=:1"}, required(":1")},
		"the older name of --http-endpoint, too":                        {[]string{"--metrics-address=:1"}, required(":1")},
		"an address that was asked for is needed":                       {[]string{"--health-addr=:9808"}, []address{{value: ":9808"}, optional}},
		"addresses beside --http-endpoint are opened if asked for":      {[]string{"--http-endpoint=:1", "--health-addr=:2"}, required(":1", ":2")},
		"an empty address is none":                                      {[]string{"--metrics-addr=", "--health-addr="}, nil},
		"one address for both":                                          {[]string{"--metrics-addr=:1", "--health-addr=:1"}, required(":1")},
		"a default that is also asked for under another name is needed": {[]string{"--health-addr=:8080"}, required(":8080")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var o EndpointOptions
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			fs.SetOutput(t.Output())
			o.AddSplitFlags(fs)
			o.AddFlags(fs)
			if err := fs.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			if got := o.addresses(); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// split returns an endpoint with one address that is a default.
func split(t *testing.T, value string, args ...string) (*endpoint, error) {
	t.Helper()
	o := EndpointOptions{MetricsPath: "/metrics"}
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.String("metrics-addr", value, "")
	o.split = []*pflag.Flag{fs.Lookup("metrics-addr")}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return listen(t.Context(), o, prometheus.NewRegistry())
}

// An attacher of upstream's manifests has no flags for its addresses, and shares its pod
// with a livenessprobe whose default port is the same. Whichever starts first, that one
// gets the port, and the attacher goes on.
func TestADefaultAddressIsLeftToOthers(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	free, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is at once.
	if err != nil {
		t.Fatal(err)
	}
	value := free.Addr().String()
	if _, err := split(t, value, "--metrics-addr="+value); err == nil {
		t.Error("an address that somebody has asked for was done without")
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := split(t, value)
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", value) //nolint:noctx // It is at once.
	if err != nil {
		t.Fatalf("a program that starts after this one does not get the address: %v", err)
	}
	if e.delay <= 0 {
		t.Error("programs that start with this one have no time to open the address first")
	}
	e.delay = 0
	if err := e.serve(ctx); err != nil { // It returns, because it serves nothing.
		t.Errorf("the program ends because another one has its default address: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.serve(ctx) }()
	err = wait.PollUntilContextTimeout(ctx, time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		conn, err := net.Dial("tcp", value) //nolint:noctx // It is at once.
		if err == nil {
			conn.Close()
		}
		return err == nil, nil
	})
	if err != nil {
		t.Errorf("a default address that nobody has is not served: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
