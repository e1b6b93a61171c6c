package filewatch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChanged(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(path, content string) { require.NoError(t, os.WriteFile(path, []byte(content), 0o600)) }
	write(a, "1")
	files := New(a, "", b)
	require.False(t, files.Changed())
	write(a, "12")
	require.True(t, files.Changed())
	require.False(t, files.Changed(), "Changed reports a change once")
	write(b, "1")
	require.True(t, files.Changed(), "a new file")
	require.NoError(t, os.Remove(b))
	require.True(t, files.Changed(), "a removed file")
	require.False(t, files.Changed())
}

// TestChangedLink updates files like a kubelet: it swaps a link to a folder and changes nothing else.
func TestChangedLink(t *testing.T) {
	dir := t.TempDir()
	version := func(name string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		file := filepath.Join(dir, name, "ranges")
		require.NoError(t, os.WriteFile(file, []byte("same size"), 0o600))
		require.NoError(t, os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)), "the same modification time")
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data~")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data~"), filepath.Join(dir, "..data")))
	}
	version("..1")
	mounted := filepath.Join(dir, "ranges")
	require.NoError(t, os.Symlink("..data/ranges", mounted))
	files := New(mounted)
	require.False(t, files.Changed())
	version("..2")
	require.True(t, files.Changed())
	require.False(t, files.Changed())
}
