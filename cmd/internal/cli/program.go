package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
)

// Parse parses flags, with usage as their help. When it returns false the program is done, with that
// exit status: help was asked for, or the flags are wrong and stderr says why.
func Parse(flags *flag.FlagSet, args []string, usage string, stdout, stderr io.Writer) (status int, ok bool) {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, strings.TrimLeft(usage, "\n"), "\nFlags:\n")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return ExitOK, false
	case err != nil:
		Complain(stderr, flags.Name(), err)
		return ExitUsage, false
	}
	return ExitOK, true
}

// Complain writes errors to stderr, a line each, and says where help is.
func Complain(stderr io.Writer, program string, err error) {
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintf(stderr, "%s: %s\n", program, line)
	}
	fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", program)
}

// Log are the flags of a program's log.
type Log struct{ Format, Level string }

// NewLog returns the defaults.
func NewLog() *Log { return &Log{Format: "text", Level: "info"} }

// AddFlags registers the flags.
func (l *Log) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&l.Format, "log-format", l.Format, "`format` of the log: text or json")
	flags.StringVar(&l.Level, "log-level", l.Level, "least `level` logged: debug, info, warn or error")
}

// Logger returns a log that writes to w.
func (l *Log) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, fmt.Errorf("invalid --log-level %q: must be debug, info, warn or error", l.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("invalid --log-format %q: must be text or json", l.Format)
}

// Version tells the program's commit and its date, as the Go toolchain stamps them.
func Version(program string) string {
	commit, date, modified := "unknown", "unknown", ""
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
	return fmt.Sprintf("%s commit %s%s of %s", program, commit, modified, date)
}

// NoArguments is an error where flags are followed by anything.
func NoArguments(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return nil
}
