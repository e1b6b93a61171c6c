package admission

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

const (
	good = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}]}`
	bad  = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.5/24", "port": [5432]}]}`
)

var options = netpol.Options{Family: netpol.IPv4, AllowDNS: true, MaxPortSlots: netpol.DefaultPortSlots}

// object returns a policy ConfigMap. An empty policyJSON means that the key is missing.
func object(t testing.TB, policyJSON string, change ...func(*corev1.ConfigMap)) runtime.RawExtension {
	configMap := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "egress", Namespace: "tenant-a", Labels: map[string]string{policy.Label: policy.LabelValue}},
	}
	if policyJSON != "" {
		configMap.Data = map[string]string{policy.Key: policyJSON}
	}
	for _, f := range change {
		f(configMap)
	}
	raw, err := json.Marshal(configMap)
	require.NoError(t, err)
	return runtime.RawExtension{Raw: raw}
}

func unlabelled(c *corev1.ConfigMap) { c.Labels = nil }
func annotated(c *corev1.ConfigMap)  { c.Annotations = map[string]string{"a": "b"} }
func deleting(c *corev1.ConfigMap) {
	now := metav1.Now()
	c.DeletionTimestamp, c.Finalizers = &now, []string{"example.com/hold"}
}

func request(operation admissionv1.Operation, old, object runtime.RawExtension) *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{
		UID: "u-1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Operation: operation,
		Name: "egress", Namespace: "tenant-a", OldObject: old, Object: object, UserInfo: authenticationv1.UserInfo{Username: "jane"},
	}
}

// review returns the body that an API server sends, from its own types.
func review(t testing.TB, request *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	require.NoError(t, err)
	return body
}

// reviewOf sends a request through the webhook's decoder and Review.
func reviewOf(t testing.TB, request *admissionv1.AdmissionRequest) (*Response, error) {
	t.Helper()
	read, err := readReview(review(t, request))
	if err != nil {
		return nil, err
	}
	return Review(read, Rules{Options: options})
}

func dryRun(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionRequest {
	yes := true
	r.DryRun = &yes
	return r
}

func TestReviewVerdicts(t *testing.T) {
	none := runtime.RawExtension{}
	for _, test := range []struct {
		name    string
		request *admissionv1.AdmissionRequest
		allowed bool
	}{
		{"create good", request("CREATE", none, object(t, good)), true},
		{"create bad", request("CREATE", none, object(t, bad)), false},
		{"create without the key", request("CREATE", none, object(t, "")), false},
		{"create unlabelled", request("CREATE", none, object(t, bad, unlabelled)), true},
		{"update good to bad", request("UPDATE", object(t, good), object(t, bad)), false},
		{"update bad to good", request("UPDATE", object(t, bad), object(t, good)), true},
		{"update bad to another bad", request("UPDATE", object(t, bad), object(t, bad+" ")), false},
		{"annotate bad", request("UPDATE", object(t, bad), object(t, bad, annotated)), true},
		{"label bad", request("UPDATE", object(t, bad, unlabelled), object(t, bad)), false},
		{"unlabel bad", request("UPDATE", object(t, bad), object(t, bad, unlabelled)), true},
		{"drop the key", request("UPDATE", object(t, good), object(t, "")), false},
		{"annotate without the key", request("UPDATE", object(t, ""), object(t, "", annotated)), true},
		{"bad, in a dry run", dryRun(request("CREATE", none, object(t, bad))), false},
		{"good, in a dry run", dryRun(request("CREATE", none, object(t, good))), true},
		{"bad while being deleted", request("UPDATE", object(t, good), object(t, bad, deleting)), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, err := reviewOf(t, test.request)
			require.NoError(t, err)
			require.Equal(t, test.allowed, response.Allowed)
			require.Equal(t, test.request.UID, response.UID)
			require.Equal(t, test.allowed, response.Result == nil)
		})
	}
}

func TestDenialListsProblems(t *testing.T) {
	response, err := reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, bad)))
	require.NoError(t, err)
	require.Equal(t, "Policy validation failed: "+
		"Invalid CIDR format: 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24? (allowedDestinations[0].cidr); "+
		`Unknown field: port; did you mean "ports"? (allowedDestinations[0].port)`, response.Result.Message)
	require.Equal(t, int32(http.StatusForbidden), response.Result.Code)
	require.Equal(t, "egress", response.Result.Details.Name)
	require.Equal(t, []metav1.StatusCause{
		{Type: metav1.CauseTypeFieldValueInvalid, Message: "Invalid CIDR format: 10.1.0.5/24 has host bits set; did you mean 10.1.0.0/24?", Field: "allowedDestinations[0].cidr"},
		{Type: metav1.CauseTypeFieldValueInvalid, Message: `Unknown field: port; did you mean "ports"?`, Field: "allowedDestinations[0].port"},
	}, response.Result.Details.Causes)

	many := `{"allowedDestinations": [` + strings.TrimSuffix(strings.Repeat("{},", 1000), ",") + "]}"
	response, err = reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, many)))
	require.NoError(t, err)
	require.Len(t, response.Result.Details.Causes, policy.MaxProblems)
	require.Contains(t, response.Result.Message, "and 1900 more")
}

func TestWarningsAreBounded(t *testing.T) {
	var entries strings.Builder
	for i := range 100 {
		name := fmt.Sprint(i, strings.Repeat("ü", 60))
		for k, field := range []string{`"cidr": "10.0.0.0/16"`, `"awsService": "amazon"`, `"cidr": "2001:db8::/32"`, `"cidr": "10.0.0.0/7"`, `"cidr": "0.0.0.0/0"`} {
			fmt.Fprintf(&entries, `{"name": "%s%d", %s},`, name, k, field)
		}
	}
	document := `{"allowedDestinations": [` + strings.TrimSuffix(entries.String(), ",") + "]}"
	response, err := reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, document)))
	require.NoError(t, err)
	total := 0
	for _, warning := range response.Warnings {
		require.LessOrEqual(t, len([]rune(warning)), 256)
		total += len([]rune(warning))
	}
	require.LessOrEqual(t, total, 4096)
	require.Contains(t, response.Warnings[0], "opens every IPv4 address", "the most severe warning comes first")
	require.Equal(t, "95 more destinations open every address of a family (allowedDestinations)", response.Warnings[5])
	require.Regexp(t, `^and \d+ more warnings$`, response.Warnings[len(response.Warnings)-1])
}

func TestReviewRefusesMalformedRequests(t *testing.T) {
	change := func(f func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionRequest {
		r := request("CREATE", runtime.RawExtension{}, object(t, good))
		f(r)
		return r
	}
	for _, test := range []struct {
		name    string
		request *admissionv1.AdmissionRequest
		want    string
	}{
		{"no request", nil, "the review has no request"},
		{"no uid", change(func(r *admissionv1.AdmissionRequest) { r.UID = "" }), "the request has no uid"},
		{"a Secret", change(func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "Secret" }), "the request is for /v1, Kind=Secret, not v1, Kind=ConfigMap"},
		{"a DELETE", change(func(r *admissionv1.AdmissionRequest) { r.Operation = "DELETE" }), `the request is for operation "DELETE", not CREATE or UPDATE`},
		{"no object", change(func(r *admissionv1.AdmissionRequest) { r.Object.Raw = nil }), "the request has no object"},
		{"null object", change(func(r *admissionv1.AdmissionRequest) { r.Object.Raw = []byte("null") }), "the request has no object"},
		{"no old object", change(func(r *admissionv1.AdmissionRequest) { r.Operation = "UPDATE" }), "the request has no oldObject"},
		{"another object", change(func(r *admissionv1.AdmissionRequest) { r.Object.Raw = []byte(`{"data": [1]}`) }),
			"the body is not an AdmissionReview: json: cannot unmarshal array into Go struct field ConfigMap.request.object.data of type admission.Data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, err := reviewOf(t, test.request)
			require.EqualError(t, err, test.want)
			require.Nil(t, response)
		})
	}
}

// TestCorpus reviews the policies in testdata.
func TestCorpus(t *testing.T) {
	for folder, allowed := range map[string]bool{"valid": true, "invalid": false} {
		paths, err := filepath.Glob("../../testdata/policy/" + folder + "/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			if len(data) == 0 {
				continue // the function object treats an empty document as a missing key
			}
			response, err := reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, string(data))))
			require.NoError(t, err)
			require.Equal(t, allowed, response.Allowed, path)
		}
	}
}

// TestReviewChecksWholeObject checks that admission reads the same metadata and data as the offline validation.
func TestReviewChecksWholeObject(t *testing.T) {
	recreated := func(c *corev1.ConfigMap) {
		c.Annotations = map[string]string{"argocd.argoproj.io/sync-options": "Replace=true", "helm.sh/hook": "pre-install"}
		c.Labels["kustomize.toolkit.fluxcd.io/force"] = "enabled"
	}
	response, err := reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, good, recreated)))
	require.NoError(t, err)
	require.Len(t, response.Warnings, 3)
	for i, tool := range []string{"Argo CD", "Flux", "Helm"} {
		require.Contains(t, response.Warnings[i], tool)
	}
	binary := func(c *corev1.ConfigMap) {
		c.Data, c.BinaryData = nil, map[string][]byte{policy.Key: {0xff, 0xfe, '{', 0, '}', 0}}
	}
	response, err = reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, "", binary)))
	require.NoError(t, err)
	require.Contains(t, response.Result.Message, "Missing field: policy.json; it is in binaryData, because it is not UTF-8 but UTF-16 with a byte order mark")
	misnamed := func(keys int) func(c *corev1.ConfigMap) {
		return func(c *corev1.ConfigMap) {
			c.Data, c.BinaryData = map[string]string{"a": strings.Repeat("{}", 1<<16)}, map[string][]byte{"Policy.json": {0xff}}
			for i := range keys {
				c.Data[fmt.Sprint("key-", i)] = "{}"
			}
		}
	}
	response, err = reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, "", misnamed(98))))
	require.NoError(t, err)
	require.Contains(t, response.Result.Message, "Missing field: policy.json; the agent does not read the key Policy.json: rename it to policy.json")
	response, err = reviewOf(t, request("CREATE", runtime.RawExtension{}, object(t, "", misnamed(99))))
	require.NoError(t, err)
	require.Equal(t, "Policy validation failed: Missing field: policy.json (data)", response.Result.Message, "101 keys")
	inKubePublic := request("CREATE", runtime.RawExtension{}, object(t, good))
	inKubePublic.Namespace = "kube-public"
	response, err = reviewOf(t, inKubePublic)
	require.NoError(t, err)
	require.Contains(t, response.Warnings[0], "the agent writes nothing in kube-public")
}

// TestReviewRefusesOnlyNewExpiredDestinations checks that an update may keep a destination that has expired, and that no
// request may add or change one.
func TestReviewRefusesOnlyNewExpiredDestinations(t *testing.T) {
	const expired = `{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [443], "expires": "2027-03-31"}`
	const changed = `{"name": "vpn", "cidr": "10.2.0.0/24", "ports": [8443], "expires": "2027-03-31"}`
	const other = `{"name": "db", "cidr": "10.1.0.0/24", "ports": [5432]}`
	document := func(entries string) string { return `{"allowedDestinations": [` + entries + `]}` }
	for _, test := range []struct {
		name    string
		request *admissionv1.AdmissionRequest
		allowed bool
	}{
		{"new", request("CREATE", runtime.RawExtension{}, object(t, document(expired))), false},
		{"added", request("UPDATE", object(t, document(other)), object(t, document(other+","+expired))), false},
		{"changed", request("UPDATE", object(t, document(expired)), object(t, document(changed))), false},
		{"kept beside another change", request("UPDATE", object(t, document(expired)), object(t, document(other+","+expired))), true},
		{"kept while the label is added", request("UPDATE", object(t, document(expired), unlabelled), object(t, document(expired))), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			read, err := readReview(review(t, test.request))
			require.NoError(t, err)
			for _, day := range []int{31, 1} { // 1 is April 1
				now := time.Date(2027, 3, day, 0, 0, 0, 0, time.UTC)
				if day == 1 {
					now = now.AddDate(0, 1, 0)
				}
				response, err := Review(read, Rules{Options: options, Now: now})
				require.NoError(t, err)
				require.Equal(t, test.allowed || day == 31, response.Allowed, "%s: %+v", now, response.Result)
				if response.Allowed && day == 1 {
					require.Contains(t, response.Warnings, "vpn has expired, 2027-03-31, and opens nothing; remove it (allowedDestinations[1].expires)")
				}
			}
		})
	}
}
