package apiserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func slice(port int32, addresses ...string) *discoveryv1.EndpointSlice {
	udp, other := corev1.ProtocolUDP, int32(53)
	return &discoveryv1.EndpointSlice{
		Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}},
		Ports:     []discoveryv1.EndpointPort{{Port: &port}, {Port: &other, Protocol: &udp}, {}},
	}
}

func TestAddressesOpenBeforeTheyClose(t *testing.T) {
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	a := &Addresses{Hold: 5 * time.Second}
	at := func(seconds int) ([]string, time.Time) {
		addresses, next := a.At(start.Add(time.Duration(seconds) * time.Second))
		var texts []string
		for _, address := range addresses {
			texts = append(texts, address.String())
		}
		return texts, next
	}
	service := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{"172.20.0.1", "fd00::1"}, Ports: []corev1.ServicePort{{Port: 443, Protocol: corev1.ProtocolTCP}}}}
	require.True(t, a.SetService(service, start))
	require.False(t, a.SetService(service, start))
	addresses, _ := at(0)
	require.Nil(t, addresses, "without endpoints they are unknown")

	require.True(t, a.SetEndpoints(slice(6443, "10.0.0.1", "10.0.0.2", "nonsense"), start))
	require.False(t, a.SetEndpoints(slice(6443, "10.0.0.2", "10.0.0.1"), start), "another order")
	addresses, next := at(0)
	require.Equal(t, []string{"10.0.0.1:6443", "10.0.0.2:6443", "172.20.0.1:443", "[fd00::1]:443"}, addresses)
	require.True(t, next.IsZero())

	require.True(t, a.SetEndpoints(slice(6443, "10.0.0.2", "10.0.0.3"), start.Add(10*time.Second)))
	addresses, next = at(12)
	require.Equal(t, []string{"10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443", "172.20.0.1:443", "[fd00::1]:443"}, addresses)
	require.Equal(t, start.Add(15*time.Second), next)
	addresses, next = at(15)
	require.Equal(t, []string{"10.0.0.2:6443", "10.0.0.3:6443", "172.20.0.1:443", "[fd00::1]:443"}, addresses)
	require.True(t, next.IsZero())

	require.True(t, a.SetEndpoints(nil, start.Add(20*time.Second)))
	addresses, _ = at(21)
	require.Nil(t, addresses, "policies stay as they are")
}
