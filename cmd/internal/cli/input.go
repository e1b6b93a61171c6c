package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"egress-agent/pkg/awsranges"
	"egress-agent/pkg/netpol"
)

// Input is what an offline verb works on.
type Input struct {
	*Found
	Table   *awsranges.Table // nil without ranges
	Options netpol.Options
}

// Files is the flag -f of an offline verb, with the flags that shape its policies.
type Files struct {
	Policy *PolicyFlags
	names  Strings
}

// AddFlags registers the flags.
func (f *Files) AddFlags(flags *flag.FlagSet) {
	f.Policy = NewPolicyFlags()
	f.Policy.AddFlags(flags)
	flags.Var(&f.names, "f", "read policies from `FILE`, from every .yaml, .yml and .json file of a folder and those in it, or, for -, from standard input (repeatable; arguments are further files)")
}

// Open reads the files and the ranges, after Parse. Where its status is not ExitOK, stderr has been
// told why. What could not be read of the files is no reason not to judge the others: Report says it in the end.
func (f *Files) Open(flags *flag.FlagSet, stdin io.Reader, stderr Output) (*Input, int) {
	usage := f.arguments(flags)
	options, err := f.Policy.Options()
	if err := errors.Join(usage, err); err != nil {
		stderr.Complain(flags.Name(), err)
		return nil, ExitUsage
	}
	input := &Input{Options: options}
	note := func(message string) { stderr.Line("%s: note: %s", flags.Name(), message) }
	if input.Table, err = f.Policy.Table(note); err != nil {
		stderr.Line("%s: %v", flags.Name(), err)
		return nil, ExitUsage
	}
	input.Found = ReadPolicies(f.names, stdin, stderr)
	return input, ExitOK
}

// arguments takes arguments for files too, so that -f *.yaml works, and flags between them.
func (f *Files) arguments(flags *flag.FlagSet) error {
	for flags.NArg() > 0 {
		if len(f.names) == 0 {
			return fmt.Errorf("unexpected argument %q: files follow -f", flags.Arg(0))
		}
		f.names = append(f.names, flags.Arg(0))
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return err
		}
	}
	if len(f.names) == 0 {
		return errors.New("nothing to read: give -f FILE")
	}
	return nil
}

// CheckFormat is an error where the value of -o is none of the formats.
func CheckFormat(value string, formats ...string) error {
	if slices.Contains(formats, value) {
		return nil
	}
	last := len(formats) - 1
	return fmt.Errorf("invalid -o %q: must be %s or %s", value, strings.Join(formats[:last], ", "), formats[last])
}
