package cli

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

// Run runs the command that args[0] names, with the remaining args. If args is empty or begins with a flag, Run runs
// serve. It returns the exit status.
func Run(program string, args []string, serve func(args []string) int, commands map[string]func(args []string) int,
	stderr Output) int {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return serve(args)
	}
	if args[0] == "help" {
		return serve([]string{"--help"})
	}
	if command, ok := commands[args[0]]; ok {
		return command(args[1:])
	}
	stderr.UsageError(program, fmt.Errorf("unknown command %q", args[0]))
	return ExitUsage
}

// Parse parses args into flags. For --help it prints usage and the flags to stdout; for a wrong flag it prints the
// reason to stderr. In both cases ok is false, and the program must exit with status.
func Parse(flags *flag.FlagSet, args []string, usage string, stdout, stderr Output) (status int, ok bool) {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout.Unescaped(), strings.TrimLeft(usage, "\n"), "\nFlags:\n")
		flags.SetOutput(stdout.Unescaped())
		flags.PrintDefaults()
		return ExitOK, false
	case err != nil:
		stderr.UsageError(flags.Name(), err)
		return ExitUsage, false
	}
	return ExitOK, true
}

// version is what git describe prints for the commit: a tag such as v0.3.0, or v0.3.0-5-g1234abc for the fifth commit
// after the tag. It ends in -dirty if tracked files were edited. "make build" sets version with the linker's -X. The
// version that the Go toolchain stamps cannot replace version, because it names the next release (v0.3.1-0.…). In a git
// worktree the toolchain stamps no version (https://go.dev/issue/58218).
var version string

// Version returns the line that --version prints: the program, its version, its commit if known, and the Go version.
func Version(program string) string {
	details := runtime.Version()
	if commit, date := revision(); commit != unknown {
		details = fmt.Sprintf("commit %s of %s, %s", commit, date, details)
	}
	return fmt.Sprintf("%s %s (%s)", program, cmp.Or(version, moduleVersion()), details)
}

// moduleVersion returns the version that the toolchain stamped on the main module. A program that "go build" built
// without a repository has "(devel)".
func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return unknown
}

const unknown = "unknown"

// revision returns the commit that the toolchain stamped, and the commit's date in RFC 3339. If the work tree had
// changes, the commit ends in " (modified)". If the toolchain stamped no commit, commit and date are "unknown".
func revision() (commit, date string) {
	commit, date = unknown, unknown
	modified := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				commit = setting.Value
			case "vcs.time":
				date = setting.Value
			case "vcs.modified":
				if setting.Value == "true" {
					modified = " (modified)"
				}
			}
		}
	}
	return commit + modified, date
}

// CheckNoArguments returns an error if an argument follows the flags.
func CheckNoArguments(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}
