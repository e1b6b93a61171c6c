package cluster

import (
	"errors"
	"time"

	"egress-agent/scripts/e2e/measure"
)

// CPU has the CPU times that the programs of a control plane have used.
type CPU struct{ APIServer, Etcd time.Duration }

// CPU returns the CPU times since Start. If this process runs several control planes, it may return those of another.
func (c *Cluster) CPU() (CPU, error) {
	of := func(program string) (time.Duration, error) {
		pid, err := measure.ChildPID(program)
		if err != nil {
			return 0, err
		}
		return measure.CPU(pid)
	}
	apiserver, apiserverErr := of("kube-apiserver")
	etcd, etcdErr := of("etcd")
	return CPU{APIServer: apiserver, Etcd: etcd}, errors.Join(apiserverErr, etcdErr)
}

// Sub returns the CPU times since an earlier result.
func (c CPU) Sub(earlier CPU) CPU { return CPU{c.APIServer - earlier.APIServer, c.Etcd - earlier.Etcd} }
