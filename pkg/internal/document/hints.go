package document

// WithSeparator adds "; " before the hint, so that the result can follow a message. It returns "" for an empty hint.
func WithSeparator(hint string) string {
	if hint == "" {
		return ""
	}
	return "; " + hint
}

// nullHint returns the correction for null in a field. Validate treats null as a value of the wrong kind. If it treated
// null as a missing field, {"ports": null} would open every port.
func nullHint(field string) string {
	switch field {
	case "name", "allowedDestinations", "namespaces", "port", "region":
		return "replace null with a value"
	}
	return "null does not mean left out: remove the field" +
		" (Terraform: jsonencode({for k, v in entry : k => v if v != null}), Helm: {{ with }} or {{ if }})"
}
