package kubelet

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// tlsConfig returns how the kubelet's certificate is verified. It is self-signed unless the
// kubelet has serverTLSBootstrap, so the engine can pin the one that it sees first.
func tlsConfig(options Options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if options.CAFile != "" {
		if options.Insecure {
			return nil, errors.New("the kubelet's certificate is either verified or not: " +
				"CAFile and Insecure exclude each other")
		}
		text, err := os.ReadFile(options.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificates for the kubelet: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", options.CAFile)
		}
		return config, nil
	}
	config.InsecureSkipVerify = true
	if !options.Insecure {
		p := &pin{path: filepath.Join(options.StateDir, "kubelet-certificate")}
		config.VerifyConnection = p.verify
	}
	return config, nil
}

// A pin accepts the certificate whose fingerprint is in a file, or the first one if there is
// no file.
type pin struct {
	path string
	mu   sync.Mutex
}

func (p *pin) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the kubelet has sent no certificate")
	}
	sum := sha256.Sum256(state.PeerCertificates[0].Raw)
	fingerprint := hex.EncodeToString(sum[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	recorded, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFile(p.path, []byte(fingerprint+"\n"))
	}
	if err != nil {
		return fmt.Errorf("reading the recorded certificate of the kubelet: %w", err)
	}
	if strings.TrimSpace(string(recorded)) == fingerprint {
		return nil
	}
	return &certificateError{fmt.Sprintf("the kubelet's certificate has the SHA-256 fingerprint %s, the recorded one "+
		"has %s: if it was renewed, remove %s; better, configure the CA that signs it",
		fingerprint, strings.TrimSpace(string(recorded)), p.path)}
}

// A certificateError says that the certificate is not the recorded one.
type certificateError struct{ text string }

func (e *certificateError) Error() string { return e.text }
