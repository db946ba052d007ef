package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := New(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Cert, p.Key) // It checks that the two belong together.
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func roots(a *Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.Cert())
	return pool
}

func TestServer(t *testing.T) {
	a := newAuthority(t)
	pair, err := a.Server("api", "kube-apiserver", "198.18.0.1", "kubernetes.default", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, pair)
	tests := map[string]struct {
		roots *x509.CertPool
		host  string
		usage x509.ExtKeyUsage
		good  bool
	}{
		"is trusted under its address":         {roots(a), "198.18.0.1", x509.ExtKeyUsageServerAuth, true},
		"is trusted under its name":            {roots(a), "kubernetes.default", x509.ExtKeyUsageServerAuth, true},
		"is not trusted under another address": {roots(a), "198.18.0.2", x509.ExtKeyUsageServerAuth, false},
		"is not trusted under another name":    {roots(a), "example.com", x509.ExtKeyUsageServerAuth, false},
		"is not a client":                      {roots(a), "localhost", x509.ExtKeyUsageClientAuth, false},
		"is not trusted in another cluster":    {roots(newAuthority(t)), "localhost", x509.ExtKeyUsageServerAuth, false},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			_, err := cert.Verify(x509.VerifyOptions{Roots: tt.roots, DNSName: tt.host, KeyUsages: []x509.ExtKeyUsage{tt.usage}})
			if (err == nil) != tt.good {
				t.Errorf("verifying: %v, want good: %v", err, tt.good)
			}
		})
	}
	if len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(net.ParseIP("198.18.0.1")) {
		t.Errorf("addresses: %v", cert.IPAddresses)
	}
}

func TestClient(t *testing.T) {
	a := newAuthority(t)
	pair, err := a.Client("node", "system:node:n1", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, pair)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots(a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("as a client it is not trusted: %v", err)
	}
	if cert.Subject.CommonName != "system:node:n1" {
		t.Errorf("the user is %q", cert.Subject.CommonName)
	}
	if diff := cmp.Diff([]string{"system:nodes"}, cert.Subject.Organization); diff != "" {
		t.Errorf("groups: %s", diff)
	}
	if cert.IsCA {
		t.Error("a client could sign certificates")
	}
}

func TestSecretsAreForTheirOwnerOnly(t *testing.T) {
	a := newAuthority(t)
	pair, err := a.Client("admin", "admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(a.Dir, "kubeconfig")
	if err := a.Kubeconfig(kubeconfig, "https://127.0.0.1:1", pair); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{a.Dir, pair.KeyFile, kubeconfig} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", file, info.Mode())
		}
	}
}

func TestKubeconfig(t *testing.T) {
	a := newAuthority(t)
	pair, err := a.Client("admin", "admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := a.Kubeconfig(file, "https://198.18.0.1:21000", pair); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{config.Host, string(config.CAData), string(config.CertData), string(config.KeyData)}
	if diff := cmp.Diff([]string{"https://198.18.0.1:21000", string(a.Cert()), string(pair.Cert), string(pair.Key)}, got); diff != "" {
		t.Error(diff)
	}
}
