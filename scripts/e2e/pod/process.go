package pod

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs within the limits of its Pod.
type Process struct {
	// PID is the one it starts with. Nothing ever starts it again.
	PID int
	// Kernel reports whether a cgroup holds the limit. Without one, Start kills what passes it.
	Kernel bool

	limit   int64
	command *exec.Cmd
	group   *group
	ended   chan struct{}
	err     error // of the command, once it has ended

	mu   sync.Mutex
	peak int64
}

// enter is a shell's script that puts the shell into a cgroup and then becomes the program, so that all of the
// program's memory counts.
const enter = `echo $$ >"$0" && exec "$@"`

// Start runs a program with the container's flags, then args, and writes its output to the file log.
func Start(c Container, program string, args []string, log string) (*Process, error) {
	name := fmt.Sprintf("%s-%d-%d", filepath.Base(program), os.Getpid(), time.Now().UnixNano())
	return start(newGroup(name, c.Memory), c, program, args, log)
}

func start(g *group, c Container, program string, args []string, log string) (*Process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p := &Process{Kernel: g != nil, limit: c.Memory, group: g, ended: make(chan struct{})}
	command := append(append([]string{program}, c.Args...), args...)
	if g != nil {
		command = append([]string{"/bin/sh", "-c", enter, filepath.Join(g.dir, "cgroup.procs")}, command...)
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

// watch keeps the peak, which the kernel forgets with the process, and kills what passes a limit that no cgroup holds.
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

// Ended returns how the process ended, and "" while it runs. It takes a kill for the limit's, so it is for before Kill.
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

// Peak returns the largest resident size so far in bytes, by the kernel's own account, since the start or since
// ResetPeak.
func (p *Process) Peak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if peak, err := p.status("VmHWM"); err == nil {
		p.peak = max(p.peak, peak)
	}
	return p.peak
}

// ResetPeak lets the peak begin anew at the present resident size, which it returns in bytes.
func (p *Process) ResetPeak() (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := os.WriteFile(p.proc("clear_refs"), []byte("5"), 0); err != nil { // proc(5): it resets VmHWM
		return 0, err
	}
	p.peak = 0
	return p.status("VmRSS")
}

// CPU returns the time that the process has had of all cores together, in steps of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	data, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	user, userErr := strconv.Atoi(fields[13])
	system, systemErr := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(userErr, systemErr)
}

func (p *Process) proc(file string) string { return fmt.Sprintf("/proc/%d/%s", p.PID, file) }

// status reads a size from /proc/PID/status, in bytes.
func (p *Process) status(field string) (int64, error) {
	data, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(data), field+":")
	if !found {
		return 0, fmt.Errorf("no %s in %s", field, p.proc("status"))
	}
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return kilobytes * 1024, err
}

// Kill ends the process at once, if it has not ended by itself, and removes its cgroup.
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
