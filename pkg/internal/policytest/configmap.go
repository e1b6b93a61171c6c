package policytest

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/policy"
)

// ConfigMap returns a ConfigMap whose policy.json is p.
func ConfigMap(p *policy.Policy) *corev1.ConfigMap {
	destinations := []map[string]any{}
	for _, d := range p.Destinations {
		fields := map[string]any{"name": d.Name}
		if d.Service == "" {
			fields["cidr"] = d.CIDR
		} else {
			fields["awsService"] = d.Service
		}
		if d.Regions != nil {
			fields["regions"] = d.Regions
		}
		var ports []map[string]any
		for _, port := range d.Ports {
			ports = append(ports, map[string]any{"port": port.First, "endPort": port.Last, "protocol": port.Protocol})
		}
		if ports != nil {
			fields["ports"] = ports
		}
		destinations = append(destinations, fields)
	}
	data, err := json.Marshal(map[string]any{"defaultAction": p.DefaultAction, "allowedDestinations": destinations})
	if err != nil {
		panic(err) // strings, numbers and their lists always encode
	}
	return &corev1.ConfigMap{Data: map[string]string{policy.Key: string(data)}}
}
