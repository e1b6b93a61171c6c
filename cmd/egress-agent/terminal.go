package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// isTerminal reports whether w is a terminal that understands control sequences.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
}

// takesColour reports whether output to w may have colours. NO_COLOR turns them off (https://no-color.org).
func takesColour(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }

// progress shows on a terminal how many objects status has read. It shows nothing in the first second.
type progress struct {
	terminal io.Writer // nil if the output is not a terminal
	count    atomic.Int64
}

func newProgress(w io.Writer) *progress {
	if !isTerminal(w) {
		w = nil
	}
	return &progress{terminal: w}
}

// start shows the progress of reading from server. The caller must call done, which erases the line.
func (p *progress) start(server string) (done func()) {
	if p.terminal == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var printer sync.WaitGroup
	printer.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				fmt.Fprint(p.terminal, clearLine)
				return
			case <-ticker.C:
				fmt.Fprintf(p.terminal, "%sReading from %s: %d objects", clearLine, server, p.count.Load())
			}
		}
	})
	return func() {
		close(stop)
		printer.Wait()
	}
}

// clearLine moves the cursor to the start of the line and erases the line (ECMA-48, EL).
const clearLine = "\r\x1b[K"
