package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/status"
)

// TestStatusEscapesNames uses names that no API server accepts. A hostile server or proxy can still answer with them.
func TestStatusEscapesNames(t *testing.T) {
	const name = "::error::\x1b[31m\u009b\u202e##[error]<b>\ufffd\n::error::\t"
	r := &status.Report{Cluster: name, Ranges: &status.Ranges{Source: name, SyncToken: name, Refused: name}, Policies: []status.Policy{{
		Namespace: name, Name: name, State: status.Pending, Messages: []string{name}, NetworkPolicy: name, DefaultAction: "deny",
		Destinations:  []status.Destination{{Name: name, CIDR: name, Ports: []string{name}}, {Name: "s", Service: name, Regions: []string{name}}},
		OtherPolicies: []status.OtherPolicy{{Name: name, PodSelector: name}},
	}}}
	for _, format := range []string{"text", "wide", "json", "html"} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 1, writeReport(r, nil, format, "p", &stdout, &stderr))
		require.NotEmpty(t, stdout.String())
		for _, line := range strings.Split(stdout.String()+stderr.String(), "\n") {
			for _, c := range strings.TrimRight(line, " ") {
				require.True(t, strconv.IsPrint(c) && c != utf8.RuneError, "%s prints %U: %q", format, c, line)
			}
			require.False(t, strings.HasPrefix(strings.TrimSpace(line), "::"), "%s: %q", format, line)
			if format != "html" {
				require.NotContains(t, line, "##[", format)
			}
			require.False(t, format == "html" && strings.Contains(line, "<b>"))
		}
	}
}
