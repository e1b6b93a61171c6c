package flows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// AddPodObject adds the addresses of a pod. It skips a pod on the network of its node, which has the address of the node.
func (c *Cluster) AddPodObject(pod *corev1.Pod) {
	if pod.Spec.HostNetwork {
		return
	}
	for _, ip := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			c.AddPod(address, Pod{pod.Namespace, pod.Name, pod.Labels})
		}
	}
}

// AddServiceObject adds the cluster IPs of a Service.
func (c *Cluster) AddServiceObject(object *corev1.Service) {
	service := Service{object.Namespace, object.Name, object.Spec.Selector, make(map[uint16]uint16)}
	for _, port := range object.Spec.Ports {
		if target := port.TargetPort.IntVal; target != 0 {
			service.TargetPorts[uint16(port.Port)] = uint16(target)
		}
	}
	for _, ip := range object.Spec.ClusterIPs {
		if address, err := netip.ParseAddr(ip); err == nil {
			c.AddService(address, service)
		}
	}
}

// ReadCluster reads the output of kubectl get pods,services -A -o json, one object after the other.
func ReadCluster(file io.Reader) (*Cluster, error) {
	c := NewCluster()
	if err := c.readList(json.NewDecoder(file)); err != nil {
		return nil, fmt.Errorf("not the output of kubectl get pods,services -A -o json: %w", err)
	}
	if c.IsEmpty() {
		return nil, errors.New("no pods with addresses: give the output of kubectl get pods,services -A -o json")
	}
	return c, nil
}

// readList reads a JSON object that has the Kubernetes objects in its field items.
func (c *Cluster) readList(decoder *json.Decoder) error {
	if err := expect(decoder, '{'); err != nil {
		return err
	}
	for decoder.More() {
		field, err := decoder.Token()
		if err != nil {
			return err
		}
		if field != "items" {
			var skipped json.RawMessage
			if err := decoder.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		if err := expect(decoder, '['); err != nil {
			return err
		}
		for decoder.More() {
			var object json.RawMessage
			if err := decoder.Decode(&object); err != nil {
				return err
			}
			if err := c.addJSON(object); err != nil {
				return err
			}
		}
		if err := expect(decoder, ']'); err != nil {
			return err
		}
	}
	return expect(decoder, '}')
}

func expect(decoder *json.Decoder, delimiter json.Delim) error {
	token, err := decoder.Token()
	if err == nil && token != delimiter {
		err = fmt.Errorf("found %v instead of %v", token, delimiter)
	}
	return err
}

// addJSON adds a pod or a Service. It skips other objects.
func (c *Cluster) addJSON(object json.RawMessage) error {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(object, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "Pod":
		var pod corev1.Pod
		if err := json.Unmarshal(object, &pod); err != nil {
			return err
		}
		c.AddPodObject(&pod)
	case "Service":
		var service corev1.Service
		if err := json.Unmarshal(object, &service); err != nil {
			return err
		}
		c.AddServiceObject(&service)
	}
	return nil
}
