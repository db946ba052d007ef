package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/holdfast-io/holdfast/devcluster/internal/pki"
)

const (
	serviceRange = "10.96.0.0/16"
	// serviceAddress is the first of the range: the API server, for pods.
	serviceAddress = "10.96.0.1"
)

// startControlPlane writes what the components need and starts them. The two
// controllers come when the API server is ready: before, its default roles are
// not there yet, and a controller that is refused gives up.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := errors.Join(c.startEtcd(), c.startAPIServer()); err != nil {
		return err
	}
	if err := c.await(ctx, c.apiServerReady); err != nil {
		return fmt.Errorf("waiting for the API server: %w", err)
	}
	if c.options.APIOnly {
		return nil
	}
	if err := errors.Join(c.startControllerManager(), c.startScheduler()); err != nil {
		return err
	}
	if err := c.await(ctx, c.controllersReady); err != nil {
		return fmt.Errorf("waiting for the controllers: %w", err)
	}
	return nil
}

// prepare makes the certificates and kubeconfigs.
func (c *Cluster) prepare() (err error) {
	if c.authority, err = pki.New(c.dir.at("pki")); err != nil {
		return err
	}
	if c.serving, err = c.authority.Server("kube-apiserver", "kube-apiserver", c.address, "127.0.0.1", serviceAddress,
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"); err != nil {
		return err
	}
	if c.toKubelet, err = c.authority.Client("kube-apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return err
	}
	if c.etcd, err = c.authority.Server("etcd", "etcd", "127.0.0.1"); err != nil {
		return err
	}
	if c.toEtcd, err = c.authority.Client("kube-apiserver-etcd-client", "kube-apiserver-etcd-client"); err != nil {
		return err
	}
	if c.accounts, err = c.authority.Server("service-accounts", "service-accounts"); err != nil {
		return err
	}
	if c.admin, err = c.kubeconfig(c.dir.Kubeconfig(), "admin", "system:masters"); err != nil {
		return err
	}
	for _, user := range []string{"kube-controller-manager", "kube-scheduler"} {
		if _, err := c.kubeconfig(c.dir.at(user+".kubeconfig"), "system:"+user); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) kubeconfig(file, user string, groups ...string) (pki.Pair, error) {
	pair, err := c.authority.Client("client-"+user, user, groups...)
	if err != nil {
		return pki.Pair{}, err
	}
	return pair, c.authority.Kubeconfig(file, c.server(), pair)
}

func (c *Cluster) server() string {
	return "https://" + net.JoinHostPort(c.address, c.slot.port(portAPI))
}

// startEtcd starts etcd, which answers only to who has a certificate: otherwise
// every user of this machine could change anything past RBAC.
func (c *Cluster) startEtcd() error {
	client, peer := "https://"+c.slot.loopback(portEtcd), "https://"+c.slot.loopback(portEtcdPeer)
	args := []string{
		"--data-dir=" + c.dir.at("etcd"),
		"--unsafe-no-fsync", // The data lives no longer than the process.
		"--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
	for _, side := range []string{"", "peer-"} {
		args = append(args, "--"+side+"client-cert-auth", "--"+side+"trusted-ca-file="+c.authority.CertFile(),
			"--"+side+"cert-file="+c.etcd.CertFile, "--"+side+"key-file="+c.etcd.KeyFile)
	}
	return c.start("etcd", args...)
}

// auditPolicy has the API server log which requests service accounts make: from them one
// sees which permissions a program needs. Those of Kubernetes itself are left out.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
`

func (c *Cluster) startAPIServer() error {
	policy := c.dir.at("audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("configuring the audit log: %w", err)
	}
	args := []string{
		"--audit-policy-file=" + policy, "--audit-log-path=" + c.dir.at("logs", "audit.log"),
		"--etcd-servers=https://" + c.slot.loopback(portEtcd), "--etcd-cafile=" + c.authority.CertFile(),
		"--etcd-certfile=" + c.toEtcd.CertFile, "--etcd-keyfile=" + c.toEtcd.KeyFile,
		"--bind-address=" + c.address,
		"--secure-port=" + c.slot.port(portAPI),
		"--cert-dir=" + c.dir.at("pki"),
		"--tls-cert-file=" + c.serving.CertFile, "--tls-private-key-file=" + c.serving.KeyFile,
		"--client-ca-file=" + c.authority.CertFile(),
		"--kubelet-certificate-authority=" + c.authority.CertFile(),
		"--kubelet-client-certificate=" + c.toKubelet.CertFile, "--kubelet-client-key=" + c.toKubelet.KeyFile,
		"--kubelet-preferred-address-types=InternalIP", // Node names do not resolve here.
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.accounts.CertFile, "--service-account-signing-key-file=" + c.accounts.KeyFile,
		"--service-cluster-ip-range=" + serviceRange,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	}
	if c.network == nil {
		// Without nodes nobody reaches the API by its service, and loopback may not be an endpoint.
		args = append(args, "--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1")
	}
	return c.start("kube-apiserver", append(args, c.options.APIServerArgs...)...)
}

func (c *Cluster) startControllerManager() error {
	return c.start("kube-controller-manager", append(c.common("kube-controller-manager", portControllerManager),
		"--kubeconfig="+c.dir.at("kube-controller-manager.kubeconfig"),
		"--leader-elect=false",
		"--kube-api-qps=500", "--kube-api-burst=1000", // Its defaults bind only a few claims a second.
		"--use-service-account-credentials",
		"--service-account-private-key-file="+c.accounts.KeyFile,
		"--root-ca-file="+c.authority.CertFile(),
		"--flex-volume-plugin-dir="+c.dir.at("flexvolume"))...)
}

func (c *Cluster) startScheduler() error {
	config := c.dir.at("kube-scheduler.yaml")
	text := fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %q, qps: 500, burst: 1000}
`, c.dir.at("kube-scheduler.kubeconfig"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configuring the scheduler: %w", err)
	}
	return c.start("kube-scheduler", append(c.common("kube-scheduler", portScheduler), "--config="+config)...)
}

// common are the flags that the API server's clients share.
func (c *Cluster) common(user string, port int) []string {
	kubeconfig := c.dir.at(user + ".kubeconfig")
	return []string{
		"--bind-address=127.0.0.1", "--secure-port=" + c.slot.port(port), "--cert-dir=" + c.dir.at("pki", user),
		"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
	}
}
