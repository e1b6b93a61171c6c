package policy

// after puts a hint, if there is one, behind a message.
func after(hint string) string {
	if hint == "" {
		return ""
	}
	return "; " + hint
}
