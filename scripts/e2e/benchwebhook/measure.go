package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"egress-agent/scripts/e2e/measure"
)

const (
	connections = 16
	rounds      = 5      // of each of the two servers, which take turns
	perRound    = 20_000 // requests

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

// bench has the state that the measurements share.
type bench struct {
	dir, webhook, ranges string
	rows                 [][]string
}

// add appends a row with a time, its floor and their ratio.
func (b *bench) add(name string, figure, floor time.Duration, limit string) {
	ratio := float64(figure) / float64(floor)
	b.rows = append(b.rows, []string{name, rounded(figure), rounded(floor), fmt.Sprintf("%.2f", ratio), limit})
}

// addFigure appends a row without a floor.
func (b *bench) addFigure(name, figure, limit string) {
	b.rows = append(b.rows, []string{name, figure, "", "", limit})
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
	defer webhook.Kill()
	floor, err := b.startFloor()
	if err != nil {
		return err
	}
	defer floor.Kill()
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

// throughput sends load to the two servers in turn, and compares the medians of their times.
func (b *bench) throughput(webhook, floor *process) error {
	request := reviewRequest(seed)
	var figures, floors, cpus, floorCPUs []time.Duration
	for range rounds {
		for _, server := range []struct {
			*process
			totals, cpus *[]time.Duration
		}{{floor, &floors, &floorCPUs}, {webhook, &figures, &cpus}} {
			start, err := server.CPU()
			if err != nil {
				return err
			}
			total, _, err := b.load(server.process, request, connections, perRound, 0)
			if err != nil {
				return err
			}
			end, err := server.CPU()
			if err != nil {
				return err
			}
			*server.totals = append(*server.totals, total/perRound)
			*server.cpus = append(*server.cpus, (end-start)/perRound)
		}
	}
	b.add(fmt.Sprintf("a review of the seed policy, %d connections", connections), measure.Median(figures), measure.Median(floors), "1.25")
	b.add("CPU of the server for it", measure.Median(cpus), measure.Median(floorCPUs), "")
	return nil
}

// latency sends reviews to the two servers in turn. It sends half as many reviews a second as the floor can answer.
func (b *bench) latency(webhook, floor *process) error {
	request := reviewRequest(seed)
	total, _, err := b.load(floor, request, connections, perRound, 0)
	if err != nil {
		return err
	}
	interval := 2 * total / perRound
	var figures, floors [2][]time.Duration // p50 and p99 of each round
	for range rounds {
		for _, server := range []struct {
			*process
			times *[2][]time.Duration
		}{{floor, &floors}, {webhook, &figures}} {
			_, times, err := b.load(server.process, request, connections, perRound, interval)
			if err != nil {
				return err
			}
			server.times[0] = append(server.times[0], times[len(times)/2])
			server.times[1] = append(server.times[1], times[len(times)*99/100])
		}
	}
	rate := fmt.Sprintf("%d reviews a second", time.Second/interval)
	b.add("p50 at "+rate, measure.Median(figures[0]), measure.Median(floors[0]), "")
	b.add("p99 at "+rate, measure.Median(figures[1]), measure.Median(floors[1]), "1.50")
	return nil
}

// large measures the cost of large policies.
func (b *bench) large(webhook, _ *process) error {
	var destinations []string
	for i := range 400 {
		destinations = append(destinations, fmt.Sprintf(`{"name": "db-%d", "cidr": "10.%d.%d.0/24", "ports": [5432, {"port": 8000, "endPort": 8100}]}`, i, i>>7, i<<1&255))
	}
	for _, policy := range []struct{ what, document, limit string }{
		{"a policy of 400 destinations", `{"allowedDestinations": [` + strings.Join(destinations, ",\n") + `]}`, "2ms"},
		{"a policy that names AMAZON everywhere", everywhere, "10ms"},
	} {
		const n = 1000
		start, err := webhook.CPU()
		if err != nil {
			return err
		}
		_, times, err := b.load(webhook, reviewRequest(policy.document), 1, n, 0)
		if err != nil {
			return err
		}
		end, err := webhook.CPU()
		if err != nil {
			return err
		}
		b.addFigure(policy.what+", p50", rounded(times[n/2]), policy.limit)
		b.addFigure(policy.what+", CPU", rounded((end-start)/n), policy.limit)
	}
	return nil
}

// size measures the memory of the webhook after the other measurements, and the size of its file.
func (b *bench) size(webhook, _ *process) error {
	resident, err := webhook.Resident()
	if err != nil {
		return err
	}
	b.addFigure(fmt.Sprintf("resident after %d reviews", 2*rounds*perRound+2000), fmt.Sprintf("%.1f MB", float64(resident)/1e6), "40 MB")
	info, err := os.Stat(b.webhook)
	if err != nil {
		return err
	}
	b.addFigure("the program", fmt.Sprintf("%.2f MB", float64(info.Size())/1e6), "15.5 MB")
	return nil
}
