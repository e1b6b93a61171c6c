// Package markdown reads the parts of the repository's Markdown files that tests can check: the commands, their output,
// the headings and the links.
//
// A block ```sh holds commands. bash runs the blocks in order, from the root of the repository. The commands must
// succeed. In a block ```sh exits 1, they must end with status 1. A block ```text directly after the commands is their
// output on both streams. In such a block … stands for any text in its line, and the number of spaces does not matter.
package markdown

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Document is the content of a Markdown file. Each list has the order of the file.
type Document struct {
	Commands []Command
	Anchors  []string // GitHub's anchors of the headings, without #
	Links    []Link
}

// Command is a block of commands.
type Command struct {
	Section string // the heading of level 1 or 2 above it
	Line    int    // the line number of its fence, from 1
	Script  string // the commands, each line with its line break
	Status  int    // the exit status that bash must have
	Output  string // the content of the output block; empty if there is no such block
}

// Link is a link inside the repository or to another site.
type Link struct {
	Line   int
	Target string // FILE, FILE#ANCHOR, #ANCHOR or a URL
}

var (
	fence   = regexp.MustCompile("^ *(?:```|~~~)(.*)$")
	heading = regexp.MustCompile(`^(#{1,6}) (.+)$`)
	code    = regexp.MustCompile("`[^`]*`")
	link    = regexp.MustCompile(`\[([^\]]*)\]\(([^)]+)\)`)
	exits   = regexp.MustCompile(`^sh exits ([1-9][0-9]*)$`)
)

// Read reads a file. It returns an error for a block in an unknown language, and for output without commands.
func Read(path string) (*Document, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := &Document{}
	section := ""
	for rest := newLines(string(data)); rest.next(); {
		if match := fence.FindStringSubmatch(rest.line); match != nil {
			if err := d.readBlock(section, match[1], rest); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, rest.number, err)
			}
			continue
		}
		if strings.TrimSpace(rest.line) != "" {
			rest.followsCommands = false
		}
		if found := heading.FindStringSubmatch(rest.line); found != nil {
			if len(found[1]) <= 2 {
				section = found[2]
			}
			d.Anchors = append(d.Anchors, d.anchor(found[2]))
		}
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(rest.line, ""), -1) {
			d.Links = append(d.Links, Link{rest.number, found[2]})
		}
	}
	return d, nil
}

// Section returns the commands below a heading of level 1 or 2.
func (d *Document) Section(name string) []Command {
	var commands []Command
	for _, c := range d.Commands {
		if c.Section == name {
			commands = append(commands, c)
		}
	}
	return commands
}

// Prints reports whether output matches the output that the file shows.
func (c Command) Prints(output string) bool {
	var pattern strings.Builder
	for line := range strings.Lines(c.Output) {
		words := strings.Fields(line)
		for i, word := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*")
		}
		pattern.WriteString(`[ \t]*` + strings.Join(words, `[ \t]+`) + `[ \t]*\n`)
	}
	return regexp.MustCompile(`\A` + pattern.String() + `\z`).MatchString(output)
}

// readBlock reads the block that begins with the current line of rest. info is the text after its fence.
func (d *Document) readBlock(section, info string, rest *lines) error {
	c := Command{Section: section, Line: rest.number}
	followsCommands := rest.followsCommands
	rest.followsCommands = false
	var text strings.Builder
	for {
		if !rest.next() {
			return fmt.Errorf("the block of line %d is not closed", c.Line)
		}
		if fence.MatchString(rest.line) {
			break
		}
		text.WriteString(rest.line + "\n")
	}
	status := exits.FindStringSubmatch(info)
	switch {
	case info == "sh" || status != nil:
		c.Script = text.String()
		if status != nil {
			c.Status, _ = strconv.Atoi(status[1]) // the pattern allows only digits
		}
		d.Commands = append(d.Commands, c)
		rest.followsCommands = true
	case info == "text" && followsCommands:
		d.Commands[len(d.Commands)-1].Output = text.String()
	case info == "text":
		return fmt.Errorf("output must follow the commands that print it")
	case info != "yaml" && info != "json" && info != "mermaid":
		return fmt.Errorf("a block is sh, sh exits STATUS, text, yaml, json or mermaid, not %q", info)
	}
	return nil
}

// anchor returns GitHub's anchor of a heading: its letters, digits, - and _ in lower case, and - for each space. It
// adds a number if an earlier heading has the same anchor.
func (d *Document) anchor(heading string) string {
	text := link.ReplaceAllString(heading, "$1")
	anchor := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
	unique := anchor
	for i := 1; slices.Contains(d.Anchors, unique); i++ {
		unique = anchor + "-" + strconv.Itoa(i)
	}
	return unique
}

// lines iterates over the lines of a text.
type lines struct {
	left            []string // the lines after the current line
	line            string   // the current line
	number          int      // of the current line, from 1
	followsCommands bool     // only empty lines are between the last block of commands and the current line
}

func newLines(text string) *lines {
	return &lines{left: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
}

// next makes the next line current. It returns false after the last line.
func (l *lines) next() bool {
	if len(l.left) == 0 {
		return false
	}
	l.line, l.left = strings.TrimSuffix(l.left[0], "\r"), l.left[1:]
	l.number++
	return true
}
