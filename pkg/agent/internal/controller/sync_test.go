package controller

import (
	"errors"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"egress-agent/pkg/agent/internal/plan"
	"egress-agent/pkg/agent/internal/testobjects"
	"egress-agent/pkg/netpol"
	"egress-agent/pkg/policy"
)

func TestSync(t *testing.T) {
	foreign := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant-a", Name: "egress"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
	now := metav1.Now()
	for _, test := range []struct {
		name    string
		objects []runtime.Object
		verbs   []string
		event   string
	}{
		{"new", []runtime.Object{testobjects.ConfigMap(testobjects.Valid)}, []string{"create networkpolicies"}, plan.ReasonApplied},
		{"unchanged", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid)}, nil, ""},
		{"edited", []runtime.Object{testobjects.ConfigMap(testobjects.Edited), testobjects.NetworkPolicy(t, testobjects.Valid)}, []string{"update networkpolicies"}, plan.ReasonApplied},
		{"invalid from the start", []runtime.Object{testobjects.ConfigMap(testobjects.Invalid)}, []string{"create networkpolicies"}, plan.ReasonInvalid},
		{"still invalid", []runtime.Object{testobjects.ConfigMap(testobjects.Invalid), testobjects.NetworkPolicy(t, testobjects.Invalid)}, nil, plan.ReasonInvalid},
		{"invalid after a valid version", []runtime.Object{testobjects.ConfigMap(testobjects.Invalid), testobjects.NetworkPolicy(t, testobjects.Valid)}, []string{"get networkpolicies"}, plan.ReasonInvalid},
		{"without the key", []runtime.Object{testobjects.With(testobjects.ConfigMap(testobjects.Valid), func(c *corev1.ConfigMap) { c.Data = nil })}, []string{"create networkpolicies"}, plan.ReasonInvalid},
		{"corrected", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Invalid)}, []string{"update networkpolicies"}, plan.ReasonApplied},
		{"spec edited by others", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = p.Spec.Egress[:1] })},
			[]string{"get networkpolicies", "update networkpolicies"}, plan.ReasonRestored},
		{"deny-all edited by others", []runtime.Object{testobjects.ConfigMap(testobjects.Invalid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Invalid), func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil })},
			[]string{"get networkpolicies", "update networkpolicies"}, plan.ReasonInvalid},
		{"label taken off by others", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.Labels = nil })},
			[]string{"update networkpolicies"}, plan.ReasonRestored},
		{"annotations taken off by others", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.Annotations = nil })},
			[]string{"get networkpolicies", "update networkpolicies"}, plan.ReasonRestored},
		{"ConfigMap made anew", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.OwnerReferences[0].UID = "uid-0" })},
			[]string{"update networkpolicies"}, plan.ReasonApplied},
		{"made by others", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), foreign}, nil, plan.ReasonNameConflict},
		{"made by others, and no policy", []runtime.Object{foreign}, nil, ""},
		{"policy deleted", []runtime.Object{testobjects.NetworkPolicy(t, testobjects.Valid)}, []string{"get configmaps", "delete networkpolicies"}, ""},
		{"label gone", []runtime.Object{testobjects.With(testobjects.ConfigMap(testobjects.Valid), func(c *corev1.ConfigMap) { c.Labels = nil }), testobjects.NetworkPolicy(t, testobjects.Valid)},
			[]string{"get configmaps", "delete networkpolicies"}, ""},
		{"being deleted", []runtime.Object{testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
			p.DeletionTimestamp, p.Finalizers = &now, []string{"networking.k8s.aws/resources"}
		})}, nil, ""},
		{"being deleted under a policy", []runtime.Object{testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Edited), func(p *networkingv1.NetworkPolicy) {
			p.DeletionTimestamp, p.Finalizers = &now, []string{"networking.k8s.aws/resources"}
		})}, nil, ""},
		{"nothing", nil, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.objects...)
			require.NoError(t, f.sync(t.Context(), key))
			require.Equal(t, test.verbs, f.verbs())
			require.Equal(t, test.event, f.event(t))
			isWritten := len(f.writes()) == 1
			if current, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "egress", metav1.GetOptions{}); err == nil && isWritten {
				want := testobjects.NetworkPolicy(t, test.objects[0].(*corev1.ConfigMap).Data[policy.Key])
				require.Equal(t, want.Spec, current.Spec)
				require.Equal(t, want.OwnerReferences, current.OwnerReferences)
				want.Annotations[netpol.GenerationAnnotation] = strconv.FormatInt(current.Generation, 10)
				require.Equal(t, want.Annotations, current.Annotations)
				require.Equal(t, want.Labels, current.Labels)
			}
			f.updateCache(t)
			require.NoError(t, f.sync(t.Context(), key))
			require.Empty(t, f.writes(), "a second sync writes nothing")
			require.Empty(t, f.event(t), "a second sync reports nothing new")
		})
	}
}

// TestSyncReportsAnotherSpec requires an error if an admission webhook changes what the agent writes.
func TestSyncReportsAnotherSpec(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid))
	f.client.PrependReactor("create", "networkpolicies", func(action clienttesting.Action) (bool, runtime.Object, error) {
		networkPolicy := action.(clienttesting.CreateAction).GetObject().(*networkingv1.NetworkPolicy)
		networkPolicy.Spec.Egress = append(networkPolicy.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		return false, nil, nil
	})
	require.EqualError(t, f.sync(t.Context(), key),
		"the API server stored another spec for NetworkPolicy egress than egress-agent wrote: look for a mutating admission webhook")
}

func TestSyncRestoresDeletedNetworkPolicy(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, f.sync(t.Context(), key))
	require.NoError(t, f.client.Tracker().Delete(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"), "tenant-a", "egress"))
	f.updateCache(t)
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []string{"get configmaps", "create networkpolicies"}, f.verbs())
	require.Equal(t, plan.ReasonRestored, f.event(t))
}

// TestSyncDoesNotTrustCachedConfigMap deletes a NetworkPolicy and its ConfigMap. The cache still has the ConfigMap.
func TestSyncDoesNotTrustCachedConfigMap(t *testing.T) {
	configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
	for _, test := range []struct {
		name   string
		stored *corev1.ConfigMap // in the API server; nil if it is deleted
	}{
		{"gone", nil},
		{"made anew", testobjects.With(testobjects.ConfigMap(testobjects.Valid), func(c *corev1.ConfigMap) { c.UID = "uid-2" })},
		{"label gone", testobjects.With(testobjects.ConfigMap(testobjects.Valid), func(c *corev1.ConfigMap) { c.Labels = nil })},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.NetworkPolicy(t, testobjects.Valid))
			require.NoError(t, f.sync(t.Context(), key))
			require.NoError(t, f.client.Tracker().Delete(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"), "tenant-a", "egress"))
			require.NoError(t, f.client.Tracker().Delete(configMaps, "tenant-a", "egress"))
			if test.stored != nil {
				require.NoError(t, f.client.Tracker().Add(test.stored))
			}
			f.updateCache(t)
			require.NoError(t, f.sync(t.Context(), key), "no retry is needed: a watch event will enqueue the key")
			require.Equal(t, []string{"get configmaps"}, f.verbs())
			require.Empty(t, f.event(t))
		})
	}
}

// TestSyncKeepsWhatOthersAdded also has an owner that the agent did not set.
func TestSyncKeepsWhatOthersAdded(t *testing.T) {
	other := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "egress", UID: "d-1"}
	f := newFixture(t, testobjects.ConfigMap(testobjects.Edited), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
		p.Labels["team"], p.Annotations["note"] = "payments", "kept"
		p.Finalizers = []string{"networking.k8s.aws/resources"}
		p.OwnerReferences = append(p.OwnerReferences, other)
	}))
	require.NoError(t, f.sync(t.Context(), key))
	current, err := f.client.NetworkingV1().NetworkPolicies("tenant-a").Get(t.Context(), "egress", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, testobjects.NetworkPolicy(t, testobjects.Edited).Spec, current.Spec)
	require.Equal(t, "payments", current.Labels["team"])
	require.Equal(t, "kept", current.Annotations["note"])
	require.Equal(t, []string{"networking.k8s.aws/resources"}, current.Finalizers)
	require.Equal(t, []metav1.OwnerReference{testobjects.NetworkPolicy(t, testobjects.Edited).OwnerReferences[0], other}, current.OwnerReferences)

	f = newFixture(t, testobjects.ConfigMap(testobjects.Valid), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) {
		p.OwnerReferences[0].UID = "uid-0"
		p.OwnerReferences = append(p.OwnerReferences, other)
	}))
	require.NoError(t, f.sync(t.Context(), key))
	require.Equal(t, []metav1.OwnerReference{other, testobjects.NetworkPolicy(t, testobjects.Valid).OwnerReferences[0]}, getPolicy(t, f).OwnerReferences,
		"only the ConfigMap's predecessor is replaced")
}

// TestSyncDeletesByUID protects a NetworkPolicy with the same name that may have replaced the cached NetworkPolicy.
func TestSyncDeletesByUID(t *testing.T) {
	f := newFixture(t, testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.UID = "np-1" }))
	require.NoError(t, f.sync(t.Context(), key))
	deletion := f.client.Actions()[1].(clienttesting.DeleteActionImpl)
	require.EqualValues(t, "np-1", *deletion.DeleteOptions.Preconditions.UID)
}

// TestSyncDoesNotTrustMissingConfigMap has a NetworkPolicy whose ConfigMap is not in the cache yet.
func TestSyncDoesNotTrustMissingConfigMap(t *testing.T) {
	f := newFixture(t, testobjects.NetworkPolicy(t, testobjects.Valid))
	require.NoError(t, f.client.Tracker().Add(testobjects.ConfigMap(testobjects.Valid)))
	require.EqualError(t, f.sync(t.Context(), key), "the cache lacks ConfigMap egress")
	require.Equal(t, []string{"get configmaps"}, f.verbs())
}

func TestSyncErrors(t *testing.T) {
	resource := networkingv1.Resource("networkpolicies")
	terminating := apierrors.NewForbidden(resource, "egress", errors.New("terminating"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, test := range []struct {
		name, verb, resource string
		answer               error
		objects              []runtime.Object
		want                 string
	}{
		{"create fails", "create", "networkpolicies", errors.New("away"), []runtime.Object{testobjects.ConfigMap(testobjects.Valid)}, "create NetworkPolicy egress: away"},
		{"update fails", "update", "networkpolicies", errors.New("away"), []runtime.Object{testobjects.ConfigMap(testobjects.Edited), testobjects.NetworkPolicy(t, testobjects.Valid)}, "update NetworkPolicy egress: away"},
		{"read fails", "get", "configmaps", errors.New("away"), []runtime.Object{testobjects.NetworkPolicy(t, testobjects.Valid)}, "read the ConfigMap of NetworkPolicy egress: away"},
		{"delete fails", "delete", "networkpolicies", errors.New("away"), []runtime.Object{testobjects.NetworkPolicy(t, testobjects.Valid)}, "delete NetworkPolicy egress: away"},
		{"gone already", "delete", "networkpolicies", apierrors.NewNotFound(resource, "egress"), []runtime.Object{testobjects.NetworkPolicy(t, testobjects.Valid)}, ""},
		{"namespace gone", "create", "networkpolicies", apierrors.NewNotFound(resource, "egress"), []runtime.Object{testobjects.ConfigMap(testobjects.Valid)}, ""},
		{"namespace terminating", "create", "networkpolicies", terminating, []runtime.Object{testobjects.ConfigMap(testobjects.Valid)}, ""},
		{"forbidden", "create", "networkpolicies", apierrors.NewForbidden(resource, "egress", errors.New("no")), []runtime.Object{testobjects.ConfigMap(testobjects.Valid)},
			`create NetworkPolicy egress: networkpolicies.networking.k8s.io "egress" is forbidden: no`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.objects...)
			f.client.PrependReactor(test.verb, test.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, test.answer
			})
			err := f.sync(t.Context(), key)
			if test.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.want)
			}
			require.Empty(t, f.event(t), "a failed write is not reported")
		})
	}
}

// TestSyncUpdatesByResourceVersion requires that an update has the resourceVersion of the cached NetworkPolicy.
func TestSyncUpdatesByResourceVersion(t *testing.T) {
	f := newFixture(t, testobjects.ConfigMap(testobjects.Edited), testobjects.EditedByOthers(testobjects.NetworkPolicy(t, testobjects.Valid), func(p *networkingv1.NetworkPolicy) { p.ResourceVersion = "7" }))
	require.NoError(t, f.sync(t.Context(), key))
	update := f.client.Actions()[0].(clienttesting.UpdateAction).GetObject().(*networkingv1.NetworkPolicy)
	require.Equal(t, "7", update.ResourceVersion)
}
