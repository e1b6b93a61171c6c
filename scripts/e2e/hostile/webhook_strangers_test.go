package hostile

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"egress-agent/scripts/e2e/harness"
)

// sent are attacks by a Pod that reaches port 8443. Each lasts as long as lasting, or until the webhook has closed its
// last connection. They come from other addresses than the API server's.
var sent = []struct {
	name  string
	short bool
	do    func(t *testing.T, w *webhook)
}{
	{"64 connections claim up to 3 MiB and send none", true, claims},
	{"200 slow bodies, HTTP/1.1", false, func(t *testing.T, w *webhook) { slowBodies(t, w, 200) }},
	{"2,000 slow bodies, HTTP/2", false, slowStreams},
	{"7,000 idle HTTP/2 connections", true, idle},
	{"streams opened and reset", false, rapidReset},
	{"headers of 1 MiB", false, hugeHeaders},
	{"headers that never end, HTTP/2", false, endlessHeaders},
	// These came later than the first list:
	{"96 bodies of 2.9 MiB that stop before the end", false, func(t *testing.T, w *webhook) { stoppedBodies(t, w, 96) }},
	{"2,000 connections without a handshake", false, noHandshake},
	{"answers that nobody reads", false, unread},
	{"expensive reviews from 16 addresses", true, expensive},
	{"pings and settings without end", false, pings},
}

// lasting is the duration of an attack without an end of its own. It is longer than the webhook waits for a request.
func lasting() time.Duration {
	if harness.RunsAll() {
		return 6 * time.Second
	}
	return 3 * time.Second
}

// TestHostileWebhookSent runs each attack beside the API server's reviews.
func TestHostileWebhookSent(t *testing.T) {
	t.Parallel()
	for _, attack := range sent {
		if !attack.short && !harness.RunsAll() {
			continue
		}
		t.Run(attack.name, func(t *testing.T) {
			w := startWebhook(t)
			w.withstands(t, attack.name, func() { attack.do(t, w) })
		})
	}
}

// strangers runs n attackers in parallel, from so many addresses, until the context ends. An attack restarts as soon as
// the webhook closes its connection. No connection outlives the context.
func strangers(t *testing.T, w *webhook, n, addresses int, attack func(ctx context.Context, address string)) {
	ctx, cancel := context.WithTimeout(t.Context(), lasting())
	defer cancel()
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			for ctx.Err() == nil && w.Ended() == "" {
				attack(ctx, fmt.Sprintf("%s%d", stranger, 1+i%addresses))
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	running.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

const head = "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"

const claimed = 3 << 20

// claims sends only headers. It claims random sizes, so that it also takes memory that is too small for some of its
// claims.
func claims(t *testing.T, w *webhook) {
	strangers(t, w, 64, 1, func(ctx context.Context, address string) {
		connection, err := w.dial(ctx, address)
		if err != nil {
			return
		}
		defer connection.Close()
		fmt.Fprintf(connection, head+"\r\n", 1+rand.IntN(claimed))
		_, _ = io.Copy(io.Discard, connection)
	})
}

func slowBodies(t *testing.T, w *webhook, n int) {
	strangers(t, w, n, 4, func(ctx context.Context, address string) {
		connection, err := w.dial(ctx, address)
		if err != nil {
			return
		}
		defer connection.Close()
		fmt.Fprintf(connection, head+"\r\n", claimed)
		for ctx.Err() == nil {
			if _, err := connection.Write([]byte("{")); err != nil {
				return
			}
			pause(ctx, time.Second)
		}
	})
}

func stoppedBodies(t *testing.T, w *webhook, n int) {
	body := make([]byte, claimed-100<<10)
	strangers(t, w, n, 4, func(ctx context.Context, address string) {
		connection, err := w.dial(ctx, address)
		if err != nil {
			return
		}
		defer connection.Close()
		fmt.Fprintf(connection, head+"\r\n", claimed)
		_, _ = connection.Write(body)
		_, _ = io.Copy(io.Discard, connection)
	})
}

func hugeHeaders(t *testing.T, w *webhook) {
	line := make([]byte, 1<<10)
	for i := range line {
		line[i] = 'a'
	}
	strangers(t, w, 64, 4, func(ctx context.Context, address string) {
		connection, err := w.dial(ctx, address)
		if err != nil {
			return
		}
		defer connection.Close()
		fmt.Fprintf(connection, head, claimed)
		for i := range 1 << 10 {
			if _, err := fmt.Fprintf(connection, "X-%d: %s\r\n", i, line); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, connection)
	})
}

func noHandshake(t *testing.T, w *webhook) {
	strangers(t, w, 2000, 4, func(ctx context.Context, address string) {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		connection, err := dialer.DialContext(ctx, "tcp", w.Address)
		if err != nil {
			return
		}
		defer connection.Close()
		defer context.AfterFunc(ctx, func() { connection.Close() })()
		_, _ = io.Copy(io.Discard, connection)
	})
}

// expensive sends reviews within the limits of a policy from 16 addresses, four at a time from each.
func expensive(t *testing.T, w *webhook) {
	body := Review(Subsets(1000, 20))
	clients := make(map[string]*http.Client)
	for i := range 16 {
		address := fmt.Sprintf("%s%d", stranger, 1+i)
		clients[address] = w.client(t, address)
	}
	strangers(t, w, 64, 16, func(ctx context.Context, address string) { _, _ = w.Ask(ctx, clients[address], body) })
}
