# What the recorders share: two network namespaces joined by a veth pair, programs inside, tcpdump on side a.
#
#   . stage.sh [OUTDIR]     (default: tests/captures)
#
# Addresses are 10.77.0.1 and fd77::1 in namespace $a, .2 and ::2 in $b; the interface is np0 in both. $tmp is a
# folder for everything else. All of it, daemons too, ends with the script. Needs root, iproute2, tcpdump, python3.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

out=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../captures}")
mkdir -p "$out"
tmp=$(mktemp -d)
chmod 755 "$tmp"
a=np-a-$$
b=np-b-$$
pids=()

finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
    rm -rf "$tmp"
}
trap finish EXIT

in_a() { ip netns exec "$a" "$@"; }
in_b() { ip netns exec "$b" "$@"; }
# a program inside namespace $1 that goes on; ${pids[-1]} is its process
daemon() {
    local ns=$1
    shift
    ip netns exec "$ns" "$@" >"$tmp/log.${#pids[@]}" 2>&1 </dev/null &
    pids+=($!)
}
# until something in namespace b listens on that port
listening() {
    for _ in $(seq 100); do
        in_b ss -Hlntu "sport = :$1" | grep -q . && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    cat "$tmp"/log.* >&2
    exit 1
}
# the largest segment that either end sends over IPv4; 0: the link's
mss() {
    for ns in "$a" "$b"; do
        ip -n "$ns" route change 10.77.0.0/24 dev np0 advmss "$1"
    done
}

# record NAME [tcpdump options]: starts; stop: ends and puts the file in place
record() {
    name=$1
    shift
    ip netns exec "$a" tcpdump -i np0 --immediate-mode -U -w "$tmp/$name" "$@" 2>"$tmp/$name.log" &
    recorder=$!
    for _ in $(seq 50); do
        grep -qs "listening on" "$tmp/$name.log" && break
        sleep 0.1
    done
}
stop() {
    sleep 0.5
    kill -INT "$recorder"
    wait "$recorder" || true
    cp "$tmp/$name" "$out/$name"
    chmod 644 "$out/$name"
    echo "$name: $(stat -c %s "$out/$name") bytes"
}

ip netns add "$a"
ip netns add "$b"
ip link add np0 netns "$a" type veth peer name np0 netns "$b"
for side in 1 2; do
    ns=$a
    [ $side = 2 ] && ns=$b
    ip -n "$ns" link set lo up
    # no offloads (checksum, TSO, GSO): frames as a wire would carry them. What ethtool -K does, without ethtool.
    ip netns exec "$ns" python3 - <<'PY'
import array, fcntl, socket, struct
s = socket.socket()
for command in (0x17, 0x1F, 0x24):
    value = array.array("B", struct.pack("II", command, 0))
    fcntl.ioctl(s, 0x8946, struct.pack("16sP", b"np0", value.buffer_info()[0]))
PY
    ip -n "$ns" addr add "10.77.0.$side/24" dev np0
    ip -n "$ns" addr add "fd77::$side/64" dev np0 nodad
    ip -n "$ns" link set np0 up
done
sleep 2 # neighbour discovery of link-local addresses
