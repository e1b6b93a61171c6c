package pod

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"egress-agent/scripts/e2e/measure"
)

// Process is a program that runs within the limits of a Pod.
type Process struct {
	// PID is the process ID. It does not change, because nothing restarts the program.
	PID int
	// Kernel is true if a cgroup enforces the memory limit. Otherwise package pod kills a program that exceeds the
	// limit.
	Kernel bool

	limit   int64
	command *exec.Cmd
	group   *group
	ended   chan struct{}
	err     error // of command.Wait; set before ended is closed

	mu   sync.Mutex
	peak int64
}

// enterScript is a shell script that moves the shell into a cgroup and then executes the program. The cgroup therefore
// counts all memory of the program.
const enterScript = `echo $$ >"$0" && exec "$@"`

// Start runs a program with the flags of the container, followed by args. It writes the output to logFile.
func Start(c Container, program string, args []string, logFile string) (*Process, error) {
	name := fmt.Sprintf("%s-%d-%d", filepath.Base(program), os.Getpid(), time.Now().UnixNano())
	return start(newGroup(name, c.Memory), c, program, args, logFile)
}

func start(g *group, c Container, program string, args []string, logFile string) (*Process, error) {
	output, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p := &Process{Kernel: g != nil, limit: c.Memory, group: g, ended: make(chan struct{})}
	command := append(append([]string{program}, c.Args...), args...)
	if g != nil {
		command = append([]string{"/bin/sh", "-c", enterScript, filepath.Join(g.dir, "cgroup.procs")}, command...)
	}
	p.command = exec.Command(command[0], command[1:]...)
	p.command.Env = append(os.Environ(), c.Env...)
	p.command.Stdout, p.command.Stderr = output, output
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, p.clean())
	}
	p.PID = p.command.Process.Pid
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	go p.watch()
	return p, nil
}

// watch records the peak until the process ends, because afterwards /proc no longer has it. If no cgroup enforces the
// memory limit, watch kills a process that exceeds it.
func (p *Process) watch() {
	for {
		peak := p.Peak()
		if !p.Kernel && peak > p.limit {
			_ = p.command.Process.Kill()
		}
		select {
		case <-p.ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Ended returns how the process ended, or "" while it runs. It assumes that the memory limit caused a SIGKILL, so do
// not call Ended after Kill.
func (p *Process) Ended() string {
	select {
	case <-p.ended:
		if state := p.command.ProcessState; state != nil {
			if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
				return "killed at its memory limit"
			}
			return state.String()
		}
		return fmt.Sprint(p.err)
	default:
		return ""
	}
}

// Peak returns the largest resident size in bytes that the kernel has counted since the start, or since ResetPeak.
func (p *Process) Peak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if peak, err := measure.Memory(p.PID, "VmHWM"); err == nil {
		p.peak = max(p.peak, peak)
	}
	return p.peak
}

// ResetPeak sets the peak to the current resident size, and returns this size in bytes.
func (p *Process) ResetPeak() (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := measure.ResetPeak(p.PID); err != nil {
		return 0, err
	}
	p.peak = 0
	return measure.Memory(p.PID, "VmRSS")
}

// CPU returns the CPU time that the process has used on all cores, in steps of 10 ms.
func (p *Process) CPU() (time.Duration, error) { return measure.CPU(p.PID) }

// Kill ends the process, if it still runs, and removes its cgroup.
func (p *Process) Kill() error {
	_ = p.command.Process.Kill()
	<-p.ended
	return p.clean()
}

func (p *Process) clean() error {
	if p.group == nil {
		return nil
	}
	return p.group.remove()
}
