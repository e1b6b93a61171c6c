package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// hostile are names that would have an effect if a program printed them unchanged.
var hostile = []string{
	"\x1b[31mred\x1b]0;title\x07\u009b31m\x7f\u0085\r", // C0 and C1 controls of a terminal
	"a\n::error file=x::forged\nb.yaml: valid",         // a line break and a forged line
	"::stop-commands::x", "  ::error::##[error]x ##vso[task.complete]x",
	"<img src=x onerror=alert(1)></script> | a | `b` **c** [d](https://evil.example) ![e](f)",
	"@org/team fixes #1, GH-2, https://evil.example www.evil.example", // mentions, references, links
	"a\u202eb\u2066c\u200b\u2028\ufffd",
	"a: {b {{ .x }} '\"$(id)`id`",
}

// TestHostileNames puts each name in every place of a file that an offline command prints, and checks the output of
// every command in every format.
func TestHostileNames(t *testing.T) {
	absolute, err := filepath.Abs(bin)
	require.NoError(t, err)
	ranges, err := filepath.Abs(root + "/testdata/ranges/ip-ranges.json")
	require.NoError(t, err)
	for i, name := range hostile {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			dir := t.TempDir()
			write := func(file, content string) string {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
				return file
			}
			file := strings.ReplaceAll(name, "/", "∕")
			policies := write(file+".yaml", strings.Join(documents(name, "10.1.0.0/16"), "---\n"))
			base := write(file+"-base.yaml", strings.Join(documents(name, "10.2.0.0/16"), "---\n"))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
			write("folder/"+file+".yaml", "- "+quoted(name)+"\n")
			write("folder/"+file+"-broken.yaml", "metadata: {labels: {egress-controller: managed}\ndata: {policy.json: "+quoted(name)+"}\n"+name+": *"+name+"\n")
			write("folder/"+file+"-other.yaml", name+": *"+name+"\n")
			write("folder/"+file+".json", `{"egress-controller": "policy.json", "x": `+name)
			bare := write(file+"-bare.json", fmt.Sprintf(`{"allowedDestinations": [{"name": %q, %s: 1}]}`, "x", quoted(name)))
			for _, command := range []string{
				"egress-webhook validate -f FILES", "egress-webhook validate -o json -f FILES", "egress-webhook validate -o github -f FILES",
				"egress-agent render --ranges-file RANGES -f FILES", "egress-agent render -o json --ranges-file RANGES -f FILES", "egress-agent render -f FILES",
				"egress-agent explain --to 10.1.0.1:443 --ranges-file RANGES -f FILES", "egress-agent explain --to 10.9.0.1:443 -o json --ranges-file RANGES -f FILES",
				"egress-agent diff --base BASE --ranges-file RANGES -f FILES", "egress-agent diff -o json --base BASE --ranges-file RANGES -f FILES",
				"egress-agent diff -o markdown --base BASE --ranges-file RANGES -f FILES", "egress-agent diff --ranges-file RANGES --against RANGES -o markdown -f FILES",
				"egress-agent diff --base NONE -f FILES", "egress-agent render -f NONE", "egress-webhook validate -o github -f NONE", "egress-agent status --kubeconfig NONE",
				"egress-webhook validate --ranges-file NONE -f FILES", "egress-webhook validate --ranges-file BARE -f FILES", "egress-agent render -o NONE -f FILES", "egress-agent NONE",
			} {
				var args []string
				for _, arg := range strings.Fields(command) {
					switch arg {
					case "FILES":
						args = append(args, "./"+policies, "./"+bare, "folder")
					case "BASE":
						args = append(args, "./"+base)
					case "RANGES":
						args = append(args, ranges)
					case "BARE":
						args = append(args, "./"+bare)
					case "NONE":
						args = append(args, name)
					default:
						args = append(args, arg)
					}
				}
				run := exec.Command(filepath.Join(absolute, args[0]), args[1:]...)
				run.Dir = dir
				var stdout, stderr bytes.Buffer
				run.Stdout, run.Stderr = &stdout, &stderr
				if err := run.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
					require.NoError(t, err)
				}
				github := strings.Contains(command, "-o github")
				harmless(t, command, stdout.String(), github)
				harmless(t, command, stderr.String(), false)
				require.NotContains(t, stderr.String(), "goroutine")
				if strings.Contains(command, "-o json") && stdout.Len() > 0 {
					require.True(t, json.Valid(stdout.Bytes()), stdout.String())
				}
				if strings.Contains(command, "-o markdown") {
					require.NotEmpty(t, stdout.String())
					require.NotRegexp(t, "<img|<script|@org|#[0-9]+\\b[^;]|GH-[0-9]|https://|www\\.|[^\\\\]`|[^\\\\]\\*|[^\\\\]\\[", strings.ReplaceAll(stdout.String(), "#### ", ""))
				}
			}
		})
	}
}

// documents returns ConfigMaps with a name in each place that a command may print.
func documents(name, cidr string) []string {
	configMap := func(object, labels, annotations, policy string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {%s, labels: {%s}, annotations: {%s}}\ndata: {policy.json: %s}\n", object, labels, annotations, quoted(policy))
	}
	entry := func(name, fields string) string {
		return fmt.Sprintf(`{"allowedDestinations": [{"name": %s, %s}]}`, quoted(name), fields)
	}
	named, managed := "name: "+quoted(name)+", namespace: "+quoted(name), "egress-controller: managed"
	good := entry("db", fmt.Sprintf(`"cidr": %q, "ports": [443]`, cidr))
	return []string{
		configMap(named, managed, "", good),
		configMap("name: destination", managed, "", entry(name, fmt.Sprintf(`"cidr": %q`, cidr))),
		configMap("name: cidr", managed, "", entry("x", `"cidr": `+quoted(name))),
		configMap("name: service", managed, "", entry("x", `"awsService": `+quoted(name)+`, "regions": [`+quoted(name)+`]`)),
		configMap("name: field", managed, "", entry("x", `"cidr": "10.0.0.0/8", `+quoted(name)+`: 1`)),
		configMap("name: json", managed, "", name),
		configMap(named, "egress-controller: "+quoted(name), "", good),
		configMap(named, quoted("egress-controller="+name)+": x", "", good),
		configMap(named, managed, "helm.sh/hook: "+quoted(name)+", argocd.argoproj.io/sync-options: "+quoted("Force=true,"+name), good),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {" + named + ", labels: {" + managed + "}}\ndata: {" + quoted(name) + ": x, policy.jsn: x}\nbinaryData: {" + quoted(name) + ": eA==}\n",
		"apiVersion: v1\nkind: " + quoted(name) + "\n", "apiVersion: v1\nkind: List\nitems: [" + quoted(name) + "]\n",
	}
}

// quoted returns text in double quotes that both JSON and YAML read.
func quoted(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < ' ' || r == '"' || r == '\\' || r >= 0x7f && r < 0x10000 {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

var workflowCommand = regexp.MustCompile(`^::(error|warning)( file=[^:,]+,line=\d+,col=\d+)?::`)

// harmless requires that a terminal and a CI show the output and do nothing else with it.
func harmless(t *testing.T, command, printed string, github bool) {
	t.Helper()
	require.True(t, utf8.ValidString(printed), command)
	for _, line := range strings.Split(printed, "\n") {
		for _, r := range line {
			require.True(t, strconv.IsPrint(r) && r != utf8.RuneError, "%s prints %U: %q", command, r, line)
		}
		require.NotContains(t, line, "##[", command)
		require.NotContains(t, line, "##vso[", command)
		if strings.HasPrefix(strings.TrimSpace(line), "::") {
			require.True(t, github && workflowCommand.MatchString(line), "%s: %q", command, line)
		}
		require.NotRegexp(t, `^b.yaml: valid$`, line, command)
	}
}
