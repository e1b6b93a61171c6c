//go:build programs

// Package e2e pins, in go.mod, the versions of the control plane's programs that controlplane.sh builds.
package e2e

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
)
