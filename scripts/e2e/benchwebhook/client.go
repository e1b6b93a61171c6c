package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// reviewRequest returns an encoded HTTP request with the review of a policy, as an API server sends it after kubectl
// apply. The reviewed ConfigMap has managedFields, and an annotation that repeats the policy.
func reviewRequest(policy string) []byte {
	must := func(data []byte, err error) []byte {
		if err != nil {
			panic(err) // these types always encode
		}
		return data
	}
	configMap := corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "egress", Namespace: "tenant-a", UID: "5d3f2c1e-7f0c-4b0e-9b0a-0c8f3f5e8a11", CreationTimestamp: metav1.Unix(1_790_000_000, 0),
			Labels: map[string]string{"egress-controller": "managed"},
		},
		Data: map[string]string{"policy.json": policy},
	}
	applied := must(json.Marshal(configMap))
	configMap.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}
	now := metav1.Unix(1_790_000_000, 0)
	configMap.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kubectl-client-side-apply", Operation: "Update", APIVersion: "v1", Time: &now, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:data":{".":{},"f:policy.json":{}},"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}},"f:labels":{".":{},"f:egress-controller":{}}}}`),
	}}
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	resource := metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	dryRun := false
	body := must(json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: kind, Resource: resource, RequestKind: &kind, RequestResource: &resource,
			Name: "egress", Namespace: "tenant-a", Operation: admissionv1.Create, DryRun: &dryRun,
			UserInfo: authenticationv1.UserInfo{Username: "jane@example.com", UID: "014fbff9a07c", Groups: []string{"system:authenticated", "tenant-a-admins"}},
			Object:   runtime.RawExtension{Raw: must(json.Marshal(configMap))},
			Options:  runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"kubectl-client-side-apply","fieldValidation":"Strict"}`)},
		},
	}))
	head := fmt.Sprintf("POST /validate?timeout=5s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	return append([]byte(head), body...)
}

// connection is a TLS connection that stays open. It does without an HTTP client, because the CPU time of such a client
// would be part of the figures of both servers.
type connection struct {
	*tls.Conn
	reader *bufio.Reader
}

func (b *bench) dial(p *process) (*connection, error) {
	trusted := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(b.dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	trusted.AppendCertsFromPEM(ca)
	c, err := tls.Dial("tcp", p.address, &tls.Config{RootCAs: trusted, ServerName: "localhost"})
	if err != nil {
		return nil, err
	}
	return &connection{c, bufio.NewReader(c)}, nil
}

var allowedAnswer = []byte(`"allowed":true`)

// ask sends a review, and returns the time until the answer. It returns an error unless the answer allows the policy.
func (c *connection) ask(request []byte) (time.Duration, error) {
	started := time.Now()
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(response.Body)
	took := time.Since(started)
	response.Body.Close()
	if err == nil && !bytes.Contains(body, allowedAnswer) {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return took, err
}

// load sends count requests over several connections, each with one request at a time. If interval is 0, it sends the
// next request after each answer. Otherwise it sends one request per interval, over all connections. It returns the
// total time, and the sorted times of the single requests.
func (b *bench) load(
	p *process, request []byte, connections, count int, interval time.Duration,
) (total time.Duration, times []time.Duration, err error) {
	var running sync.WaitGroup
	took, errs := make([][]time.Duration, connections), make([]error, connections)
	clients := make([]*connection, connections)
	for i := range clients {
		if clients[i], err = b.dial(p); err != nil {
			return 0, nil, err
		}
		defer clients[i].Close()
	}
	started := time.Now()
	for i, client := range clients {
		running.Go(func() {
			for k := i; k < count && errs[i] == nil; k += connections {
				if interval > 0 {
					time.Sleep(time.Until(started.Add(time.Duration(k) * interval)))
				}
				var d time.Duration
				d, errs[i] = client.ask(request)
				took[i] = append(took[i], d)
			}
		})
	}
	running.Wait()
	total = time.Since(started)
	times = slices.Concat(took...)
	slices.Sort(times)
	return total, times, errors.Join(errs...)
}
