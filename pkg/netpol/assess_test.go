package netpol

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/pkg/policy"
)

const (
	validDocument   = `{"allowedDestinations": [{"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]}]}`
	invalidDocument = `{"allowedDestinations": [{"name": "db", "cidr": "10.1.0.0/99"}]}`
)

func policyConfigMap(document string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress", UID: "uid-1"}, Data: map[string]string{policy.Key: document}}
}

// stored returns the desired NetworkPolicy as an API server stores it: with the generation that Assess expects.
func stored(a *Assessment) *networkingv1.NetworkPolicy {
	object := a.Desired[0].DeepCopy()
	object.Generation, _ = strconv.ParseInt(object.Annotations[GenerationAnnotation], 10, 64)
	return object
}

func fromMetadata(t *testing.T, object *networkingv1.NetworkPolicy) *Current {
	current, ok := CurrentOfMetadata(&object.ObjectMeta, DocumentDigest(object.Annotations[PolicyAnnotation]))
	require.True(t, ok)
	require.Equal(t, CurrentOf(object).SpecDigest, current.SpecDigest)
	require.Equal(t, CurrentOf(object).Usage.CIDRs, current.Usage.CIDRs)
	object.Generation++
	_, ok = CurrentOfMetadata(&object.ObjectMeta, "")
	require.False(t, ok, "the spec was edited since")
	object.Generation--
	return current
}

// TestAssessCause checks every cause of a write. After the write, Assess must return no cause.
func TestAssessCause(t *testing.T) {
	in := Inputs{Table: testTable(t), Options: Options{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots}}
	written := func(change func(*networkingv1.NetworkPolicy)) *Current {
		object := stored(Assess(policyConfigMap(validDocument), nil, in))
		change(object)
		return CurrentOf(object)
	}
	unchanged := func(*networkingv1.NetworkPolicy) {}
	otherOptions := in
	otherOptions.Options.DNSCIDRs = []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}
	noRows := in
	noRows.Table = costTable(t, 1)
	noSlotLimit := in
	noSlotLimit.Options.MaxPortSlots = 0
	for _, test := range []struct {
		name    string
		current *Current
		in      Inputs
		want    Cause
		opens   bool
	}{
		{"missing", nil, in, CauseMissing, true},
		{"the same", written(unchanged), in, "", false},
		{"no limit of slots", written(unchanged), noSlotLimit, "", false},
		{"spec edited", written(func(n *networkingv1.NetworkPolicy) { n.Spec.Egress = nil }), in, CauseEdited, false},
		{"spec edited, and another policy", written(func(n *networkingv1.NetworkPolicy) {
			n.Spec.Egress, n.Annotations[PolicyDigestAnnotation] = nil, "another"
		}), in, CauseEdited, true},
		{"label removed", written(func(n *networkingv1.NetworkPolicy) { n.Labels = nil }), in, CauseEdited, false},
		{"document edited", written(func(n *networkingv1.NetworkPolicy) { n.Annotations[PolicyAnnotation] = "{}" }), in, CauseMetadata, false},
		{"counts removed", written(func(n *networkingv1.NetworkPolicy) { delete(n.Annotations, DestinationsAnnotation) }), in, CauseMetadata, false},
		{"another policy", CurrentOf(stored(Assess(policyConfigMap(strings.Replace(validDocument, "443", "80", 1)), nil, in))), in, CausePolicy, true},
		{"other options", written(unchanged), otherOptions, CauseOptions, true},
		{"other ranges", written(unchanged), noRows, CauseRanges, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := Assess(policyConfigMap(validDocument), test.current, test.in)
			require.Equal(t, test.want, a.Cause)
			require.Equal(t, test.opens, a.Opens)
			require.Equal(t, test.want == "", a.Desired == nil)
			require.Empty(t, a.Messages())
			if test.want == "" {
				require.Equal(t, Applied, a.State)
				return
			}
			require.Equal(t, Pending, a.State)
			for _, current := range []*Current{CurrentOf(stored(a)), fromMetadata(t, stored(a))} {
				again := Assess(policyConfigMap(validDocument), current, test.in)
				require.Equal(t, Applied, again.State)
				require.Nil(t, again.Desired)
			}
		})
	}
}

// TestAssessKeepsLastValidPolicy requires that an invalid policy changes nothing: the last valid version stays in
// force.
func TestAssessKeepsLastValidPolicy(t *testing.T) {
	in := Inputs{Table: testTable(t), Options: Options{Family: IPv4, MaxPortSlots: DefaultPortSlots}}
	first := Assess(policyConfigMap(invalidDocument), nil, in)
	require.Equal(t, Invalid, first.State)
	require.Equal(t, []string{"Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr)", "Until it is corrected, all egress is denied"}, first.Messages())
	require.Empty(t, first.Desired[0].Spec.Egress)
	require.False(t, first.Opens)

	current := CurrentOf(stored(Assess(policyConfigMap(validDocument), nil, in)))
	a := Assess(policyConfigMap(invalidDocument), current, in)
	require.Equal(t, "Policy validation failed: Invalid CIDR format: 10.1.0.0/99 (allowedDestinations[0].cidr); until it is corrected, the last valid policy stays in force", a.Message())
	require.Nil(t, a.Desired)
	require.Equal(t, "s3", a.LastPolicy.Destinations[0].Name)

	onlyMetadata := stored(Assess(policyConfigMap(validDocument), nil, in))
	delete(onlyMetadata.Annotations, DestinationsAnnotation)
	a = Assess(policyConfigMap(invalidDocument), CurrentOf(onlyMetadata), in)
	require.Equal(t, CauseMetadata, a.Cause)
	require.False(t, a.Opens)

	cached := *current
	cached.Document = ""
	require.True(t, Assess(policyConfigMap(invalidDocument), &cached, in).NeedsObject)
	exceeded := in
	exceeded.Exceeded = policy.Problems{{Path: policy.Key, Message: "too much"}}
	a = Assess(policyConfigMap(validDocument), current, exceeded)
	require.Equal(t, Invalid, a.State)
	require.Nil(t, a.Desired, "the same version stays in force")
}

// TestAssessOmitsLongDocuments requires that PolicyAnnotation has no policy.json over MaxPolicyAnnotation.
func TestAssessOmitsLongDocuments(t *testing.T) {
	in := Inputs{Options: Options{Family: IPv4}}
	long := func(n int) *corev1.ConfigMap {
		return policyConfigMap(`{"allowedDestinations": [` + repeated(n, func(i int) string {
			return `{"name": "` + strconv.Itoa(i) + strings.Repeat("x", 40) + `", "cidr": "10.0.0.0/8", "ports": [443, 444, 445, 446]}`
		}) + `]}`)
	}
	fits := stored(Assess(long(500), nil, in))
	require.NotEmpty(t, fits.Annotations[PolicyAnnotation])
	require.LessOrEqual(t, len(fits.Annotations[PolicyAnnotation]), MaxPolicyAnnotation)
	tooLong := Assess(long(1000), nil, in)
	require.NotContains(t, tooLong.Desired[0].Annotations, PolicyAnnotation)
	require.Equal(t, CausePolicy, Assess(long(1000), CurrentOf(fits), in).Cause)
	require.Empty(t, Assess(long(1000), CurrentOf(stored(tooLong)), in).Cause)
}

func TestParseOptions(t *testing.T) {
	for _, options := range []Options{
		{Family: IPv4, AllowDNS: true, MaxPortSlots: DefaultPortSlots},
		{Family: Dual},
		{Family: IPv4, AllowDNS: true, DNSCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32"), netip.MustParsePrefix("10.0.0.10/32")}},
	} {
		parsed, err := ParseOptions(options.String())
		require.NoError(t, err)
		require.Equal(t, options, parsed)
	}
	for _, text := range []string{"", "ipv4", "ipv5 max-port-slots=24", "ipv4 dns max-port-slots=x", "ipv4 dns 24", "ipv4 dns x max-port-slots=24", "ipv4 10.0.0.10/32 max-port-slots=24"} {
		_, err := ParseOptions(text)
		require.Error(t, err, text)
	}
}
