// Package platform tests the platform's documents against a real control plane.
package platform

import (
	"testing"

	"egress-agent/scripts/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
