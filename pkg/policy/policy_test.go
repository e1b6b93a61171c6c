package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	data, err := os.ReadFile("../../testdata/policy/valid/seed.json")
	require.NoError(t, err)
	document, problems := Parse(data)
	require.Empty(t, problems)
	p, problems := Validate(document, nil)
	require.Empty(t, problems)
	require.Equal(t, &Policy{DefaultAction: Deny, Destinations: []Destination{
		{Name: "s3", Service: "s3", Regions: []string{"us-east-1"}, Ports: []Port{{TCP, 443, 443}}},
		{Name: "db", CIDR: p.Destinations[1].CIDR, Ports: []Port{{TCP, 5432, 5432}, {UDP, 53, 53}, {TCP, 8000, 8100}}},
	}}, p)
	require.Equal(t, "10.1.0.0/24", p.Destinations[1].CIDR.String())
}

func TestNames(t *testing.T) {
	document, problems := Parse([]byte(`{"allowedDestinations": [{"regions": ["r"], "name": "x", "awsService": "s"}]}`))
	require.Empty(t, problems)
	p, problems := Validate(document, func(service, region string) string { return "bad " + service + region })
	require.Nil(t, p)
	require.Equal(t, Problems{
		{"bad sr", "allowedDestinations[0].regions[0]"},
		{"bad s", "allowedDestinations[0].awsService"},
	}, problems)
}

// TestNoDestination: an entry must say where to, also where nobody judges names.
func TestNoDestination(t *testing.T) {
	for _, entry := range []string{`{"name": "x"}`, `{"name": "x", "awsService": ""}`, `{"name": "x", "cidr": ""}`} {
		document, problems := Parse([]byte(`{"allowedDestinations": [` + entry + `]}`))
		require.Empty(t, problems)
		p, problems := Validate(document, nil)
		require.Nil(t, p, entry)
		require.Len(t, problems, 1)
	}
}

// TestPlaces counts lines from 1, and columns in characters from 1.
func TestPlaces(t *testing.T) {
	for _, test := range []struct{ data, want string }{
		{"{\n  \"ä\": x}", "line 2, column 8"},
		{"{\r\n\"a\"}", "line 2, column 4"},
		{"", "line 1, column 1"},
		{"{\n\n", "line 3, column 1"},
		{"\"ä\xff\"", "line 1, column 3"},
	} {
		document, problems := Parse([]byte(test.data))
		require.Nil(t, document)
		require.True(t, strings.HasSuffix(problems[0].Message, " at "+test.want), "%q: %s", test.data, problems[0])
	}
}

// TestHostileSize feeds documents as large as a ConfigMap may be, one three times that, and wrong throughout. Their
// message stays one that a terminal can show. Were their time to grow with the square of their size,
// the test would not end within go test's ten minutes.
func TestHostileSize(t *testing.T) {
	size := 3 << 20
	whole := func(item string) string {
		return strings.TrimSuffix(strings.Repeat(item, size/len(item)), ",")
	}
	largest := `{` + whole(`"a":1,`) + `}`
	size = 1 << 20
	for name, data := range map[string]string{
		"unknown fields":    largest,
		"duplicate fields":  `{"allowedDestinations":[],` + whole(`"defaultAction":"deny",`) + `}`,
		"empty entries":     `{"allowedDestinations":[` + whole(`{},`) + `]}`,
		"equal names":       `{"allowedDestinations":[` + whole(`{"name":"x","cidr":"10.0.0.0/8"},`) + `]}`,
		"bad ports":         `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","ports":[` + whole(`0,`) + `]}]}`,
		"one long name":     `{"allowedDestinations":[{"name":"` + whole("x") + `","cidr":"10.0.0.0/8"}]}`,
		"one long field":    `{"allowedDestinations":[],"` + whole("x") + `":1}`,
		"one long CIDR":     `{"allowedDestinations":[{"name":"x","cidr":"` + whole("1") + `"}]}`,
		"one long number":   `{"allowedDestinations":[{"name":"x","cidr":"10.0.0.0/8","ports":[` + whole("1") + `]}]}`,
		"unknown and known": `{` + whole(`"a":1,`) + `,` + whole(`"defaultAction":"deny",`) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			document, problems := Parse([]byte(data))
			require.Empty(t, problems)
			p, problems := Validate(document, nil)
			require.Nil(t, p)
			require.NotEmpty(t, problems)
			require.Less(t, len(problems.Error()), 32<<10)
		})
	}
}

func TestErrorIsBounded(t *testing.T) {
	problems := make(Problems, 103)
	for i := range problems {
		problems[i] = Problem{"m", "p"}
	}
	require.True(t, strings.HasSuffix(problems.Error(), "; m (p); and 3 more"))
	require.Equal(t, 100, strings.Count(problems.Error(), "m (p)"))
}

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.0.0/99":            "10.1.0.0/99",
		"":                       `""`,
		"a\nb":                   `"a\nb"`,
		"\x1b[31m":               `"\x1b[31m"`,
		" x":                     `" x"`,
		strings.Repeat("ü", 80):  strings.Repeat("ü", 80),
		strings.Repeat("x", 200): `"` + strings.Repeat("x", 80) + `"…`,
	} {
		require.Equal(t, want, Show(in))
	}
}

// FuzzParse: a document is read as encoding/json reads it; a problem means no policy; an accepted policy,
// written out plainly, is accepted as the same.
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
		require.Equal(t, want, plain(t, document.root))
		p, problems := Validate(document, nil)
		require.Equal(t, p == nil, len(problems) > 0)
		for _, problem := range problems {
			require.NotEmpty(t, problem.Message)
			require.NotEmpty(t, problem.Path)
			require.NotContains(t, problem.String(), "\n", "a problem is one line")
		}
		if p == nil {
			return
		}
		for _, warning := range Warnings(p) {
			require.LessOrEqual(t, len([]rune(warning.String())), 256)
		}
		document, problems = Parse(written(t, p))
		require.Empty(t, problems)
		again, problems := Validate(document, nil)
		require.Empty(t, problems)
		require.Equal(t, p, again)
	})
}

// plain gives a value as encoding/json does.
func plain(t *testing.T, n node) any {
	switch n.kind {
	case object:
		fields := make(map[string]any)
		for _, m := range n.members {
			fields[m.key] = plain(t, m.value)
		}
		return fields
	case list:
		items := make([]any, len(n.items))
		for i, item := range n.items {
			items[i] = plain(t, item)
		}
		return items
	case text:
		return n.text
	case number:
		return json.Number(n.text)
	case boolean:
		return n.text == "true"
	}
	require.Equal(t, null, n.kind)
	return nil
}

// written gives a policy in its plainest form.
func written(t *testing.T, p *Policy) []byte {
	destinations := []map[string]any{}
	for _, d := range p.Destinations {
		entry := map[string]any{"name": d.Name}
		if d.Service == "" {
			entry["cidr"] = d.CIDR.String()
		} else {
			entry["awsService"] = d.Service
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
		destinations = append(destinations, entry)
	}
	data, err := json.Marshal(map[string]any{"defaultAction": p.DefaultAction, "allowedDestinations": destinations})
	require.NoError(t, err)
	return data
}
