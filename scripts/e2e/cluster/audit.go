package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

func (c *Cluster) auditLog() string { return filepath.Join(c.Dir, "audit.log") }

// Mark is a position in the audit log.
type Mark int64

// Mark returns the current end of the audit log.
func (c *Cluster) Mark() (Mark, error) {
	info, err := os.Stat(c.auditLog())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return Mark(info.Size()), nil
}

// Failed is the suffix of a write that the API server refused.
const Failed = " failed"

// Writes returns the writes that clients have sent since a mark, in order, each as "VERB RESOURCE NAMESPACE/NAME". It
// includes failed writes, with the suffix Failed. It returns only writes of clients whose user agent begins with
// userAgentPrefix. The source is the audit log, which the API server writes before it answers.
func (c *Cluster) Writes(since Mark, userAgentPrefix string) ([]string, error) {
	file, err := os.Open(c.auditLog())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(int64(since), 0); err != nil {
		return nil, err
	}
	var writes []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, err
		}
		if event.ObjectRef == nil || !strings.HasPrefix(event.UserAgent, userAgentPrefix) {
			continue
		}
		ref := event.ObjectRef
		write := event.Verb + " " + ref.Resource + " " + ref.Namespace + "/" + ref.Name
		if event.ResponseStatus != nil && event.ResponseStatus.Code >= 400 {
			write += Failed
		}
		writes = append(writes, write)
	}
	return writes, lines.Err()
}
