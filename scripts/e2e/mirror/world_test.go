package mirror

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/harness"
)

const (
	program     = "egress-mirror" // its user agent, ServiceAccount and ConfigMap
	originLabel = "egress-controller/mirrored-from"
	managed     = "egress-controller=managed"
)

// world is a test's namespaces on the hub and here, and the files of the mirror's credentials. The server of the hub's
// kubeconfig is a proxy.
type world struct {
	t          *testing.T
	hub, here  *kubernetes.Clientset
	proxy      *proxy
	kubeconfig string // of the hub
	tokenFile  string // of the hub
	local      string // the kubeconfig of this cluster
}

// newWorld creates namespaces, on both clusters. When the test ends, it deletes them, every policy, and the record of
// deletions.
func newWorld(t *testing.T, namespaces ...string) *world {
	t.Helper()
	startPlanes(t)
	w := &world{t: t, hub: hub.cluster.Admin, here: harness.Control(t).Admin}
	t.Cleanup(func() {
		w.removeAll(w.hub)
		w.removeAll(w.here)
		err := w.here.CoreV1().ConfigMaps(harness.AgentNamespace).Delete(context.Background(), program, metav1.DeleteOptions{})
		require.True(t, err == nil || apierrors.IsNotFound(err), err)
	})
	for _, namespace := range namespaces {
		w.createNamespace(w.hub, namespace)
		w.createNamespace(w.here, namespace)
	}
	dir := t.TempDir()
	w.kubeconfig, w.tokenFile = filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "token")
	w.writeToken()
	w.proxy = startProxy(t)
	w.writeKubeconfig(w.proxy.url)
	var err error
	w.local, err = harness.Control(t).ServiceAccountKubeconfig(t.Context(), harness.AgentNamespace, program)
	require.NoError(t, err)
	return w
}

func (w *world) createNamespace(client *kubernetes.Clientset, name string) {
	w.t.Helper()
	_, err := client.CoreV1().Namespaces().Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

// removeAll deletes every policy of a cluster.
func (w *world) removeAll(client *kubernetes.Clientset) {
	list, err := client.CoreV1().ConfigMaps("").List(context.Background(), metav1.ListOptions{LabelSelector: managed})
	require.NoError(w.t, err)
	require.NoError(w.t, cluster.Each(len(list.Items), func(i int) error {
		err := client.CoreV1().ConfigMaps(list.Items[i].Namespace).Delete(context.Background(), list.Items[i].Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}))
}

// writeToken writes a new token of the hub's ServiceAccount into the token file.
func (w *world) writeToken() {
	w.t.Helper()
	token, err := w.hub.CoreV1().ServiceAccounts(program).CreateToken(w.t.Context(), program, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(w.tokenFile, []byte(token.Status.Token), 0o600))
}

// writeKubeconfig replaces the hub's kubeconfig at once, as a kubelet does. It names the token file with a relative path.
func (w *world) writeKubeconfig(server string) {
	w.t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["hub"] = &clientcmdapi.Cluster{Server: server, InsecureSkipTLSVerify: true}
	config.AuthInfos["mirror"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Base(w.tokenFile)}
	config.Contexts["hub"] = &clientcmdapi.Context{Cluster: "hub", AuthInfo: "mirror"}
	config.CurrentContext = "hub"
	data, err := clientcmd.Write(*config)
	require.NoError(w.t, err)
	w.replaceKubeconfig(string(data))
}

func (w *world) replaceKubeconfig(content string) {
	w.t.Helper()
	next := w.kubeconfig + ".next"
	require.NoError(w.t, os.WriteFile(next, []byte(content), 0o600))
	require.NoError(w.t, os.Rename(next, w.kubeconfig))
}

// args returns the arguments of the mirror, followed by more.
func (w *world) args(more ...string) []string {
	return append([]string{"mirror", "--from-kubeconfig", w.kubeconfig, "--kubeconfig", w.local}, more...)
}

// start starts the mirror, and waits until it has listed the hub.
func (w *world) start(more ...string) *harness.Process {
	w.t.Helper()
	return harness.StartProcess(w.t, harness.AgentName, w.args(more...)...)
}

// startUnready starts the mirror, which may never be ready. The process is killed when the test ends.
func (w *world) startUnready(more ...string) *harness.Process {
	w.t.Helper()
	log, err := os.Create(filepath.Join(w.t.TempDir(), "mirror.log"))
	require.NoError(w.t, err)
	defer log.Close()
	p := &harness.Process{LogFile: log.Name(), HealthAddress: harness.FreeAddress(w.t)}
	p.Command = exec.Command(harness.Binary(w.t, harness.AgentName), w.args(append(more, "--http-addr", p.HealthAddress)...)...)
	p.Command.Stdout, p.Command.Stderr = log, log
	p.Command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(w.t, p.Command.Start())
	w.t.Cleanup(func() {
		if !p.Ended {
			p.Kill(w.t)
		}
	})
	return p
}

// policy returns a policy document that differs for each number.
func policy(i int) string {
	return fmt.Sprintf(`{"allowedDestinations": [{"name": "db", "cidr": "10.%d.%d.0/24", "ports": [5432]}]}`, i>>8&255, i&255)
}

// put creates or replaces a policy of the hub. change may be nil.
func (w *world) put(namespace, name, document string, change func(*corev1.ConfigMap)) {
	w.t.Helper()
	require.NoError(w.t, w.tryPut(namespace, name, document, change))
}

func (w *world) tryPut(namespace, name, document string, change func(*corev1.ConfigMap)) error {
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"egress-controller": "managed"}},
		Data:       map[string]string{"policy.json": document},
	}
	if change != nil {
		change(configMap)
	}
	_, err := w.hub.CoreV1().ConfigMaps(namespace).Create(context.Background(), configMap, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = w.hub.CoreV1().ConfigMaps(namespace).Update(context.Background(), configMap, metav1.UpdateOptions{})
	}
	return err
}

// putMany creates the policies p-FIRST to p-(LAST-1) of a namespace of the hub.
func (w *world) putMany(namespace string, first, last int) {
	w.t.Helper()
	require.NoError(w.t, cluster.Each(last-first, func(i int) error {
		return w.tryPut(namespace, fmt.Sprintf("p-%d", first+i), policy(first+i), nil)
	}))
}

// remove deletes policies of the hub.
func (w *world) remove(namespace string, names ...string) {
	w.t.Helper()
	for _, name := range names {
		require.NoError(w.t, w.hub.CoreV1().ConfigMaps(namespace).Delete(w.t.Context(), name, metav1.DeleteOptions{}))
	}
}

// find returns a ConfigMap of this cluster, or nil.
func (w *world) find(namespace, name string) *corev1.ConfigMap {
	w.t.Helper()
	configMap, err := w.here.CoreV1().ConfigMaps(namespace).Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(w.t, err)
	return configMap
}

// awaitDocument waits until a ConfigMap of this cluster has a policy document, and returns it.
func (w *world) awaitDocument(namespace, name, document string) (found *corev1.ConfigMap) {
	w.t.Helper()
	harness.Eventually(w.t, namespace+"/"+name+" has the document", func() bool {
		found = w.find(namespace, name)
		return found != nil && found.Data["policy.json"] == document
	})
	return found
}

func (w *world) awaitGone(namespace, name string) {
	w.t.Helper()
	harness.Eventually(w.t, namespace+"/"+name+" is gone", func() bool { return w.find(namespace, name) == nil })
}

// copies returns the names of the copies in a namespace, sorted.
func (w *world) copies(namespace string) []string {
	w.t.Helper()
	list, err := w.here.CoreV1().ConfigMaps(namespace).List(context.Background(), metav1.ListOptions{LabelSelector: originLabel})
	require.NoError(w.t, err)
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Name)
	}
	slices.Sort(names)
	return names
}

func (w *world) awaitCopies(namespace string, count int) {
	w.t.Helper()
	harness.Eventually(w.t, fmt.Sprintf("%d copies", count), func() bool { return len(w.copies(namespace)) == count })
}

// edit changes a ConfigMap of this cluster.
func (w *world) edit(namespace, name string, change func(*corev1.ConfigMap)) {
	w.t.Helper()
	harness.Eventually(w.t, "the edit is stored", func() bool {
		configMap := w.find(namespace, name)
		change(configMap)
		_, err := w.here.CoreV1().ConfigMaps(namespace).Update(w.t.Context(), configMap, metav1.UpdateOptions{})
		require.True(w.t, err == nil || apierrors.IsConflict(err), err)
		return err == nil
	})
}

// writes returns the successful writes of the mirror since a mark. After a restart it tries to create a copy once, where
// a ConfigMap without the label of policies has the name.
func (w *world) writes(mark cluster.Mark) []string {
	w.t.Helper()
	writes, err := harness.Control(w.t).Writes(mark, program)
	require.NoError(w.t, err)
	return slices.DeleteFunc(writes, func(write string) bool { return strings.HasSuffix(write, cluster.Failed) })
}

func (w *world) mark() cluster.Mark {
	w.t.Helper()
	mark, err := harness.Control(w.t).Mark()
	require.NoError(w.t, err)
	return mark
}

// awaitLog waits until the log has a text, and requires that it has it once.
func (w *world) awaitLog(p *harness.Process, text string) {
	w.t.Helper()
	harness.Eventually(w.t, "the log has "+text, func() bool { return strings.Contains(p.Log(w.t), text) })
	require.Equal(w.t, 1, strings.Count(p.Log(w.t), text), "%s\n%s", text, p.Log(w.t))
}

func (w *world) awaitLogCount(p *harness.Process, text string, count int) {
	w.t.Helper()
	harness.Eventually(w.t, fmt.Sprintf("the log has %d times %s", count, text), func() bool { return strings.Count(p.Log(w.t), text) == count })
}

// token returns the last token that the log names.
func token(p *harness.Process, t *testing.T) string {
	t.Helper()
	log := p.Log(t)
	_, last, found := strings.Cut(log[max(0, strings.LastIndex(log, " token=")):], " token=")
	require.True(t, found, log)
	return strings.Fields(last)[0]
}

func (w *world) readKubeconfig() string { w.t.Helper(); return readFile(w.t, w.kubeconfig) }

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(data)
}

func sleep(milliseconds int) { time.Sleep(time.Duration(milliseconds) * time.Millisecond) }
