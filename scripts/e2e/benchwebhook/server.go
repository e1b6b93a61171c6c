package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"egress-agent/scripts/e2e/measure"
)

// process is a running server.
type process struct {
	*measure.Process
	address string
}

func (b *bench) startWebhook() (*process, error) {
	health, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	return b.start(b.webhook, "--addr", "--ranges-file", b.ranges, "--ip-family", "ipv4", "--http-addr", health,
		"--tls-cert-file", filepath.Join(b.dir, "tls.crt"), "--tls-key-file", filepath.Join(b.dir, "tls.key"))
}

func (b *bench) startFloor() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.start(self, "--floor", "--certs", b.dir)
}

// start starts a program, and waits until it answers a review. addressFlag is the program's flag for its address.
func (b *bench) start(program, addressFlag string, args ...string) (*process, error) {
	address, err := measure.FreeAddress()
	if err != nil {
		return nil, err
	}
	started, err := measure.Start(b.dir, program, nil, append([]string{addressFlag, address}, args...)...)
	if err != nil {
		return nil, err
	}
	p := &process{started, address}
	for range 500 {
		if c, err := b.dial(p); err == nil {
			defer c.Close()
			_, err := c.ask(reviewRequest(seed))
			return p, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.Kill()
	data, _ := os.ReadFile(p.Log)
	return nil, fmt.Errorf("%s does not answer: %s", program, data)
}
