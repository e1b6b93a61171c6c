package hostile

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"egress-agent/scripts/e2e/harness"
)

// connection writes HTTP/2 frames one by one, as no well-behaved client does.
type connection struct {
	*tls.Conn
	frames  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	next    uint32 // id of the next stream
}

// dialHTTP2 connects from an address and starts HTTP/2 with the client's settings. It reads nothing.
func (w *webhook) dialHTTP2(ctx context.Context, address string, settings ...http2.Setting) (*connection, error) {
	conn, err := w.dial(ctx, address, "h2")
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, frames: http2.NewFramer(conn, conn), next: 1}
	c.encoder = hpack.NewEncoder(&c.headers)
	if _, err = io.WriteString(conn, http2.ClientPreface); err == nil {
		err = c.frames.WriteSettings(settings...)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// open starts a review without its body, and returns its stream.
func (c *connection) open(endHeaders bool) (stream uint32, err error) {
	c.headers.Reset()
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/validate"}, {"content-type", "application/json"}} {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return 0, err
		}
	}
	stream = c.next
	c.next += 2
	return stream, c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.headers.Bytes(), EndHeaders: endHeaders})
}

// discard reads and drops what the webhook sends, until the connection closes.
func (c *connection) discard() { go func() { _, _ = io.Copy(io.Discard, c.Conn) }() }

// slowStreams sends a byte a second on 100 streams of each of 20 connections.
func slowStreams(t *testing.T, w *webhook) {
	strangers(t, w, 20, 4, func(ctx context.Context, address string) {
		c, err := w.dialHTTP2(ctx, address)
		if err != nil {
			return
		}
		defer c.Close()
		c.discard()
		var streams []uint32
		for range 100 {
			stream, err := c.open(true)
			if err != nil {
				return
			}
			streams = append(streams, stream)
		}
		for ctx.Err() == nil {
			for _, stream := range streams {
				if c.frames.WriteData(stream, false, []byte("{")) != nil {
					return
				}
			}
			pause(ctx, time.Second)
		}
	})
}

// maxConnections is the number of connections that the webhook serves at once (see pkg/admission), plus some for its
// other files.
const maxConnections = 512 + 64

// idle opens 7,000 connections, as many at a time as possible, and sends nothing on them.
func idle(t *testing.T, w *webhook) {
	connections := 1500
	if harness.RunsAll() {
		connections = 7000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*lasting())
	defer cancel()
	var mu sync.Mutex
	var open []*connection
	var dialing sync.WaitGroup
	for i := range connections {
		dialing.Go(func() {
			if c, err := w.dialHTTP2(ctx, fmt.Sprintf("%s%d", stranger, 1+i%4)); err == nil {
				mu.Lock()
				defer mu.Unlock()
				open = append(open, c)
			}
		})
	}
	dialing.Wait()
	files := 0.0
	if w.Ended() == "" {
		files = w.metric(t, "process_open_fds")
	}
	t.Logf("%d of %d connections were opened, %.0f files are open", len(open), connections, files)
	for _, c := range open {
		c.Close()
	}
	assert.LessOrEqual(t, files, float64(maxConnections), "connections at once")
}

// rapidReset opens streams and resets each at once, as in CVE-2023-44487.
func rapidReset(t *testing.T, w *webhook) {
	strangers(t, w, 8, 4, func(ctx context.Context, address string) {
		c, err := w.dialHTTP2(ctx, address)
		if err != nil {
			return
		}
		defer c.Close()
		c.discard()
		for ctx.Err() == nil {
			stream, err := c.open(true)
			if err != nil || c.frames.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
				return
			}
		}
	})
}

// endlessHeaders continues a header as long as the webhook reads it, as in CVE-2023-45288.
func endlessHeaders(t *testing.T, w *webhook) {
	fragment := bytes.Repeat([]byte{0x00, 0x01, 'x', 0x01, 'y'}, 3000) // a header field "x: y" that is not indexed
	strangers(t, w, 16, 4, func(ctx context.Context, address string) {
		c, err := w.dialHTTP2(ctx, address)
		if err != nil {
			return
		}
		defer c.Close()
		c.discard()
		stream, err := c.open(false)
		for err == nil && ctx.Err() == nil {
			err = c.frames.WriteContinuation(stream, false, fragment)
		}
	})
}

// unread asks for long answers on 100 streams of each of 20 connections, and reads none.
func unread(t *testing.T, w *webhook) {
	body := Review(UnknownFields(300))
	strangers(t, w, 20, 4, func(ctx context.Context, address string) {
		c, err := w.dialHTTP2(ctx, address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		if err != nil {
			return
		}
		defer c.Close()
		for range 100 {
			stream, err := c.open(true)
			if err != nil || c.frames.WriteData(stream, true, []byte(body)) != nil {
				return
			}
		}
		<-ctx.Done()
	})
}

func pings(t *testing.T, w *webhook) {
	strangers(t, w, 8, 4, func(ctx context.Context, address string) {
		c, err := w.dialHTTP2(ctx, address)
		if err != nil {
			return
		}
		defer c.Close()
		for ctx.Err() == nil { // it does not read the answers
			if c.frames.WritePing(false, [8]byte{}) != nil || c.frames.WriteSettings() != nil {
				return
			}
		}
	})
}
