package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProgramsAvoidTemplates limits the size of the programs. text/template calls methods by name, so the linker must
// keep all exported methods: egress-agent would grow from 31 to 49 MB, mostly by client-go. html/template imports
// text/template.
func TestProgramsAvoidTemplates(t *testing.T) {
	for _, program := range []string{"egress-agent", "egress-webhook"} {
		for _, avoided := range []string{"text/template", "html/template"} {
			require.NotContains(t, dependencies(t, program), avoided, "%s must not import %s", program, avoided)
		}
	}
}

// TestWebhookAvoidsClientGo requires that the webhook has no client for the API server, because it needs no access to
// it.
func TestWebhookAvoidsClientGo(t *testing.T) {
	for _, imported := range dependencies(t, "egress-webhook") {
		require.False(t, strings.HasPrefix(imported, "k8s.io/client-go"), imported)
	}
}

// dependencies returns all packages that a program of this repository imports, and the program itself.
func dependencies(t *testing.T, program string) []string {
	output, err := exec.Command("go", "list", "-deps", "../"+program).Output()
	require.NoError(t, err)
	imports := strings.Fields(string(output))
	require.Contains(t, imports, "egress-agent/cmd/"+program)
	return imports
}
