// Package pki makes the certificates of one cluster: an authority that lives
// as long as the cluster, and what it signs.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is longer than any development cluster runs.
const lifetime = 365 * 24 * time.Hour

// An Authority signs certificates. Its files are ca.crt and, for service
// account tokens, sa.key and sa.pub in Dir.
type Authority struct {
	Dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// A Pair is a certificate and its key: PEM text and the files that hold it.
type Pair struct {
	Cert, Key         []byte
	CertFile, KeyFile string
}

// New makes an authority whose files lie in dir.
func New(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the certificate folder: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "devcluster"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the authority back: %w", err)
	}
	a := &Authority{Dir: dir, cert: cert, key: key, pem: encode("CERTIFICATE", der)}
	if err := os.WriteFile(a.CertFile(), a.pem, 0o600); err != nil {
		return nil, fmt.Errorf("writing the authority: %w", err)
	}
	return a, nil
}

// CertFile is the file with the authority's certificate.
func (a *Authority) CertFile() string { return filepath.Join(a.Dir, "ca.crt") }

// Cert is the authority's certificate as PEM text.
func (a *Authority) Cert() []byte { return a.pem }

// Client signs a certificate for a user of the API. For what user and groups
// mean to Kubernetes see "X509 client certificates" in its authentication docs.
func (a *Authority) Client(file, user string, groups ...string) (Pair, error) {
	return a.sign(file, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Server signs a certificate for a server that answers at the given hosts,
// each a DNS name or an IP address.
func (a *Authority) Server(file, name string, hosts ...string) (Pair, error) {
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return a.sign(file, c)
}

func (a *Authority) sign(file string, template *x509.Certificate) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("making the key of %s: %w", file, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, fmt.Errorf("choosing a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = a.cert.NotBefore, a.cert.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("signing %s: %w", file, err)
	}
	return a.write(file, der, key)
}

func (a *Authority) write(file string, der []byte, key *ecdsa.PrivateKey) (Pair, error) {
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encoding the key of %s: %w", file, err)
	}
	p := Pair{
		Cert:     encode("CERTIFICATE", der),
		Key:      encode("EC PRIVATE KEY", secret),
		CertFile: filepath.Join(a.Dir, file+".crt"),
		KeyFile:  filepath.Join(a.Dir, file+".key"),
	}
	if err := os.WriteFile(p.CertFile, p.Cert, 0o600); err != nil {
		return Pair{}, fmt.Errorf("writing the certificate of %s: %w", file, err)
	}
	if err := os.WriteFile(p.KeyFile, p.Key, 0o600); err != nil {
		return Pair{}, fmt.Errorf("writing the key of %s: %w", file, err)
	}
	return p, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
