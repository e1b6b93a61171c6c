package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/policy"
)

func line(t testing.TB, e Entry) string {
	var out bytes.Buffer
	NewLog(&out, "egress-agent", func() time.Time { return time.Unix(1700000000, 0) }).Write(e)
	return out.String()
}

func readAll(t testing.TB, log string) (found []Entry, long int) {
	long, err := Read(strings.NewReader(log), func(e Entry) { found = append(found, e) })
	require.NoError(t, err)
	return found, long
}

// TestReadFindsEntries reads one entry in each form in which a log may have it.
func TestReadFindsEntries(t *testing.T) {
	written := Entry{Event: Written, Namespace: "shop", Name: "web", Cause: "Policy", Change: Change{Opened: []Opening{{To: []string{"10.1.0.0/24"}, Ports: []string{"TCP 5432"}}}}}
	plain := line(t, written)
	quote := func(text string) string {
		encoded, err := json.Marshal(text)
		require.NoError(t, err)
		return string(encoded)
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	w.Write([]byte(plain))
	require.NoError(t, w.Close())
	docker := `{"log":` + quote(plain) + `,"stream":"stdout"}` + "\n"
	for name, log := range map[string]string{
		"plain":               plain,
		"without a line end":  strings.TrimSuffix(plain, "\n"),
		"among others":        "time=x level=INFO msg=running\n" + plain + "{\"msg\": \"audit\"}\n{broken audit\n",
		"text before":         "2026-11-27T10:00:00Z stdout F " + plain,
		"container runtime":   docker,
		"CloudWatch":          `{"events":[{"timestamp":1,"message":` + quote(plain) + `}]}`,
		"wrapped twice":       `{"message":` + quote(docker) + `}`,
		"parsed by a shipper": `{"kubernetes":{"pod":"x"},"log":` + strings.TrimSpace(plain) + `}`,
		"gzip":                compressed.String(),
	} {
		found, long := readAll(t, log)
		require.Zero(t, long, name)
		require.Len(t, found, 1, name)
		require.Equal(t, written.Change, found[0].Change, name)
		require.Equal(t, "shop/web", found[0].Namespace+"/"+found[0].Name, name)
	}
}

func TestReadSkips(t *testing.T) {
	for name, log := range map[string]string{
		"empty": "", "another event": `{"audit": true, "event": "x"}`, "false": `{"audit": false, "event": "written"}`, "wrong types": `{"audit": true, "event": "written", "groups": "x"}`,
		"too deep": `{"a":"{\"a\":\"{\\\"a\\\":\\\"{\\\\\\\"a\\\\\\\":\\\\\\\"{\\\\\\\\\\\\\\\"audit\\\\\\\\\\\\\\\":true,\\\\\\\\\\\\\\\"event\\\\\\\\\\\\\\\":\\\\\\\\\\\\\\\"written\\\\\\\\\\\\\\\"}\\\\\\\"}\\\"}\"}"}`,
		"no text":  string([]byte{0, 1, 2, 0xff, '\n'}),
	} {
		found, _ := readAll(t, log)
		require.Empty(t, found, name)
	}
	found, long := readAll(t, strings.Repeat("x", 3<<20)+line(t, Entry{Event: Written})+line(t, Entry{Event: Deleted}))
	require.Equal(t, 1, long)
	require.Len(t, found, 1, "the line after the long one")
	_, err := Read(strings.NewReader("\x1f\x8bx"), func(Entry) {})
	require.ErrorContains(t, err, "not gzip")
}

func TestEntryHas(t *testing.T) {
	e := Entry{Change: Change{Opened: []Opening{{To: []string{"10.1.0.0/24", "pods app=x"}, Ports: []string{"TCP 443", "UDP 8000-8100"}}}, Closed: []Opening{{To: []string{"10.2.0.0/24"}}}}}
	for _, test := range []struct {
		address  string
		port     uint16
		protocol policy.Protocol
		want     bool
	}{
		{"10.1.0.9", 443, policy.TCP, true}, {"10.1.0.9", 444, policy.TCP, false}, {"10.1.0.9", 443, policy.UDP, false}, {"10.1.0.9", 8100, policy.UDP, true},
		{"10.1.1.9", 443, policy.TCP, false}, {"10.2.0.9", 1, policy.SCTP, true},
	} {
		require.Equal(t, test.want, e.Has(netip.MustParseAddr(test.address), test.port, test.protocol), "%+v", test)
	}
}

// FuzzRead reads hostile logs: it never panics, and each entry that it finds is one.
func FuzzRead(f *testing.F) {
	f.Add([]byte(line(f, Entry{Event: Written})))
	f.Add([]byte(`{"log":"{\"audit\":true,\"event\":\"written\"}"}`))
	f.Add([]byte(`{"events":[{"audit":true,"event":"deleted"}]}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		Read(bytes.NewReader(log), func(e Entry) {
			if !e.isKnown() || !e.Audit {
				t.Fatalf("%+v is no entry", e)
			}
		})
	})
}
