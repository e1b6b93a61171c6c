package pod

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	for _, program := range []string{"agent", "webhook"} {
		c, err := Read("../../../deploy/base/" + program + ".yaml")
		require.NoError(t, err)
		require.Contains(t, c.Args, "--log-format=json")
		require.GreaterOrEqual(t, c.Memory, int64(64<<20))
		require.Len(t, c.Env, 2)
		require.Regexp(t, `^GOMEMLIMIT=\d+MiB$`, c.Env[0])
		require.Regexp(t, `^GOMAXPROCS=\d$`, c.Env[1])
	}
	_, err := Read("../../../deploy/base/agent-rbac.yaml")
	require.EqualError(t, err, "../../../deploy/base/agent-rbac.yaml: no Deployment")
}

// TestLimit runs a program that allocates memory without end: once without a cgroup and, if this machine allows one,
// once in a cgroup.
func TestLimit(t *testing.T) {
	c := Container{Memory: 32 << 20}
	log := filepath.Join(t.TempDir(), "log")
	greedy := func(g *group) *Process {
		p, err := start(g, c, "tail", []string{"/dev/zero"}, log)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return p.Ended() != "" }, 30*time.Second, 10*time.Millisecond)
		require.Equal(t, "killed at its memory limit", p.Ended())
		require.NoError(t, p.Kill())
		return p
	}
	require.Greater(t, greedy(nil).Peak(), c.Memory)
	g := newGroup("egress-pod-test", c.Memory)
	if g == nil {
		t.Skip("no cgroup can be made here")
	}
	const shared = 4 << 20 // pages of files that the kernel counts in another cgroup
	require.LessOrEqual(t, greedy(g).Peak(), c.Memory+shared)
	require.NoDirExists(t, g.dir)
}

func TestProcess(t *testing.T) {
	p, err := Start(Container{Memory: 64 << 20, Env: []string{"A=b"}}, "sh", []string{"-c", "echo $A; while :; do :; done"}, filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { cpu, err := p.CPU(); return err == nil && cpu >= 50*time.Millisecond }, 30*time.Second, 10*time.Millisecond)
	require.Empty(t, p.Ended())
	require.Positive(t, p.Peak())
	resident, err := p.ResetPeak()
	require.NoError(t, err)
	require.LessOrEqual(t, resident, p.Peak())
	require.NoError(t, p.Kill())
	require.NotEmpty(t, p.Ended())
	data, err := os.ReadFile(p.command.Stdout.(*os.File).Name())
	require.NoError(t, err)
	require.Equal(t, "b\n", string(data))
}
