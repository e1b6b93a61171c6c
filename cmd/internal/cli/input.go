package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// Input is the input of an offline command: policies, ranges and options.
type Input struct {
	*ReadResult
	Table    *awsranges.Table // nil if no flag gives a ranges document
	Options  netpol.Options
	Now      time.Time // the time of Open, which decides what has expired
	Platform *Platform // never nil
}

// Files is the flag -f of an offline command, with the flags that affect every policy.
type Files struct {
	Policy    *PolicyFlags
	names     Strings
	platforms Strings
	// Optional means that the command also works without -f, if another flag gives its input.
	Optional bool
	// Policies is the name of the flag in place of -f, for a command whose main input is something else; empty means f.
	Policies string
}

// AddFlags adds the flags of f to flagSet.
func (f *Files) AddFlags(flagSet *flag.FlagSet) {
	f.Policy = NewPolicyFlags()
	f.Policy.AddFlags(flagSet)
	if f.Policies != "" {
		flagSet.Var(&f.names, f.Policies, "read the existing policies from `FILE` or folder (repeatable)")
		return
	}
	flagSet.Var(&f.names, "f", "read policies from `FILE`; a folder means every .yaml, .yml and .json file below it, and - means standard input (repeatable; arguments are further files)")
}

// AddPlatformFlag adds the flag --platform, for commands that judge by platform documents.
func (f *Files) AddPlatformFlag(flagSet *flag.FlagSet) {
	flagSet.Var(&f.platforms, "platform", "judge by the platform documents in `FILE` or folder; the Namespaces in it and in the files of -f say what they govern (repeatable)")
}

// Open reads the files and the ranges documents. Call Open after Parse. If the status is not ExitOK, Open has printed
// the reason. A policy file that Open cannot read does not change the status: Unread contains that file, and
// ReportUnread prints it.
func (f *Files) Open(flags *flag.FlagSet, stdin io.Reader, stderr Output) (*Input, int) {
	argumentsErr := f.addArguments(flags)
	options, err := f.Policy.Options()
	if err := errors.Join(argumentsErr, err); err != nil {
		stderr.UsageError(flags.Name(), err)
		return nil, ExitUsage
	}
	input := &Input{Options: options, Now: time.Now()}
	note := func(message string) { stderr.Line("%s: note: %s", flags.Name(), message) }
	if input.Table, err = f.Policy.Table(note); err != nil {
		stderr.Line("%s: %v", flags.Name(), err)
		return nil, ExitUsage
	}
	input.ReadResult = ReadPolicies(f.names, stdin, stderr)
	return input, input.openPlatform(flags.Name(), f.platforms, stdin, stderr)
}

// addArguments treats the arguments as further files, because a shell replaces the pattern in -f *.yaml with several
// files. It also parses the flags between the arguments.
func (f *Files) addArguments(flags *flag.FlagSet) error {
	for flags.NArg() > 0 {
		if len(f.names) == 0 || f.Policies != "" {
			return fmt.Errorf("unexpected argument %q: give files with -f", flags.Arg(0))
		}
		f.names = append(f.names, flags.Arg(0))
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return err
		}
	}
	if len(f.names) == 0 && f.Policies == "" && !(f.Optional && len(f.platforms) > 0) {
		return errors.New("no input: give -f FILE")
	}
	return nil
}

// CheckFormat returns an error if value, the value of -o, is not one of formats. formats has at least two items.
func CheckFormat(value string, formats ...string) error {
	if slices.Contains(formats, value) {
		return nil
	}
	last := len(formats) - 1
	return fmt.Errorf("invalid -o %q: must be %s or %s", value, strings.Join(formats[:last], ", "), formats[last])
}
