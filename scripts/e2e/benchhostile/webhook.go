package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"egress-agent/scripts/e2e/hostile"
)

const (
	repetitions = 20
	maxDocument = 256 << 10 // of policy.json
	maxCPU      = "60 ms"
	maxMemory   = "24 MB"
)

// documents are the worst policies within the limits of 1,000 destinations and 256 KiB.
var documents = []struct{ name, policy string }{
	{"1,000 × amazon everywhere", hostile.Amazon(1000)},
	{"1,000 × amazon, each with another port", hostile.AmazonPorts(1000, 0)},
	{"1,000 sets of regions of amazon", hostile.Subsets(1000, 1)},
	{"1,000 sets of regions, 20 of ports", hostile.Subsets(1000, 20)},
	{"18,000 repeated regions", hostile.RepeatedRegions(18_000)},
	{"1,000 CIDRs", hostile.CIDRs(1000, 0)},
	{"1,000 nested CIDRs", hostile.NestedCIDRs(1000)},
	{"40,000 ports", hostile.Ports(40_000)},
	{"1,000 empty destinations", hostile.Empty(1000)},
	{"18,000 unknown fields", hostile.UnknownFields(18_000)},
	{"17,000 unknown regions", hostile.UnknownRegions(17_000)},
	{"1,000 unknown services", hostile.UnknownServices(1000)},
	{"lists 130,000 deep", hostile.Nested(130_000)},
}

func (b *bench) webhook(ctx context.Context) error {
	for _, d := range documents {
		if len(d.policy) > maxDocument {
			return fmt.Errorf("%s: %d bytes are over the limit of a policy", d.name, len(d.policy))
		}
		fmt.Fprintln(os.Stderr, "measuring the webhook:", d.name)
		figure, err := b.cost(ctx, hostile.Review(d.policy))
		if err != nil {
			return err
		}
		floor, err := b.cost(ctx, hostile.ReviewOf(d.policy, `"labels":{}`, ""))
		if err != nil {
			return err
		}
		b.rows = append(b.rows,
			[]string{d.name + ", CPU", figure.cpu, floor.cpu, maxCPU},
			[]string{d.name + ", memory above idle", figure.memory, floor.memory, maxMemory})
	}
	return nil
}

// cost is the CPU time and the memory of a review, as texts for the table.
type cost struct{ cpu, memory string }

// cost measures a review on a new webhook: its CPU time, and the peak resident size above the size after small reviews.
// If the webhook ends, cost returns no error: the text of both figures is then how the webhook ended.
func (b *bench) cost(ctx context.Context, body string) (cost, error) {
	container, err := b.container("webhook")
	if err != nil {
		return cost{}, err
	}
	program, log := filepath.Join(b.programs, "egress-webhook"), filepath.Join(b.dir, "webhook.log")
	w, err := hostile.StartWebhook(container, program, b.dir, b.ranges, log)
	if err != nil {
		return cost{}, err
	}
	defer w.Kill()
	client := w.Client("127.0.0.1")
	if err := ask(ctx, w, client, hostile.Review(hostile.Small(0)), 10*repetitions); err != nil {
		return cost{}, err
	}
	idle, err := w.ResetPeak()
	if err != nil {
		return cost{}, err
	}
	start, err := w.CPU()
	if err != nil {
		return cost{}, err
	}
	err = ask(ctx, w, client, body, repetitions)
	if ended := w.Ended(); ended != "" {
		return cost{ended, ended}, ctx.Err()
	}
	if err != nil {
		return cost{}, err
	}
	end, err := w.CPU()
	if err != nil {
		return cost{}, err
	}
	return cost{((end - start) / repetitions).Round(100 * time.Microsecond).String(), megabytes(w.Peak() - idle)}, nil
}

// ask sends a review count times.
func ask(ctx context.Context, w *hostile.Webhook, client *http.Client, body string, count int) error {
	for range count {
		if _, err := w.Ask(ctx, client, body); err != nil {
			time.Sleep(200 * time.Millisecond) // if the kernel has killed the webhook, Ended then reports that
			return err
		}
	}
	return nil
}
