package policytest

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"egress-agent/pkg/internal/prefixes"
	"egress-agent/pkg/policy"
)

// ConfigMap returns a ConfigMap whose policy.json is p.
func ConfigMap(p *policy.Policy) *corev1.ConfigMap {
	destinations := []map[string]any{}
	for _, d := range p.Destinations {
		fields := map[string]any{"name": d.Name}
		switch {
		case d.CIDR.IsValid():
			fields["cidr"] = d.CIDR
		case d.Service != "":
			fields["awsService"] = d.Service
		case d.Pods != nil:
			fields["pods"] = d.Pods.Labels
			if d.Pods.Labels == nil {
				fields["pods"] = map[string]string{}
			}
			if d.Pods.Namespace != "" {
				fields["namespace"] = d.Pods.Namespace
			}
		case d.Domain != "":
			fields["domain"] = d.Domain
		default:
			fields["entity"] = d.Entity
		}
		if d.Except != nil {
			fields["except"] = slices.Compact(slices.SortedFunc(slices.Values(d.Except), prefixes.Compare)) // a document has each once
		}
		if d.Without != nil {
			fields["without"] = d.Without
		}
		if d.Regions != nil {
			fields["regions"] = d.Regions
		}
		if !d.Expires.IsZero() {
			fields["expires"] = d.Expires
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
	document := map[string]any{"defaultAction": p.DefaultAction, "allowedDestinations": destinations}
	if p.PodSelector != nil {
		document["podSelector"] = p.PodSelector
	}
	data, err := json.Marshal(document)
	if err != nil {
		panic(err) // strings, numbers and their lists always encode
	}
	return &corev1.ConfigMap{Data: map[string]string{policy.Key: string(data)}}
}
