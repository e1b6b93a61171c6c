// Package e2e is the root of a module that tests the two built programs. Tests with the same needs share a package:
//
//	agent     the agent on a control plane: what tenants do, stops and elections, AWS's ranges, status and explain
//	webhook   the webhook on a control plane, and alone
//	deploy    the manifests, the preflight check, the RBAC rules and the alerts, on a control plane
//	docs      the commands of the Markdown files, on a control plane; the examples, comments and schema, without
//	faults    the agent while something fails: process, cluster, network and feed, with E2E_ALL
//	mirror    egress-agent mirror, between two control planes
//	replay    a month of documents, one after the other; with E2E_ALL and IP_RANGES_DATA AWS's, also to many policies
//	hostile   both programs under attack, within the limits of the Pods
//	script    the offline commands, without a cluster
//	shell     the Makefile and the scripts; a release is deployed to a control plane
//	walk      the commands of README.md in an empty folder, with Go, git, make and openssl alone
//	page      the page of egress-agent status, in a browser
//	deployed  deploy/README.md's "Deploy images of your own", on a cluster with Pods
//
// Package harness starts a control plane for each package. bench, benchwebhook and benchhostile are benchmark programs.
package e2e
