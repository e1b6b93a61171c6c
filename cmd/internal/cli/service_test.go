package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenNamesFlag(t *testing.T) {
	listener, err := Listen("addr", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	used := listener.Addr().String()
	_, err = Listen("http-addr", used)
	require.EqualError(t, err, "another program uses the port of --http-addr "+used+": stop it, or choose another port")
	_, err = Listen("addr", "127.0.0.1")
	require.EqualError(t, err, "--addr: listen tcp: address 127.0.0.1: missing port in address")
}
