// Package cluster runs a real etcd and kube-apiserver on this machine, for tests and the demonstration, and
// kube-controller-manager if it is there. The cluster has no nodes and no Pods, so nothing enforces the NetworkPolicies
// that it stores.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Cluster is a running control plane.
type Cluster struct {
	// Dir holds the cluster's files: logs, the audit log, kubeconfigs.
	Dir string
	// Programs is the folder of etcd, kube-apiserver and kubectl. It may have kube-controller-manager. Without it nothing
	// deletes the content of deleted namespaces and the dependents of deleted owners.
	Programs string
	// Admin is a client with all rights and without a rate limit. Kubeconfig is the file with its kubeconfig.
	Admin      *kubernetes.Clientset
	Kubeconfig string

	environment *envtest.Environment
	config      *rest.Config
	controllers *exec.Cmd
}

// auditPolicy records every request that may change something, without its body.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: Metadata}
`

// Start runs a control plane until Stop. programs is the folder with its programs, dir the folder for its files. Only
// this machine reaches it.
func Start(ctx context.Context, programs, dir string) (*Cluster, error) {
	return StartAt(ctx, "", programs, dir)
}

// StartAt is Start with an API server that listens on an address of this machine, so that other machines reach it.
func StartAt(ctx context.Context, address, programs, dir string) (*Cluster, error) {
	c := &Cluster{Dir: dir, Programs: programs, Kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	if err := os.WriteFile(filepath.Join(dir, "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	// Without a logger, controller-runtime prints a stack after 30 seconds.
	log.SetLogger(log.Log.WithSink(log.NullLogSink{}))
	existing := false
	c.environment = &envtest.Environment{
		UseExistingCluster:       &existing,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	plane := &c.environment.ControlPlane
	plane.Etcd = &envtest.Etcd{Path: filepath.Join(programs, "etcd")}
	plane.Etcd.Configure().Append("unsafe-no-fsync", "true")
	plane.KubectlPath = filepath.Join(programs, "kubectl")
	apiserver := plane.GetAPIServer()
	apiserver.Path = filepath.Join(programs, "kube-apiserver")
	if address != "" {
		port, err := freePort(address)
		if err != nil {
			return nil, err
		}
		apiserver.SecureServing.ListenAddr = envtest.ListenAddr{Address: address, Port: port}
	}
	apiserver.Configure().
		Append("audit-policy-file", filepath.Join(dir, "audit-policy.yaml")).
		Append("audit-log-path", c.auditLog()).
		Append("audit-log-maxsize", "10000") // in MB; after 100, the default, a new file would invalidate each Mark
	var err error
	if c.config, err = c.environment.Start(); err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	if err := c.connect(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func freePort(address string) (string, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

func (c *Cluster) connect(ctx context.Context) error {
	admin, err := c.environment.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return err
	}
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Kubeconfig, kubeconfig, 0o600); err != nil {
		return err
	}
	config := rest.CopyConfig(admin.Config())
	config.QPS = -1
	if c.Admin, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if _, err := os.Stat(c.controllerManager()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.startControllers(ctx)
}

func (c *Cluster) controllerManager() string {
	return filepath.Join(c.Programs, "kube-controller-manager")
}

// startControllers runs the controllers that delete the content of a namespace and the dependents of a deleted owner.
func (c *Cluster) startControllers(ctx context.Context) error {
	log, err := os.Create(filepath.Join(c.Dir, "kube-controller-manager.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.controllers = exec.Command(c.controllerManager(),
		"--kubeconfig="+c.Kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller")
	c.controllers.Stdout, c.controllers.Stderr = log, log
	// If this process is killed, the kernel kills kube-controller-manager.
	c.controllers.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.controllers.Start(); err != nil {
		return err
	}
	for { // the program is ready once it has created this ServiceAccount
		_, err := c.Admin.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-controller-manager does not create ServiceAccounts: see %s: %w", log.Name(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ServiceAccountKubeconfig writes a kubeconfig with a token of a ServiceAccount, and returns its path. The token has
// the rights that RBAC grants the account.
func (c *Cluster) ServiceAccountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	request := &authenticationv1.TokenRequest{}
	token, err := c.Admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["local"] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	kubeconfig.Contexts["local"] = &clientcmdapi.Context{Cluster: "local", AuthInfo: name}
	kubeconfig.CurrentContext = "local"
	path := filepath.Join(c.Dir, name+".kubeconfig")
	return path, clientcmd.WriteToFile(*kubeconfig, path)
}

// Stop stops every process that Start started.
func (c *Cluster) Stop() error {
	if c.controllers != nil && c.controllers.Process != nil {
		// After SIGTERM the program would wait for its caches. SIGKILL does no harm, because it has nothing to save.
		_ = c.controllers.Process.Kill()
		_ = c.controllers.Wait()
	}
	return c.environment.Stop()
}
