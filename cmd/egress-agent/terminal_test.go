package main

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestColoursOnlyOnTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	for _, w := range []io.Writer{null, new(bytes.Buffer)} {
		require.False(t, isTerminal(w))
		require.False(t, takesColour(w))
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("cannot open a terminal: %v", err)
	}
	defer terminal.Close()
	require.True(t, isTerminal(terminal))
	require.True(t, takesColour(terminal))
	t.Setenv("NO_COLOR", "1")
	require.True(t, isTerminal(terminal))
	require.False(t, takesColour(terminal))
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	require.False(t, takesColour(terminal))
}
