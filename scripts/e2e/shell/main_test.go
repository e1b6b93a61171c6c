package shell

import (
	"testing"

	"egress-agent/scripts/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
