package flows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"egress-agent/pkg/policy"
)

// Cluster has the pods and Services of a cluster, by their addresses. Nil knows none.
type Cluster struct {
	pods     map[netip.Addr]Pod
	services map[netip.Addr]Service
}

// Pod is a pod that shares its address with no other pod. A host-network pod has the address of the node, so the caller
// leaves it out.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
}

// Service is a Service with a cluster IP.
type Service struct {
	Namespace, Name string
	// Selector is the Service's own selector. It is empty for a Service whose endpoints somebody else writes.
	Selector map[string]string
	// TargetPorts has the port of the pods for each port of the Service. A named target port is missing.
	TargetPorts map[uint16]uint16
}

// NewCluster returns an empty Cluster.
func NewCluster() *Cluster {
	return &Cluster{pods: make(map[netip.Addr]Pod), services: make(map[netip.Addr]Service)}
}

// AddPod adds a pod.
func (c *Cluster) AddPod(address netip.Addr, pod Pod) { c.pods[address.Unmap()] = pod }

// AddService adds a Service.
func (c *Cluster) AddService(address netip.Addr, service Service) {
	c.services[address.Unmap()] = service
}

// IsEmpty reports whether c knows no address. It is true for nil.
func (c *Cluster) IsEmpty() bool { return c == nil || len(c.pods)+len(c.services) == 0 }

// PodOf returns the pod with an address. c may be nil.
func (c *Cluster) PodOf(address netip.Addr) (pod Pod, ok bool) {
	if c == nil {
		return Pod{}, false
	}
	pod, ok = c.pods[address]
	return pod, ok
}

// ServiceOf returns the Service with a cluster IP. c may be nil.
func (c *Cluster) ServiceOf(address netip.Addr) (service Service, ok bool) {
	if c == nil {
		return Service{}, false
	}
	service, ok = c.services[address]
	return service, ok
}

// NamespaceOf returns the namespace of the pod with an address, or "" if c knows no such pod.
func (c *Cluster) NamespaceOf(address netip.Addr) string {
	pod, _ := c.PodOf(address)
	return pod.Namespace
}

// IsDNS reports whether a flow is a question to the cluster's DNS, which every policy allows. If c knows no address, each
// private address may be that DNS.
func (c *Cluster) IsDNS(flow Flow) bool {
	if flow.Port != 53 || flow.Protocol == policy.SCTP {
		return false
	}
	if c.IsEmpty() {
		return flow.Destination.IsPrivate() || flow.Destination.IsLinkLocalUnicast()
	}
	pod, _ := c.PodOf(flow.Destination)
	service, _ := c.ServiceOf(flow.Destination)
	return pod.Labels["k8s-app"] == "kube-dns" || service.Selector["k8s-app"] == "kube-dns"
}

// PortOf returns the port of the pods for a flow. A flow to a Service has the Service's port.
func (c *Cluster) PortOf(flow Flow) uint16 {
	service, _ := c.ServiceOf(flow.Destination)
	if port, isKnown := service.TargetPorts[flow.Port]; isKnown {
		return port
	}
	return flow.Port
}

// manifest has what ReadCluster reads of the output of kubectl get pods,services -A -o json.
type manifest struct {
	Items []struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Namespace string            `json:"namespace"`
			Name      string            `json:"name"`
			Labels    map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			HostNetwork bool              `json:"hostNetwork"`
			Selector    map[string]string `json:"selector"`
			ClusterIPs  []string          `json:"clusterIPs"`
			Ports       []struct {
				Port       uint16          `json:"port"`
				TargetPort json.RawMessage `json:"targetPort"`
			} `json:"ports"`
		} `json:"spec"`
		Status struct {
			PodIPs []struct {
				IP string `json:"ip"`
			} `json:"podIPs"`
		} `json:"status"`
	} `json:"items"`
}

// ReadCluster reads the output of kubectl get pods,services -A -o json. It skips pods on the network of their node, which
// have the address of the node.
func ReadCluster(file io.Reader) (*Cluster, error) {
	var m manifest
	if err := json.NewDecoder(file).Decode(&m); err != nil {
		return nil, fmt.Errorf("not the output of kubectl get pods,services -A -o json: %w", err)
	}
	c := NewCluster()
	for _, item := range m.Items {
		switch {
		case item.Kind == "Pod" && !item.Spec.HostNetwork:
			for _, ip := range item.Status.PodIPs {
				if address, err := netip.ParseAddr(ip.IP); err == nil {
					c.AddPod(address, Pod{item.Metadata.Namespace, item.Metadata.Name, item.Metadata.Labels})
				}
			}
		case item.Kind == "Service":
			service := Service{item.Metadata.Namespace, item.Metadata.Name, item.Spec.Selector, make(map[uint16]uint16)}
			for _, port := range item.Spec.Ports {
				var target uint16
				if json.Unmarshal(port.TargetPort, &target) == nil && target != 0 {
					service.TargetPorts[port.Port] = target
				}
			}
			for _, ip := range item.Spec.ClusterIPs {
				if address, err := netip.ParseAddr(ip); err == nil {
					c.AddService(address, service)
				}
			}
		}
	}
	if c.IsEmpty() {
		return nil, errors.New("no pods with addresses: give the output of kubectl get pods,services -A -o json")
	}
	return c, nil
}
