package admission

import (
	"net"
	"sync"
)

// maxConnections bounds the memory of idle connections. An HTTP/2 connection takes about 40 kB.
const maxConnections = 512

// LimitConnections returns a listener for a server of NewServer. If a connection exceeds the client's share, the
// listener closes it. See clientShares for the size of a share.
func LimitConnections(listener net.Listener, metrics *Metrics) net.Listener {
	return &limitedListener{listener, newClientShares(maxConnections), metrics}
}

type limitedListener struct {
	net.Listener
	shares  *clientShares
	metrics *Metrics
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := clientAddress(connection.RemoteAddr().String())
		if l.shares.acquire(client, 1) {
			return &limitedConn{Conn: connection, release: sync.OnceFunc(func() { l.shares.release(client, 1) })}, nil
		}
		l.metrics.refused.WithLabelValues(reasonConnections).Inc()
		_ = connection.Close()
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// clientAddress returns the address of a client without its port.
func clientAddress(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
