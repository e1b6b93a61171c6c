# shellcheck shell=bash
# Sourced by the scripts that run both programs beside the local control plane of KUBECONFIG. CLUSTER_DIR is a folder for
# their files, and ranges is the file with AWS's ranges. The script that sources it defines eventually WHAT COMMAND...
: "${CLUSTER_DIR:?run make demo or make playground}"
: "${ranges:?}"
agent=
webhook=
follower=

ready() { # PORT
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
  grep -q '200 OK' <&3
}
free_port() { # prints a port of this machine on which nothing listens
  local port
  while port=$((20000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# start_agent: runs the agent with the rights of its service account, which must exist.
start_agent() {
  if ! [ -e "$CLUSTER_DIR/agent.kubeconfig" ]; then
    local token
    token=$(kubectl create token egress-agent -n egress-system --duration 24h)
    cp "$KUBECONFIG" "$CLUSTER_DIR/agent.kubeconfig"
    kubectl --kubeconfig "$CLUSTER_DIR/agent.kubeconfig" config set-credentials agent --token "$token" >/dev/null
    kubectl --kubeconfig "$CLUSTER_DIR/agent.kubeconfig" config set-context --current --user agent >/dev/null
    agent_port=$(free_port)
  fi
  bin/egress-agent --kubeconfig "$CLUSTER_DIR/agent.kubeconfig" --ranges-file "$ranges" --ip-family ipv4 \
    --http-addr "127.0.0.1:$agent_port" 2>>"$CLUSTER_DIR/egress-agent.log" &
  agent=$!
  eventually "egress-agent is not ready" ready "$agent_port"
}

# follow_platform: keeps the webhook's file with the platform documents equal to the agent's ConfigMap, as a kubelet does
# in a cluster.
follow_platform() {
  kubectl get configmaps -n egress-system --field-selector metadata.name=egress-platform --watch \
    -o 'jsonpath={.binaryData.platform\.json\.gz}{"\n"}' 2>/dev/null > >(while read -r data; do
      base64 -d <<<"$data" >"$CLUSTER_DIR/platform.new" && mv "$CLUSTER_DIR/platform.new" "$CLUSTER_DIR/platform.json.gz"
    done) &
  follower=$!
}

start_webhook() {
  local health_port
  scripts/generate-certs.sh "$CLUSTER_DIR/certs"
  webhook_port=$(free_port)
  health_port=$(free_port)
  bin/egress-webhook --addr "127.0.0.1:$webhook_port" --http-addr "127.0.0.1:$health_port" --ranges-file "$ranges" --ip-family ipv4 \
    --platform-file "$CLUSTER_DIR/platform.json.gz" --tls-cert-file "$CLUSTER_DIR/certs/tls.crt" --tls-key-file "$CLUSTER_DIR/certs/tls.key" 2>"$CLUSTER_DIR/egress-webhook.log" &
  webhook=$!
  follow_platform
  eventually "egress-webhook is not ready" ready "$health_port"
}

# registration: prints the ValidatingWebhookConfiguration. The cluster has no network for Services, so the API server
# calls the webhook by its address.
registration() {
  local client
  client="{\"url\": \"https://127.0.0.1:$webhook_port/validate\", \"caBundle\": \"$(base64 -w0 <"$CLUSTER_DIR/certs/ca.crt")\"}"
  kubectl patch --local -f deploy/base/webhook-configuration.yaml --type json -o yaml -p "[
    {\"op\": \"replace\", \"path\": \"/webhooks/0/clientConfig\", \"value\": $client},
    {\"op\": \"replace\", \"path\": \"/webhooks/1/clientConfig\", \"value\": $client}]"
}

stop_programs() { kill ${agent:+"$agent"} ${webhook:+"$webhook"} ${follower:+"$follower"} 2>/dev/null || true; }
