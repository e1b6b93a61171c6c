package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"egress-agent/pkg/internal/document"
)

func TestValidateReturnsPolicy(t *testing.T) {
	data, err := os.ReadFile("../../testdata/policy/valid/seed.json")
	require.NoError(t, err)
	document, problems := Parse(data)
	require.Empty(t, problems)
	p, problems := Validate(document, Names{})
	require.Empty(t, problems)
	require.Equal(t, &Policy{DefaultAction: Deny, Destinations: []Destination{
		{Name: "s3", Service: "s3", Regions: []string{"us-east-1"}, Ports: []Port{{TCP, 443, 443}}},
		{Name: "db", CIDR: p.Destinations[1].CIDR, Ports: []Port{{TCP, 5432, 5432}, {UDP, 53, 53}, {TCP, 8000, 8100}}},
	}}, p)
	require.Equal(t, "10.1.0.0/24", p.Destinations[1].CIDR.String())
}

func TestValidateReportsInvalidNames(t *testing.T) {
	document, problems := Parse([]byte(`{"allowedDestinations": [{"regions": ["r"], "name": "x", "awsService": "s"}]}`))
	require.Empty(t, problems)
	p, problems := Validate(document, Names{AWS: func(service, region string) func() string {
		return func() string { return "bad " + service + region }
	}})
	require.Nil(t, p)
	require.Equal(t, Problems{
		{Message: "bad sr", Path: "allowedDestinations[0].regions[0]"},
		{Message: "bad s", Path: "allowedDestinations[0].awsService"},
	}, problems)
}

// A destination needs a CIDR or a service, even if Validate does not check names.
func TestValidateRequiresKind(t *testing.T) {
	for _, entry := range []string{`{"name": "x"}`, `{"name": "x", "awsService": ""}`, `{"name": "x", "cidr": ""}`} {
		document, problems := Parse([]byte(`{"allowedDestinations": [` + entry + `]}`))
		require.Empty(t, problems)
		p, problems := Validate(document, Names{})
		require.Nil(t, p, entry)
		require.Len(t, problems, 1)
	}
}

// Lines and columns start at 1. A column counts characters.
func TestParseReportsLineAndColumn(t *testing.T) {
	for _, test := range []struct{ data, want string }{
		{"{\n  \"ä\": x}", "line 2, column 8"},
		{"{\r\n\"a\"}", "line 2, column 4"},
		{"", "line 1, column 1"},
		{"{\n\n", "line 3, column 1"},
		{"\"ä\xff\"", "line 1, column 3"},
	} {
		document, problems := Parse([]byte(test.data))
		require.Nil(t, document)
		require.Contains(t, problems[0].Message+";", " at "+test.want+";", "%q", test.data)
	}
}

// If a document of the maximum size is wrong everywhere, Validate returns few problems. It needs only a small multiple
// of the document's size in memory.
func TestValidateLimitsMemory(t *testing.T) {
	fill := func(item string) string {
		return strings.TrimSuffix(strings.Repeat(item, (MaxDocumentBytes-200)/len(item)), ",")
	}
	for name, data := range map[string]string{
		"unknown fields":   `{` + fill(`"a":1,`) + `}`,
		"duplicate fields": `{"allowedDestinations":[],` + fill(`"defaultAction":"deny",`) + `}`,
		"empty entries":    `{"allowedDestinations":[` + fill(`{},`) + `]}`,
		"equal names":      `{"allowedDestinations":[` + fill(`{"name":"x","cidr":"10.0.0.0/8"},`) + `]}`,
		"bad ports":        `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","ports":[` + fill(`0,`) + `]}]}`,
		"bad port objects": `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","ports":[` + fill(`{},`) + `]}]}`,
		"repeated regions": `{"allowedDestinations":[{"name":"x","awsService":"s3","regions":[` + fill(`"us-east-1",`) + `]}]}`,
		"one long name":    `{"allowedDestinations":[{"name":"` + fill("x") + `","cidr":"10.0.0.0/8"}]}`,
		"one long field":   `{"allowedDestinations":[],"` + fill("x") + `":1}`,
		"one long CIDR":    `{"allowedDestinations":[{"name":"x","cidr":"` + fill("1") + `"}]}`,
		"one long number":  `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","ports":[` + fill("1") + `]}]}`,
		"escaped":          `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","` + fill(`\n`) + `":1}]}`,
		"nested":           `{"allowedDestinations":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			var p *Policy
			var problems Problems
			allocated := allocatedBytes(func() {
				document, parseProblems := Parse([]byte(data))
				require.Empty(t, parseProblems)
				p, problems = Validate(document, Names{})
			})
			require.Nil(t, p)
			require.NotEmpty(t, problems)
			require.LessOrEqual(t, len(problems), MaxProblems+1)
			require.Less(t, len(problems.Error()), 32<<10)
			require.Less(t, allocated, uint64(64*MaxDocumentBytes), "at most 16 MiB")
		})
	}
}

func allocatedBytes(run func()) uint64 {
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	run()
	runtime.ReadMemStats(&end)
	return end.TotalAlloc - start.TotalAlloc
}

// For each limit there is a document at the limit, and a document one item or one byte above the limit.
func TestDocumentLimits(t *testing.T) {
	entries := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"name": "n%d", "cidr": "10.0.%d.%d/32"}`, i, i>>8, i&255))
		}
		return `{"allowedDestinations": [` + strings.Join(list, ", ") + `]}`
	}
	documentOfSize := func(n int) string {
		text := `{"allowedDestinations": [], "x": ""}`
		return strings.Replace(text, `""`, `"`+strings.Repeat(" ", n-document.Size([]byte(text)))+`"`, 1)
	}
	for _, test := range []struct{ name, document, want string }{
		{"1,000 destinations", entries(1000), ""},
		{"1,001 destinations", entries(1001), "Too many destinations: 1001; at most 1000 are allowed: use wider destinations, or split the policy into several ConfigMaps (allowedDestinations)"},
		{"256 KiB", documentOfSize(MaxDocumentBytes), "Unknown field: x (x)"},
		{"256 KiB and a byte", documentOfSize(MaxDocumentBytes + 1), "Policy too large: 262145 bytes without white space; at most 262144 are allowed: use fewer or wider destinations, or split the policy into several ConfigMaps (policy.json)"},
		{"a mebibyte of white space", strings.Repeat(" \n\t\r", 1<<18) + entries(1), ""},
		{"too large, and not JSON", strings.Repeat("x", MaxDocumentBytes+1), "Policy too large: 262145 bytes without white space; at most 262144 are allowed: use fewer or wider destinations, or split the policy into several ConfigMaps (policy.json)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			document, problems := Parse([]byte(test.document))
			if problems == nil {
				_, problems = Validate(document, Names{})
			}
			if test.want == "" {
				require.Empty(t, problems)
				return
			}
			require.Equal(t, "Policy validation failed: "+test.want, problems.Error())
		})
	}
}

// Compact does not change the value of a document. It returns a document unchanged if the document is not JSON or is
// too large.
func TestCompact(t *testing.T) {
	for document, want := range map[string]string{
		" { \"a b\" : [ 1 , \" \\\" \" ] } \n": `{"a b":[1," \" "]}`,
		`{"a":1}`:                              `{"a":1}`,
		`{"a": `:                               `{"a": `,
		"\ufeff{ }":                            "\ufeff{ }",
		"":                                     "",
	} {
		compact, size := Compact(document)
		require.Equal(t, want, compact)
		if json.Valid([]byte(document)) {
			require.Len(t, compact, size)
		}
	}
	large := strings.Repeat(`"", `, MaxDocumentBytes)
	compact, size := Compact("[" + large + "1]")
	require.Equal(t, "["+large+"1]", compact)
	require.Equal(t, 3*MaxDocumentBytes+3, size)
}

func TestErrorCountsOmittedProblems(t *testing.T) {
	document, problems := Parse([]byte(`{"allowedDestinations": [` + strings.TrimSuffix(strings.Repeat("1,", 103), ",") + `]}`))
	require.Empty(t, problems)
	_, problems = Validate(document, Names{})
	require.True(t, strings.HasSuffix(problems.Error(), "not a number (allowedDestinations[99]); and 3 more"), problems.Error())
	require.Len(t, problems, MaxProblems+1)
}

// List returns the most severe warnings first, and only a few warnings of each severity. Even a large number of
// warnings of one severity cannot hide the warnings of another severity.
func TestWarningsListsMostSevereFirst(t *testing.T) {
	p := &Policy{DefaultAction: Deny}
	for i := range 120 {
		p.Destinations = append(p.Destinations, Destination{Name: fmt.Sprintf("d%d", i), CIDR: netip.MustParsePrefix("10.0.0.0/8")})
	}
	p.Destinations = append(p.Destinations, Destination{Name: "worst", CIDR: netip.MustParsePrefix("0.0.0.0/0"), Ports: []Port{{TCP, 443, 443}}})
	var w Warnings
	Warn(p, &w)
	list := w.List()
	require.Equal(t, "worst opens every IPv4 address (allowedDestinations[120].cidr)", list[0].String())
	require.Equal(t, "worst covers 169.254.169.254", list[1].Message[:28])
	last := list[len(list)-1]
	require.Equal(t, "115 more destinations open every port and protocol (allowedDestinations)", last.String())
	require.Equal(t, "d4 opens every port and protocol; name ports to open fewer (allowedDestinations[4])", list[len(list)-2].String())
	var nilWarnings *Warnings
	Warn(p, nilWarnings)
	nilWarnings.Add(EveryPort, 0, "", "x")
	require.False(t, nilWarnings.Wants(EveryPort))
}

func TestSanitize(t *testing.T) {
	for value, want := range map[string]string{
		"10.1.0.0/99":            "10.1.0.0/99",
		"":                       `""`,
		"a\nb":                   `"a\nb"`,
		"\x1b[31m":               `"\x1b[31m"`,
		" x":                     `" x"`,
		strings.Repeat("ü", 80):  strings.Repeat("ü", 80),
		strings.Repeat("x", 200): `"` + strings.Repeat("x", 80) + `"…`,
	} {
		require.Equal(t, want, Sanitize(value))
	}
}

// FuzzParse checks three properties. Parse reads a document as encoding/json does. A document with a problem gives no
// policy. A valid policy gives an equal policy if the test writes it as a document and parses that document.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"valid", "invalid"} {
		paths, err := filepath.Glob("../../testdata/policy/" + folder + "/*.json")
		require.NoError(f, err)
		require.NotEmpty(f, paths)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		document, problems := Parse(data)
		require.Equal(t, document == nil, len(problems) > 0)
		if document == nil {
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		var want any
		require.NoError(t, decoder.Decode(&want))
		require.Equal(t, want, toAny(t, document.root))
		compact, size := Compact(string(data))
		require.Len(t, compact, size)
		var compactValue any
		decoder = json.NewDecoder(strings.NewReader(compact))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&compactValue))
		require.Equal(t, want, compactValue)
		p, problems := Validate(document, Names{})
		require.Equal(t, p == nil, len(problems) > 0)
		for _, problem := range problems {
			require.NotEmpty(t, problem.Message)
			require.NotContains(t, problem.String(), "\n", "a problem must be one line")
		}
		if p == nil {
			return
		}
		var warnings Warnings
		Warn(p, &warnings)
		for _, warning := range warnings.List() {
			require.LessOrEqual(t, len([]rune(warning.String())), 256)
		}
		document, problems = Parse(marshalPolicy(t, p))
		require.Empty(t, problems)
		secondPolicy, problems := Validate(document, Names{})
		require.Empty(t, problems)
		require.Equal(t, p, secondPolicy)
	})
}

// toAny returns a Node in the form in which encoding/json would decode it.
func toAny(t *testing.T, n document.Node) any {
	switch n.Kind() {
	case document.Object:
		fields := make(map[string]any)
		for child := range n.Children {
			fields[child.Key()] = toAny(t, child)
		}
		return fields
	case document.List:
		items := []any{}
		for child := range n.Children {
			items = append(items, toAny(t, child))
		}
		return items
	case document.Text:
		return n.Text()
	case document.Number:
		return json.Number(n.Text())
	case document.Boolean:
		return n.Text() == "true"
	}
	require.Equal(t, document.Null, n.Kind())
	return nil
}

// marshalPolicy returns a policy document for p. It writes every port as an object.
func marshalPolicy(t *testing.T, p *Policy) []byte {
	destinations := []map[string]any{}
	for _, d := range p.Destinations {
		entry := map[string]any{"name": d.Name}
		switch {
		case d.CIDR.IsValid():
			entry["cidr"] = d.CIDR.String()
		case d.Service != "":
			entry["awsService"] = d.Service
		case d.Pods != nil:
			if d.Pods.Labels != nil {
				entry["pods"] = d.Pods.Labels
			}
			if d.Pods.Namespace != "" {
				entry["namespace"] = d.Pods.Namespace
			}
		default:
			entry["entity"] = d.Entity
		}
		if d.Without != nil {
			entry["without"] = d.Without
		}
		if d.Except != nil {
			entry["except"] = d.Except
		}
		if !d.Expires.IsZero() {
			entry["expires"] = d.Expires
		}
		if d.Regions != nil {
			entry["regions"] = d.Regions
		}
		if d.Ports != nil {
			ports := []map[string]any{}
			for _, port := range d.Ports {
				ports = append(ports, map[string]any{"port": port.First, "endPort": port.Last, "protocol": port.Protocol})
			}
			entry["ports"] = ports
		}
		if d.Reason != "" {
			entry["reason"] = d.Reason
		}
		destinations = append(destinations, entry)
	}
	fields := map[string]any{"defaultAction": p.DefaultAction, "allowedDestinations": destinations}
	if p.PodSelector != nil {
		fields["podSelector"] = p.PodSelector
	}
	data, err := json.Marshal(fields)
	require.NoError(t, err)
	return data
}
