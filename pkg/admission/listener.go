package admission

import (
	"net"
	"sync"
)

// maxConnections bounds what idle connections take: one of HTTP/2 takes about 40 kB.
const maxConnections = 512

// Limit returns a listener for a server of NewServer. It closes a connection at once whose client has more than its share
// of them: a client may have as many as are left.
func Limit(listener net.Listener, metrics *Metrics) net.Listener {
	return &limitedListener{listener, newShares(maxConnections), metrics}
}

type limitedListener struct {
	net.Listener
	shares  *shares
	metrics *Metrics
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := clientOf(connection.RemoteAddr().String())
		if l.shares.take(client, 1) {
			return &limitedConn{Conn: connection, gone: sync.OnceFunc(func() { l.shares.give(client, 1) })}, nil
		}
		l.metrics.refused.WithLabelValues(reasonConnections).Inc()
		_ = connection.Close()
	}
}

type limitedConn struct {
	net.Conn
	gone func()
}

func (c *limitedConn) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// clientOf is the address of a client without its port.
func clientOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
