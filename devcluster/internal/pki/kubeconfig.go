package pki

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig writes a kubeconfig that reaches server, an https URL, as the
// owner of pair. Everything it needs is inside the file.
func (a *Authority) Kubeconfig(file, server string, pair Pair) error {
	c := api.NewConfig()
	c.Clusters["devcluster"] = &api.Cluster{Server: server, CertificateAuthorityData: a.pem}
	c.AuthInfos["devcluster"] = &api.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	c.Contexts["devcluster"] = &api.Context{Cluster: "devcluster", AuthInfo: "devcluster"}
	c.CurrentContext = "devcluster"
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		return fmt.Errorf("writing kubeconfig %s: %w", file, err)
	}
	return nil
}
