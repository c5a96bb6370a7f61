#!/bin/sh
# The agent, and a Prometheus in agent mode that scrapes it once a minute and pushes by remote write.
#
#   PKTVISORD_ARGS   arguments of the agent (eth0), split at blanks; with a ; in it, at each ; instead
#   REMOTE_URL       where to push (required)
#   USERNAME, PASSWORD   for basic authentication
#
# Ends when either of the two does.
set -eu

STATE=${STATE:-/etc/agent}
PORT=20853

die() {
  echo "start.sh: $*" >&2
  exit 1
}

# yaml TEXT: as a single-quoted scalar
yaml() {
  printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"
}

[ -n "${REMOTE_URL:-}" ] || die "REMOTE_URL: not set, expected the URL of a remote-write receiver"
mkdir -p "$STATE/data"
(
  umask 077
  cat >"$STATE/agent.yaml" <<YAML
global:
  scrape_interval: 1m
scrape_configs:
  - job_name: prometheus_agent
    static_configs:
      - targets: ['127.0.0.1:$PORT']
  - job_name: pktvisor
    metrics_path: /metrics
    scheme: http
    scrape_interval: 1m
    scrape_timeout: 5s
    honor_timestamps: true
    honor_labels: true
    static_configs:
      - targets: ['localhost:10853']
remote_write:
  - url: $(yaml "$REMOTE_URL")
    basic_auth:
      username: $(yaml "${USERNAME:-}")
      password: $(yaml "${PASSWORD:-}")
YAML
)

args=${PKTVISORD_ARGS:-eth0}
set -f
case $args in
*\;*)
  # "-b; port 53; eth0": a blank after a ; belongs to the ;
  args=$(printf %s "$args" | sed 's/; /;/g')
  IFS=';'
  ;;
esac
# splitting is what is wanted
# shellcheck disable=SC2086
set -- $args
unset IFS
set +f

pktvisord --prometheus "$@" &
agent=$!
prometheus --enable-feature=agent --config.file="$STATE/agent.yaml" --storage.agent.path="$STATE/data" \
  --web.listen-address="127.0.0.1:$PORT" --log.level=info &
pusher=$!

trap 'kill $agent $pusher 2>/dev/null; wait; exit 0' INT TERM
# `wait -n` is not in every shell
while kill -0 $agent 2>/dev/null && kill -0 $pusher 2>/dev/null; do
  sleep 1 &
  wait $! || true
done
status=0
kill -0 $agent 2>/dev/null || wait $agent || status=$?
kill $agent $pusher 2>/dev/null || true
wait
echo "start.sh: one of the two has ended" >&2
[ $status != 0 ] || status=1
exit $status
