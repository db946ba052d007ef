package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

const (
	// patience is how long any one thing may take on a slow machine.
	patience = 3 * time.Minute
	// pulse is how often readiness is looked at.
	pulse = 50 * time.Millisecond
)

// await asks until the answer is nil, the cluster fails or patience ends. The
// last answer is part of the error.
func (c *Cluster) await(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no success within %s", patience))
	defer cancel()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case failure := <-c.failed:
			return failure
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) apiServerReady(ctx context.Context) error {
	return c.get(ctx, c.server()+"/readyz", nil)
}

// controllersReady looks at what a first pod needs: both controllers and the
// account that pods of the default namespace run under.
func (c *Cluster) controllersReady(ctx context.Context) error {
	for _, url := range []string{
		"https://" + c.slot.loopback(portControllerManager) + "/healthz",
		"https://" + c.slot.loopback(portScheduler) + "/readyz",
		c.server() + "/api/v1/namespaces/default/serviceaccounts/default",
	} {
		if err := c.get(ctx, url, nil); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady looks at a node's Ready condition and at its proxy, without which
// pods start but reach no service.
func (c *Cluster) nodeReady(n *node.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		var seen struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
		if err := c.get(ctx, c.server()+"/api/v1/nodes/"+n.Name, &seen); err != nil {
			return err
		}
		for _, condition := range seen.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return c.get(ctx, n.ProxyHealth(), nil)
			}
			if condition.Type == "Ready" {
				return fmt.Errorf("not ready: %s", condition.Message)
			}
		}
		return errors.New("the kubelet has not reported yet")
	}
}

// get asks a server of the cluster as its administrator and, unless into is
// nil, decodes the answer.
func (c *Cluster) get(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err // It says the method and the URL.
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func (c *Cluster) client() (*http.Client, error) {
	if c.http != nil {
		return c.http, nil
	}
	pair, err := tls.X509KeyPair(c.admin.Cert, c.admin.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.authority.Cert())
	c.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      roots,
		// The controller manager and the scheduler sign their own certificates,
		// on loopback, and are only asked for their health.
		InsecureSkipVerify: true, //nolint:gosec // see above
	}}}
	return c.http, nil
}
