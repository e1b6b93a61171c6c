//go:build programs

// Package e2e tests the two programs, as built, against a real control plane.
//
// This file only pins, in go.mod, what scripts/control-plane.sh builds.
package e2e

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
