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

// isTerminal says whether a person looks at what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
}

// takesColour also asks https://no-color.org.
func takesColour(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }

// progress tells a person, and nobody else, of what takes over a second.
type progress struct {
	terminal io.Writer // nil where nobody looks
	count    atomic.Int64
}

func newProgress(w io.Writer) *progress {
	if !isTerminal(w) {
		w = nil
	}
	return &progress{terminal: w}
}

// start tells of reading from a server until done is called.
func (p *progress) start(server string) (done func()) {
	if p.terminal == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
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
		telling.Wait()
	}
}

// clearLine goes back to the line's start, and erases it (ECMA-48, EL).
const clearLine = "\r\x1b[K"
