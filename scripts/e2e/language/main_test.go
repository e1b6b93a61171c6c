// Package language tests the fields of a policy that need a cluster: the API server's addresses, pods, and the time.
package language

import (
	"testing"

	"egress-agent/scripts/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
