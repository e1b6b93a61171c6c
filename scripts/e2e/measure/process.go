package measure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Process is a running program. If this process is killed, the kernel kills the program.
type Process struct {
	PID       int
	StartedAt time.Time
	// Log is the file with the program's output.
	Log string

	command *exec.Cmd
}

// Supervised is a program that starts again after it has ended by itself, as a kubelet starts a container again.
type Supervised struct {
	start func() (*Process, error)

	mu       sync.Mutex
	process  *Process // nil after a start has failed
	isKilled bool
	restarts int
	cpu      time.Duration // of the processes that have ended
	peak     int64         // the largest resident size of these
	ended    chan struct{} // closed after the last process has ended
}

// restartDelay is the time until a program starts again. A kubelet waits longer after each end.
const restartDelay = time.Second

// Supervise starts a program with start, and again each time that it ends, until Kill.
func Supervise(start func() (*Process, error)) (*Supervised, error) {
	p, err := start()
	if err != nil {
		return nil, err
	}
	s := &Supervised{start: start, process: p, ended: make(chan struct{})}
	go s.run(p)
	return s, nil
}

func (s *Supervised) run(p *Process) {
	defer close(s.ended)
	for p != nil {
		_ = p.command.Wait()
		s.mu.Lock()
		if usage, ok := p.command.ProcessState.SysUsage().(*syscall.Rusage); ok {
			s.peak = max(s.peak, usage.Maxrss<<10)
		}
		s.cpu += p.command.ProcessState.UserTime() + p.command.ProcessState.SystemTime()
		s.process = nil
		isKilled := s.isKilled
		s.mu.Unlock()
		if isKilled {
			return
		}
		time.Sleep(restartDelay)
		s.mu.Lock()
		if p = nil; !s.isKilled {
			s.restarts++
			p, _ = s.start()
			s.process = p
		}
		s.mu.Unlock()
	}
}

// Restarts returns how often the program has started again.
func (s *Supervised) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// CPU returns the CPU time that all its processes have used.
func (s *Supervised) CPU() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return s.cpu, nil
	}
	current, err := s.process.CPU()
	return s.cpu + current, err
}

// Peak returns the largest resident size of its processes in bytes.
func (s *Supervised) Peak() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return s.peak, nil
	}
	current, err := s.process.Peak()
	return max(s.peak, current), err
}

// Kill ends the program for good.
func (s *Supervised) Kill() {
	s.mu.Lock()
	s.isKilled = true
	if s.process != nil {
		_ = s.process.command.Process.Kill()
	}
	s.mu.Unlock()
	<-s.ended
}

// Start runs a program. It appends the program's output to PROGRAM.log in the folder dir. env are additional NAME=value
// pairs of its environment; nil adds none.
func Start(dir, program string, env []string, args ...string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{StartedAt: time.Now(), Log: log.Name(), command: exec.Command(program, args...)}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	p.PID = p.command.Process.Pid
	return p, nil
}

// Stop sends SIGTERM and waits until the program has ended. It returns an error if the program's status is not 0.
func (p *Process) Stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.command.Wait()
}

// Kill ends the program at once. It may be called again, and after Stop.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// CPU returns the CPU time that the program has used.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.PID) }

// Resident returns the resident size in bytes.
func (p *Process) Resident() (int64, error) { return Memory(p.PID, "VmRSS") }

// Peak returns the largest resident size in bytes.
func (p *Process) Peak() (int64, error) { return Memory(p.PID, "VmHWM") }

// Agent is a running egress-agent.
type Agent struct {
	*Process
	health string // the address of /readyz and /metrics
}

// StartAgent runs egress-agent from the file program, with the flags that all measurements share, followed by args. dir
// is the folder for its output, and ranges the file of AWS's document.
func StartAgent(dir, program, kubeconfig, ranges string, args ...string) (*Agent, error) {
	health, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := Start(dir, program, nil, append([]string{
		"--kubeconfig", kubeconfig, "--ranges-file", ranges, "--ip-family", "ipv4", "--http-addr", health,
		"--leader-elect=false", "--log-level", "warn"}, args...)...)
	return &Agent{p, health}, err
}

// Metric returns the value of a metric. The value of a histogram is its number of observations.
func (a *Agent) Metric(name string) (float64, error) {
	response, err := http.Get("http://" + a.health + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, err
	}
	family := families[name]
	if family == nil {
		return 0, fmt.Errorf("no metric %s", name)
	}
	m := family.GetMetric()[0] // if there are several, the first by labels
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()), nil
}

// IsReady reports whether the agent is ready. A call costs the agent less CPU time than a call of Metric.
func (a *Agent) IsReady() bool {
	response, err := http.Get("http://" + a.health + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Await calls isDone until it returns true, for up to five minutes. It pauses 10 ms between two calls, because each
// call may take CPU time from the measured program. goal is the text of the condition in the error.
func Await(ctx context.Context, goal string, isDone func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for !isDone() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", goal, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// ChildPID returns the process ID of the child of this process that runs a program. name is the name of its file, of at
// most 15 characters, because the kernel cuts longer names.
func ChildPID(name string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // this process has ended
		}
		if err != nil {
			return 0, err
		}
		// proc(5): the process ID, the name in parentheses, the state, the parent's process ID.
		pid, rest, _ := strings.Cut(string(data), " (")
		comm, rest, _ := strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); comm == name && len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			return strconv.Atoi(pid)
		}
	}
	return 0, fmt.Errorf("this process has no child %s", name)
}
