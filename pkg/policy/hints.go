package policy

// after puts a hint, if there is one, behind a message.
func after(hint string) string {
	if hint == "" {
		return ""
	}
	return "; " + hint
}

// nullHint is what to do about null in a field, which is read as a value of the wrong kind: were it read as left
// out, {"ports": null} would open every port.
func nullHint(field string) string {
	switch field {
	case "name", "allowedDestinations", "port", "region":
		return "null is no value; write one"
	}
	return "null is not the same as left out; leave the field out" +
		" (Terraform: jsonencode({for k, v in entry : k => v if v != null}), Helm: {{ with }} or {{ if }})"
}
