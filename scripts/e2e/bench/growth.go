package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"egress-agent/scripts/e2e/cluster"
	"egress-agent/scripts/e2e/measure"
)

// extrapolated is the number of policies for which growth only extrapolates.
const extrapolated = 100_000

// series are the figures of one quantity, for each number of policies.
type series struct {
	name   string
	format func(float64) string
	values []float64
}

// growth measures the same agent with more and more policies. counts are the numbers of policies, in ascending order.
// Each number has a row: the first convergence and a restart, each beside a bare client that does only the necessary
// requests. The last two rows have the exponents between the two largest numbers, and the extrapolation. After an error,
// growth returns the rows so far.
func (b *bench) growth(ctx context.Context, counts []int) ([]string, [][]string, error) {
	inSeconds := func(s float64) string { return fmt.Sprintf("%.2f s", s) }
	all := []*series{
		{name: "FIRST CONVERGENCE", format: inSeconds},
		{name: "BARE CLIENT", format: inSeconds},
		{name: "CPU OF THE AGENT", format: inSeconds},
		{name: "OF THE API SERVER", format: inSeconds},
		{name: "OF ETCD", format: inSeconds},
		{name: "PEAK", format: megabytes},
		{name: "RESTART", format: inSeconds},
		{name: "BARE LIST", format: inSeconds},
		{name: "ALIVE", format: megabytes},
		{name: "RESIDENT", format: megabytes},
	}
	header := []string{"POLICIES"}
	for _, s := range all {
		header = append(header, s.name)
	}
	var rows [][]string
	for _, n := range counts {
		fmt.Fprintln(os.Stderr, "measuring:", n, "policies")
		values, err := b.grow(ctx, n)
		if err != nil {
			return header, rows, fmt.Errorf("%d policies: %w", n, err)
		}
		row := []string{strconv.Itoa(n)}
		for i, s := range all {
			s.values = append(s.values, values[i])
			row = append(row, s.format(values[i]))
		}
		rows = append(rows, row)
		fmt.Fprintln(os.Stderr, strings.Join(row, "  "))
	}
	if len(counts) < 2 {
		return header, rows, nil
	}
	last := len(counts) - 1
	exponents := []string{fmt.Sprintf("exponent from %d on", counts[last-1])}
	estimates := []string{fmt.Sprintf("%d, extrapolated", extrapolated)}
	for _, s := range all {
		exponent := exponentOf(counts[last-1], counts[last], s.values[last-1], s.values[last])
		exponents = append(exponents, fmt.Sprintf("%.2f", exponent))
		estimates = append(estimates, s.format(s.values[last]*math.Pow(float64(extrapolated)/float64(counts[last]), exponent)))
	}
	return header, append(rows, exponents, estimates), nil
}

// exponentOf returns the exponent e of the power law value = c * count^e through two points.
func exponentOf(smaller, larger int, ofSmaller, ofLarger float64) float64 {
	return math.Log(ofLarger/ofSmaller) / math.Log(float64(larger)/float64(smaller))
}

// grow creates policies until there are n, and returns the figures in the order of the columns of growth.
func (b *bench) grow(ctx context.Context, n int) ([]float64, error) {
	if err := b.createPolicies(ctx, b.next, n); err != nil {
		return nil, err
	}
	b.next = n
	b.size.times = 1
	if n <= 5000 { // short measurements vary more
		b.size.times = 3
	}
	var times, floors, agents, apiservers, etcds []time.Duration
	var peak, resident int64
	var restart, listed time.Duration
	var heap float64
	for round := range b.size.times {
		mark, err := b.control.Mark()
		if err != nil {
			return nil, err
		}
		start, err := b.control.CPU()
		if err != nil {
			return nil, err
		}
		var p *measure.Agent
		figure, err := b.timeToCreate(ctx, n, func() (err error) { p, err = b.start(); return err })
		if err != nil {
			return nil, err
		}
		end, err := b.control.CPU()
		if err != nil {
			return nil, err
		}
		agent, err := p.CPU()
		if err != nil {
			return nil, err
		}
		if peak, err = p.Peak(); err != nil {
			return nil, err
		}
		if err := p.Stop(); err != nil {
			return nil, err
		}
		if err := b.checkWrites(mark, n); err != nil {
			return nil, err
		}
		if round == b.size.times-1 { // the NetworkPolicies of the last round serve the restart
			var p *measure.Agent
			if p, restart, listed, _, err = b.restarts(ctx, n); err != nil {
				return nil, err
			}
			if heap, err = b.liveHeap(ctx, p); err != nil {
				return nil, err
			}
			if resident, err = p.Resident(); err != nil {
				return nil, err
			}
			if err := p.Stop(); err != nil {
				return nil, err
			}
		}
		floor, err := b.timeToCopy(ctx, n)
		if err != nil {
			return nil, err
		}
		used := end.Sub(start)
		times, floors, agents = append(times, figure), append(floors, floor), append(agents, agent)
		apiservers, etcds = append(apiservers, used.APIServer), append(etcds, used.Etcd)
	}
	var values []float64
	for _, durations := range [][]time.Duration{times, floors, agents, apiservers, etcds} {
		values = append(values, measure.Median(durations).Seconds())
	}
	return append(values, float64(peak), restart.Seconds(), listed.Seconds(), heap, float64(resident)), nil
}

// timeToCopy deletes the n NetworkPolicies, and returns the time in which a bare client creates the same ones. Then it
// deletes these.
func (b *bench) timeToCopy(ctx context.Context, n int) (time.Duration, error) {
	list, err := b.client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	if len(list.Items) != n {
		return 0, fmt.Errorf("there are %d NetworkPolicies of %d policies", len(list.Items), n)
	}
	if err := b.deletePolicies(ctx); err != nil {
		return 0, err
	}
	floor, err := b.timeToCreate(ctx, n, func() error { return b.create(ctx, list.Items) })
	if err != nil {
		return 0, err
	}
	return floor, b.deletePolicies(ctx)
}

// checkWrites returns an error unless the agent has created n NetworkPolicies since mark, and written no other.
func (b *bench) checkWrites(mark cluster.Mark, n int) error {
	writes, err := b.control.Writes(mark, "egress-agent")
	if err != nil {
		return err
	}
	writes = slices.DeleteFunc(writes, func(write string) bool { return !strings.Contains(write, " networkpolicies ") })
	for _, write := range writes {
		if !strings.HasPrefix(write, "create ") || strings.HasSuffix(write, cluster.Failed) {
			return fmt.Errorf("the agent sent an unnecessary write: %s", write)
		}
	}
	if len(writes) != n {
		return fmt.Errorf("the agent created %d NetworkPolicies for %d policies", len(writes), n)
	}
	return nil
}
