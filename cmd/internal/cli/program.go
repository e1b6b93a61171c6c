package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// Run runs the verb that args begin with, on the arguments after it; serve where they begin with a
// flag, or not at all. It returns the exit status.
func Run(program string, args []string, serve func(args []string) int, verbs map[string]func(args []string) int, stderr Output) int {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return serve(args)
	}
	if args[0] == "help" {
		return serve([]string{"--help"})
	}
	if verb, ok := verbs[args[0]]; ok {
		return verb(args[1:])
	}
	stderr.Complain(program, fmt.Errorf("unknown verb %q", args[0]))
	return ExitUsage
}

// Parse parses flags, with usage as their help. When it returns false the program is done, with that
// exit status: help was asked for, or the flags are wrong and stderr says why.
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
		stderr.Complain(flags.Name(), err)
		return ExitUsage, false
	}
	return ExitOK, true
}

// Version tells the program's commit and its date, as the Go toolchain stamps them.
func Version(program string) string {
	commit, date := revision()
	return fmt.Sprintf("%s commit %s of %s", program, commit, date)
}

func revision() (commit, date string) {
	commit, date = "unknown", "unknown"
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

// CheckNoArguments is an error where flags are followed by anything.
func CheckNoArguments(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}
