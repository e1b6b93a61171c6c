package webhook

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"egress-agent/scripts/e2e/harness"
)

const (
	floodConnections = 64
	floodChanges     = 10               // of the certificate
	floodTime        = 20 * time.Second // the reviews are spread over this time, so that the changes happen in between
)

// floodReviews is how many reviews the flood has.
var floodReviews = 10_000

func init() {
	if harness.RunsAll() {
		floodReviews = 100_000
	}
}

// TestWebhookAnswersFloodDuringChanges sends floodReviews reviews over 64 connections, a tenth of them of invalid policies.
// Meanwhile the certificate changes ten times and the ranges twice. No request may fail, and each must get its own
// verdict.
func TestWebhookAnswersFloodDuringChanges(t *testing.T) {
	t.Parallel()
	mount := newMount(t)
	w := &harness.Webhook{Address: harness.FreeAddress(t), CertsDir: mount.dir}
	mount.replaceAll(t)
	w.Start(t, "--ranges-file", filepath.Join(mount.dir, "ranges"), "--log-level", "warn")

	flood := &flood{webhook: w, trusted: mount.trusted, template: string(review(t, "UID", "POLICY")), certs: make(map[[32]byte]bool)}
	var running sync.WaitGroup
	for worker := range floodConnections {
		running.Go(func() { flood.run(worker) })
	}
	defer flood.stop.Store(true)
	for change := 1; change <= floodChanges; change++ {
		if change%3 == 0 {
			mount.overwriteInPlace(t)
		} else {
			mount.replaceAll(t)
		}
		harness.Eventually(t, "the webhook serves the new certificate", func() bool { return flood.hasSeenCertificate(mount.served) })
		harness.Eventually(t, "the webhook uses the new ranges", func() bool {
			age := time.Since(time.Unix(mount.published, 0)).Seconds()
			return math.Abs(w.Metric(t, "egress_webhook_ranges_age_seconds")-age) < 60
		})
	}
	require.Eventually(t, func() bool { return flood.reviewCount.Load() >= int64(floodReviews) || len(flood.errors()) > 0 }, 5*time.Minute, 10*time.Millisecond)
	flood.stop.Store(true)
	running.Wait()
	require.Empty(t, flood.errors())
	allowed, denied := w.VerdictCounts(t)
	require.EqualValues(t, flood.reviewCount.Load(), allowed+denied)
	require.InDelta(t, flood.reviewCount.Load()/10, denied, floodConnections)
	require.Zero(t, w.RefusedCount(t, "busy"))
	t.Logf("%d reviews, %.0f denied", flood.reviewCount.Load(), denied)
}

// flood is a set of clients of the webhook.
type flood struct {
	webhook     *harness.Webhook
	trusted     *x509.CertPool
	template    string
	stop        atomic.Bool
	reviewCount atomic.Int64

	mu     sync.Mutex
	certs  map[[32]byte]bool // digests of the certificates that the webhook has served
	failed []string
}

func (f *flood) errors() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *flood) hasSeenCertificate(certificate [32]byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.certs[certificate]
}

// run sends reviews one after the other, over a connection that it reopens now and then. Workers with even numbers use
// HTTP/2.
func (f *flood) run(worker int) {
	transport := &http.Transport{ForceAttemptHTTP2: worker%2 == 0, TLSClientConfig: &tls.Config{RootCAs: f.trusted}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: harness.Timeout}
	started := time.Now()
	for i := 0; !f.stop.Load(); i++ {
		time.Sleep(time.Until(started.Add(time.Duration(i) * floodConnections * floodTime / time.Duration(floodReviews))))
		if perConnection := floodReviews / 1000; i%perConnection == perConnection-1 {
			transport.CloseIdleConnections()
		}
		if err := f.sendReview(client, fmt.Sprintf("flood-%d-%d", worker, i), i); err != nil {
			f.mu.Lock()
			f.failed = append(f.failed, err.Error())
			f.mu.Unlock()
			return
		}
		f.reviewCount.Add(1)
	}
}

// sendReview reviews a policy that no other review has. Every tenth policy has host bits set.
func (f *flood) sendReview(client *http.Client, uid string, i int) error {
	cidr := fmt.Sprintf("10.%d.%d.0/24", i>>8&255, i&255)
	message := ""
	if i%10 == 0 {
		cidr = strings.Replace(cidr, ".0/24", ".1/24", 1)
		message = "Policy validation failed: Invalid CIDR format: " + cidr + " has host bits set; did you mean " + strings.Replace(cidr, ".1/24", ".0/24", 1) + "? (allowedDestinations[0].cidr)"
	}
	policy := fmt.Sprintf(`{\"allowedDestinations\": [{\"name\": \"%s\", \"cidr\": \"%s\", \"ports\": [443]}]}`, uid, cidr)
	body := strings.NewReplacer("UID", uid, "POLICY", policy).Replace(f.template)
	response, err := client.Post("https://"+f.webhook.Address+"/validate", "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	f.mu.Lock()
	f.certs[sha256.Sum256(response.TLS.PeerCertificates[0].Raw)] = true
	f.mu.Unlock()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %w", uid, response.Status, err)
	}
	got := ""
	if answer.Response.Result != nil {
		got = answer.Response.Result.Message
	}
	if string(answer.Response.UID) != uid || answer.Response.Allowed != (message == "") || got != message {
		return fmt.Errorf("review %s of %s got the answer %+v", uid, cidr, answer.Response)
	}
	return nil
}

// mount imitates a folder that a kubelet mounts from a Secret or a ConfigMap. The files are links into ..data, which is
// a link to the folder of the current version.
type mount struct {
	dir       string
	version   int
	trusted   *x509.CertPool // holds the certificates of all versions
	pairs     []keyPair      // one for each version
	served    [32]byte       // digest of the current certificate
	published int64          // publication time of the current ranges, in Unix seconds
}

type keyPair struct {
	leaf      *x509.Certificate
	cert, key []byte
}

func newMount(t *testing.T) *mount {
	t.Helper()
	m := &mount{dir: t.TempDir(), trusted: x509.NewCertPool()}
	for range floodChanges + 1 {
		certificate := harness.NewCertificate(t)
		key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
		require.NoError(t, err)
		m.trusted.AddCert(certificate.Leaf)
		m.pairs = append(m.pairs, keyPair{certificate.Leaf,
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})})
	}
	for _, file := range []string{"tls.crt", "tls.key", "ranges"} {
		require.NoError(t, os.Symlink("..data/"+file, filepath.Join(m.dir, file)))
	}
	return m
}

func (m *mount) nextPair() keyPair {
	p := m.pairs[m.version]
	m.version++
	m.served = sha256.Sum256(p.leaf.Raw)
	return p
}

func (m *mount) write(t *testing.T, folder, file string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, folder, file), data, 0o600))
}

// replaceAll replaces all files at once, as a kubelet does, with the next key pair and one of two ranges documents.
func (m *mount) replaceAll(t *testing.T) {
	t.Helper()
	p := m.nextPair()
	var document string
	document, m.published = "ip-ranges.json", 1_700_000_000
	if m.version >= 4 && m.version <= 8 {
		document, m.published = "ip-ranges-next.json", 1_700_021_600
	}
	folder := fmt.Sprintf("..%d", m.version)
	require.NoError(t, os.Mkdir(filepath.Join(m.dir, folder), 0o700))
	m.write(t, folder, "tls.crt", p.cert)
	m.write(t, folder, "tls.key", p.key)
	m.write(t, folder, "ranges", []byte(harness.SampleRanges(t, document)))
	require.NoError(t, os.Symlink(folder, filepath.Join(m.dir, "..tmp")))
	require.NoError(t, os.Rename(filepath.Join(m.dir, "..tmp"), filepath.Join(m.dir, "..data")))
}

// overwriteInPlace writes the next key pair over the last one: the certificate in two pieces, and the key so late that
// the webhook reads the files in between.
func (m *mount) overwriteInPlace(t *testing.T) {
	t.Helper()
	p := m.nextPair()
	half := len(p.cert) / 2
	m.write(t, "..data", "tls.crt", p.cert[:half])
	time.Sleep(50 * time.Millisecond)
	m.write(t, "..data", "tls.crt", p.cert)
	time.Sleep(2100 * time.Millisecond)
	m.write(t, "..data", "tls.key", p.key)
}
