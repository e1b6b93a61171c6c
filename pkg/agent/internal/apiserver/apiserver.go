// Package apiserver knows the addresses of the cluster's API server: the cluster IP of the Service kubernetes in the
// namespace default, and its endpoints. AWS VPC CNI checks a connection before the translation of a cluster IP, and
// other dataplanes check it after that, so a policy opens both.
//
// The package is pure: the caller passes the objects and the time.
package apiserver

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// The namespace and the name of the Service, and of the EndpointSlice that each API server keeps (k8s.io/kubernetes,
// pkg/controlplane/reconcilers/endpointsadapter.go).
const (
	Namespace = "default"
	Name      = "kubernetes"
)

// Addresses are the addresses of the API server. It is safe for concurrent use. The zero value knows none.
type Addresses struct {
	// Hold is how long an address stays after it is gone, so that the new one is open before the old one closes.
	Hold time.Duration

	mu        sync.Mutex
	service   []netip.AddrPort
	endpoints []netip.AddrPort
	gone      map[netip.AddrPort]time.Time // when it was gone
}

// SetService records the Service; nil if it is deleted. It reports whether the addresses changed.
func (a *Addresses) SetService(service *corev1.Service, now time.Time) (isChanged bool) {
	var found []netip.AddrPort
	if service != nil {
		for _, clusterIP := range service.Spec.ClusterIPs {
			for _, port := range service.Spec.Ports {
				found = appendAddress(found, clusterIP, port.Port, port.Protocol)
			}
		}
	}
	return a.set(&a.service, found, now)
}

// SetEndpoints records the EndpointSlice; nil if it is deleted. It reports whether the addresses changed.
func (a *Addresses) SetEndpoints(endpoints *discoveryv1.EndpointSlice, now time.Time) (isChanged bool) {
	var found []netip.AddrPort
	if endpoints != nil {
		for _, endpoint := range endpoints.Endpoints {
			for _, address := range endpoint.Addresses {
				for _, port := range endpoints.Ports {
					if port.Port == nil {
						continue
					}
					protocol := corev1.ProtocolTCP
					if port.Protocol != nil {
						protocol = *port.Protocol
					}
					found = appendAddress(found, address, *port.Port, protocol)
				}
			}
		}
	}
	return a.set(&a.endpoints, found, now)
}

// appendAddress appends an address with a TCP port. It skips other protocols and invalid addresses.
func appendAddress(addresses []netip.AddrPort, address string, port int32, protocol corev1.Protocol) []netip.AddrPort {
	parsed, err := netip.ParseAddr(address)
	if err != nil || parsed.Zone() != "" || port < 1 || port > 65535 || protocol != corev1.ProtocolTCP && protocol != "" {
		return addresses
	}
	return append(addresses, netip.AddrPortFrom(parsed.Unmap(), uint16(port)))
}

func (a *Addresses) set(addresses *[]netip.AddrPort, found []netip.AddrPort, now time.Time) (isChanged bool) {
	slices.SortFunc(found, netip.AddrPort.Compare)
	found = slices.Compact(found)
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(*addresses, found) {
		return false
	}
	if a.gone == nil {
		a.gone = make(map[netip.AddrPort]time.Time)
	}
	for _, address := range *addresses {
		if !slices.Contains(found, address) {
			a.gone[address] = now
		}
	}
	*addresses = found
	return true
}

// At returns the addresses at a time, sorted. Without an endpoint it returns nil: the agent has read none yet, or the API
// server is being replaced. next is the time of the next change. The zero Time means never.
func (a *Addresses) At(now time.Time) (addresses []netip.AddrPort, next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.endpoints) == 0 {
		return nil, time.Time{}
	}
	addresses = slices.Concat(a.service, a.endpoints)
	for address, since := range a.gone {
		until := since.Add(a.Hold)
		if !now.Before(until) {
			delete(a.gone, address)
			continue
		}
		addresses = append(addresses, address)
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	slices.SortFunc(addresses, netip.AddrPort.Compare)
	return slices.Compact(addresses), next
}
