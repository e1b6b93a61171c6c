// Package pod runs a built program as its Pod does, with the flags, environment, cores and memory limit of the
// manifest. If the program exceeds the memory limit, the kernel kills it, as it would in the Pod.
package pod

import (
	"bytes"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// Container is the only container of a Deployment.
type Container struct {
	Args   []string
	Env    []string // NAME=value; GOMAXPROCS is the CPU limit
	Memory int64    // limit in bytes
}

// Read returns the container of the first Deployment in a manifest. It returns an error if the
// Deployment has no limits.
func Read(file string) (Container, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Container{}, err
	}
	for _, document := range bytes.Split(data, []byte("\n---\n")) {
		var deployment appsv1.Deployment
		if err := yaml.Unmarshal(document, &deployment); err != nil {
			return Container{}, fmt.Errorf("%s: %w", file, err)
		}
		if deployment.Kind != "Deployment" {
			continue
		}
		containers := deployment.Spec.Template.Spec.Containers
		if len(containers) != 1 {
			return Container{}, fmt.Errorf("%s: Deployment %s has %d containers, expected 1", file, deployment.Name, len(containers))
		}
		limits := containers[0].Resources.Limits
		if limits.Memory().IsZero() || limits.Cpu().IsZero() {
			return Container{}, fmt.Errorf("%s: Deployment %s has no limit of memory or of CPU", file, deployment.Name)
		}
		c := Container{Args: containers[0].Args, Memory: limits.Memory().Value()}
		for _, variable := range containers[0].Env {
			c.Env = append(c.Env, variable.Name+"="+variable.Value)
		}
		// The cgroup of package pod limits only the memory. In a Pod the kernel limits the CPU time to this many cores,
		// even if Go runs more threads.
		c.Env = append(c.Env, fmt.Sprintf("GOMAXPROCS=%d", limits.Cpu().Value()))
		return c, nil
	}
	return Container{}, fmt.Errorf("%s: no Deployment", file)
}
