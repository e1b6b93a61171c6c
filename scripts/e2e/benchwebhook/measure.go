package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	connections = 16
	rounds      = 5 // of each of the two servers, in turns
	perRound    = 20_000

	seed = `{
  "defaultAction": "deny",
  "allowedDestinations": [
    {"name": "s3", "awsService": "s3", "regions": ["us-east-1"], "ports": [443]},
    {"name": "database", "cidr": "10.1.0.0/24", "ports": [5432]}
  ]
}
`
	everywhere = `{"allowedDestinations": [{"name": "aws", "awsService": "amazon", "ports": [443]}]}`
)

// bench is what the measurements share.
type bench struct {
	dir, webhook, ranges string
	rows                 []row
}

// add appends a row that sets a time against its floor.
func (b *bench) add(what string, figure, floor time.Duration, limit string) {
	b.rows = append(b.rows, row{what, rounded(figure), rounded(floor), fmt.Sprintf("%.2f", float64(figure)/float64(floor)), limit})
}

func (b *bench) know(what, figure, limit string) {
	b.rows = append(b.rows, row{what: what, figure: figure, limit: limit})
}

func rounded(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(100 * time.Nanosecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func (b *bench) measure(ctx context.Context) error {
	webhook, err := b.startWebhook()
	if err != nil {
		return err
	}
	defer webhook.kill()
	floor, err := b.startFloor()
	if err != nil {
		return err
	}
	defer floor.kill()
	for _, step := range []struct {
		progress string
		do       func(webhook, floor *process) error
	}{
		{"throughput", b.throughput},
		{"latency", b.latency},
		{"large policies", b.large},
		{"size", b.size},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "measuring:", step.progress)
		if err := step.do(webhook, floor); err != nil {
			return fmt.Errorf("%s: %w", step.progress, err)
		}
	}
	return nil
}

// throughput lets the servers take turns, and sets the medians against each other.
func (b *bench) throughput(webhook, floor *process) error {
	request := reviewOf(seed)
	var figures, floors, cpus, floorCPUs []time.Duration
	for range rounds {
		for _, server := range []struct {
			*process
			wholes, cpus *[]time.Duration
		}{{floor, &floors, &floorCPUs}, {webhook, &figures, &cpus}} {
			before, err := server.cpu()
			if err != nil {
				return err
			}
			whole, _, err := b.load(server.process, request, connections, perRound, 0)
			if err != nil {
				return err
			}
			after, err := server.cpu()
			if err != nil {
				return err
			}
			*server.wholes = append(*server.wholes, whole/perRound)
			*server.cpus = append(*server.cpus, (after-before)/perRound)
		}
	}
	b.add(fmt.Sprintf("a review of the seed policy, %d connections", connections), median(figures), median(floors), "1.25")
	b.add("CPU of the server for it", median(cpus), median(floorCPUs), "")
	return nil
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// latency sends half of what the floor can take, to one server and then the other.
func (b *bench) latency(webhook, floor *process) error {
	request := reviewOf(seed)
	whole, _, err := b.load(floor, request, connections, perRound, 0)
	if err != nil {
		return err
	}
	every := 2 * whole / perRound
	var figures, floors [2][]time.Duration // p50 and p99 of each round
	for range rounds {
		for _, server := range []struct {
			*process
			times *[2][]time.Duration
		}{{floor, &floors}, {webhook, &figures}} {
			_, each, err := b.load(server.process, request, connections, perRound, every)
			if err != nil {
				return err
			}
			server.times[0] = append(server.times[0], each[len(each)/2])
			server.times[1] = append(server.times[1], each[len(each)*99/100])
		}
	}
	at := fmt.Sprintf("%d reviews a second", time.Second/every)
	b.add("p50 at "+at, median(figures[0]), median(floors[0]), "")
	b.add("p99 at "+at, median(figures[1]), median(floors[1]), "1.50")
	return nil
}

// large measures what the size of a policy costs.
func (b *bench) large(webhook, _ *process) error {
	var entries []string
	for i := range 400 {
		entries = append(entries, fmt.Sprintf(`{"name": "db-%d", "cidr": "10.%d.%d.0/24", "ports": [5432, {"port": 8000, "endPort": 8100}]}`, i, i>>7, i<<1&255))
	}
	for _, policy := range []struct{ what, document, limit string }{
		{"a policy of 400 entries", `{"allowedDestinations": [` + strings.Join(entries, ",\n") + `]}`, "2ms"},
		{"a policy that names AMAZON everywhere", everywhere, "10ms"},
	} {
		const n = 1000
		before, err := webhook.cpu()
		if err != nil {
			return err
		}
		_, each, err := b.load(webhook, reviewOf(policy.document), 1, n, 0)
		if err != nil {
			return err
		}
		after, err := webhook.cpu()
		if err != nil {
			return err
		}
		b.know(policy.what+", p50", rounded(each[n/2]), policy.limit)
		b.know(policy.what+", CPU", rounded((after-before)/n), policy.limit)
	}
	return nil
}

// size is of memory, with AWS's document read, and of the file.
func (b *bench) size(webhook, _ *process) error {
	resident, err := webhook.resident()
	if err != nil {
		return err
	}
	b.know(fmt.Sprintf("resident after %d reviews", 2*rounds*perRound+2000), fmt.Sprintf("%.1f MB", resident/1e6), "40 MB")
	info, err := os.Stat(b.webhook)
	if err != nil {
		return err
	}
	b.know("the program", fmt.Sprintf("%.2f MB", float64(info.Size())/1e6), "15 MB")
	return nil
}
