package flows

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// textOf returns the flows in one line each, and the lines of the summary.
func textOf(l *Log) string {
	var b strings.Builder
	for _, f := range l.TakeFlows() {
		fmt.Fprintf(&b, "%s > %s %s/%d accepted %d denied %d", f.Source, f.Destination, f.Protocol, f.Port, f.Accepted, f.Denied)
		if f.First != 0 {
			fmt.Fprintf(&b, " %s %s", time.Unix(f.First, 0).UTC().Format(time.DateTime), time.Unix(f.Last, 0).UTC().Format(time.DateTime))
		}
		b.WriteString("\n")
	}
	for _, line := range l.Summary() {
		b.WriteString("# " + line + "\n")
	}
	return b.String()
}

// TestFormats reads each file of testdata, and compares its flows with the golden beside it. UPDATE_GOLDEN=1 rewrites the
// goldens.
func TestFormats(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.log")
	require.NoError(t, err)
	require.Greater(t, len(paths), 10)
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			var l Log
			require.NoError(t, l.Read(bytes.NewReader(data)))
			got := textOf(&l)
			golden := strings.TrimSuffix(path, ".log") + ".flows"
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
			require.NotZero(t, l.Records()+l.Skipped(NoRecord))

			var compressed bytes.Buffer
			zipped := gzip.NewWriter(&compressed)
			_, _ = zipped.Write(data)
			require.NoError(t, zipped.Close())
			var fromGzip Log
			require.NoError(t, fromGzip.Read(&compressed))
			require.Equal(t, string(want), textOf(&fromGzip))
		})
	}
}

const agentLine = `{"level":"info","ts":"2026-01-23T12:36:53.562Z","logger":"ebpf-client","msg":"Flow Info:  ","Src IP":"10.0.1.5","Src Port":39197,"Dest IP":"198.51.100.9","Dest Port":443,"Proto":"TCP","Verdict":"ACCEPT"}`

// TestOneLongLine reads thousands of records in one line, as an API prints them, in pieces of any size.
func TestOneLongLine(t *testing.T) {
	const count = 4000
	var b strings.Builder
	b.WriteString(`{"events":[`)
	for i := range count {
		fmt.Fprintf(&b, `{"timestamp":1769171813562,"message":"Node: n;SIP: 10.0.1.5;SPORT: 39197;DIP: 198.51.%d.%d;DPORT: 443;PROTOCOL: TCP;PolicyVerdict: ACCEPT;Tier: NETWORK_POLICY"},`, i>>8, i&255)
	}
	text := b.String() + `]}`
	for _, size := range []int{1, 4096, 1 << 20} {
		var l Log
		require.NoError(t, l.Read(onlyReader{strings.NewReader(text), size}))
		require.EqualValues(t, count, l.Records(), "%d bytes a read", size)
		require.Len(t, l.TakeFlows(), count)
		require.Len(t, l.Summary(), 1, l.Summary())
	}
}

// onlyReader returns at most size bytes a read.
type onlyReader struct {
	io.Reader
	size int
}

func (r onlyReader) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size)]) }

// TestBadFiles reads what is no log. It must end, take bounded memory, and say what it left out.
func TestBadFiles(t *testing.T) {
	t.Run("cut gzip", func(t *testing.T) {
		var compressed bytes.Buffer
		zipped := gzip.NewWriter(&compressed)
		for i := range 5000 {
			fmt.Fprintln(zipped, strings.Replace(agentLine, "198.51.100.9", fmt.Sprintf("198.51.%d.%d", i>>8, i&255), 1))
		}
		require.NoError(t, zipped.Close())
		var l Log
		err := l.Read(bytes.NewReader(compressed.Bytes()[:compressed.Len()*2/3]))
		require.EqualError(t, err, "the file is cut: its compressed data ends too early")
		require.Greater(t, l.Records(), int64(1000), "the records before count")
	})
	t.Run("only the head of gzip", func(t *testing.T) {
		require.ErrorContains(t, new(Log).Read(bytes.NewReader([]byte{0x1f, 0x8b})), "not a gzip file")
	})
	t.Run("empty", func(t *testing.T) {
		var l Log
		require.NoError(t, l.Read(strings.NewReader("")))
		require.Equal(t, []string{"records: 0, distinct flows: 0"}, l.Summary())
	})
	t.Run("binary", func(t *testing.T) {
		var l Log
		require.NoError(t, l.Read(bytes.NewReader(bytes.Repeat([]byte{0, 255, 10, 1}, 100000))))
		require.Zero(t, l.Records())
		require.EqualValues(t, 100001, l.Skipped(NoRecord))
	})
	t.Run("one line of 100 MB", func(t *testing.T) {
		var l Log
		require.NoError(t, l.Read(io.LimitReader(endless{}, 100<<20)))
		require.Zero(t, l.Records())
		require.EqualValues(t, 1, l.Skipped(NoRecord))
	})
	t.Run("more flows than the bound", func(t *testing.T) {
		l := Log{seen: make(map[key]counts, maxSeen)}
		for i := range maxSeen {
			l.seen[key{port: uint16(i), source: [16]byte{byte(i >> 16), byte(i >> 24)}, protocol: 3}] = counts{}
		}
		for i := 0; len(l.seen) < maxSeen; i++ {
			l.seen[key{port: uint16(i), source: [16]byte{1, 2, 3, byte(i >> 16)}, protocol: 4}] = counts{}
		}
		require.NoError(t, l.Read(strings.NewReader(agentLine+"\n"+agentLine)))
		require.EqualValues(t, 2, l.Skipped(TooMany))
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestFormatIsGiven(t *testing.T) {
	const vpc = "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 39751 443 6 20 4249 1418530010 1418530070 ACCEPT OK"
	for _, test := range []struct {
		format Format
		text   string
		count  int64
	}{{Agent, agentLine, 1}, {VPC, agentLine, 0}, {Hubble, agentLine, 0}, {VPC, vpc, 1}, {Agent, vpc, 0}, {Hubble, vpc, 0}, {Auto, vpc, 1}} {
		l := Log{Format: test.format}
		require.NoError(t, l.Read(strings.NewReader(test.text)))
		require.Equal(t, test.count, l.Records(), "%s: %s", test.format, test.text)
	}
}

// FuzzRead reads any text. It never panics, and every record is a flow or counted.
func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.log")
	require.NoError(f, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var l Log
		_ = l.Read(bytes.NewReader(data))
		var sum int64
		for _, flow := range l.TakeFlows() {
			sum += flow.Accepted + flow.Denied
			require.NotZero(t, flow.Port)
			require.True(t, flow.Source.IsValid() && flow.Destination.IsValid())
			require.GreaterOrEqual(t, flow.Last, flow.First)
		}
		require.Equal(t, l.Records(), sum)
		var again Log
		_ = again.Read(bytes.NewReader(data))
		require.Equal(t, l.Summary(), again.Summary())
	})
}

// BenchmarkRead reads a hundred thousand lines of the node agent. The floor counts the lines and decodes the JSON of
// each. The figure must be at most 1.5 times the floor.
func BenchmarkRead(b *testing.B) {
	var text bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&text, `{"level":"debug","ts":"2026-01-23T12:36:53.562Z","caller":"events/events.go:193","msg":"Flow Info: Src IP: 10.0.1.%d Src Port: 39197 Dest IP: 198.51.%d.%d Dest Port: 443 Proto TCP Verdict ACCEPT Direction egress, Tier NETWORK_POLICY"}`+"\n", i%250, i>>8&255, i&255)
	}
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(int64(text.Len()))
		for b.Loop() {
			lines := bufio.NewScanner(bytes.NewReader(text.Bytes()))
			count := bytes.Count(text.Bytes(), []byte("\n"))
			for lines.Scan() {
				var object map[string]any
				require.NoError(b, json.Unmarshal(lines.Bytes(), &object))
				count--
			}
			require.Zero(b, count)
		}
	})
	b.Run("figure", func(b *testing.B) {
		b.SetBytes(int64(text.Len()))
		for b.Loop() {
			var l Log
			require.NoError(b, l.Read(bytes.NewReader(text.Bytes())))
			require.EqualValues(b, 100_000, l.Records())
		}
	})
}

func TestReadCluster(t *testing.T) {
	const list = `{"apiVersion": "v1", "kind": "List", "items": [
		{"kind": "Pod", "metadata": {"namespace": "shop", "name": "web-1", "labels": {"app": "web"}}, "spec": {}, "status": {"podIPs": [{"ip": "10.0.1.5"}, {"ip": "2001:db8::5"}]}},
		{"kind": "Pod", "metadata": {"namespace": "kube-system", "name": "proxy"}, "spec": {"hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}},
		{"kind": "Pod", "metadata": {"namespace": "shop", "name": "pending"}, "status": {}},
		{"kind": "Service", "metadata": {"namespace": "shop", "name": "db"}, "spec": {"selector": {"app": "db"}, "clusterIPs": ["172.20.0.9"], "ports": [{"port": 80, "targetPort": 5432}, {"port": 81, "targetPort": "named"}, {"port": 82}]}},
		{"kind": "Service", "metadata": {"namespace": "shop", "name": "headless"}, "spec": {"clusterIPs": ["None"]}},
		{"kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "x"}}]}`
	c, err := ReadCluster(strings.NewReader(list))
	require.NoError(t, err)
	require.Equal(t, "shop", c.NamespaceOf(netip.MustParseAddr("2001:db8::5")))
	require.Empty(t, c.NamespaceOf(netip.MustParseAddr("10.0.0.1")), "the address of a node")
	service, ok := c.ServiceOf(netip.MustParseAddr("172.20.0.9"))
	require.True(t, ok)
	require.Equal(t, Service{"shop", "db", map[string]string{"app": "db"}, map[uint16]uint16{80: 5432}}, service)
	require.EqualValues(t, 5432, c.PortOf(Flow{Destination: netip.MustParseAddr("172.20.0.9"), Port: 80}))
	require.EqualValues(t, 81, c.PortOf(Flow{Destination: netip.MustParseAddr("172.20.0.9"), Port: 81}))
	for text, message := range map[string]string{
		"":                "not the output of kubectl get pods,services -A -o json: EOF",
		`{"items": []}`:   "no pods with addresses: give the output of kubectl get pods,services -A -o json",
		"NAME READY\nx 1": "not the output of kubectl get pods,services -A -o json: invalid character 'N' looking for beginning of value",
	} {
		_, err := ReadCluster(strings.NewReader(text))
		require.EqualError(t, err, message)
	}
}
