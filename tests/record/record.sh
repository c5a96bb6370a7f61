#!/bin/bash
# Records the captures of tests/captures from real programs that talk between two network namespaces.
#
#   sudo tests/record/record.sh [OUTDIR]          (default: tests/captures)
#
# Needs root, iproute2, tcpdump, dnsmasq, unbound, dig, nginx, curl, dhclient, bird2, ping, mergecap, editcap.
# The bytes differ from run to run (ports, ids, stamps); the tests take their expectations from tshark, so a new
# recording needs no other change.
. "$(dirname "$0")/stage.sh"

# ---- name servers: dnsmasq on 10.77.0.2, unbound on port 53 of a second address -----------------------------
ip -n "$b" addr add 10.77.0.53/24 dev np0
ip -n "$b" addr add fd77::53/64 dev np0 nodad
daemon "$b" dnsmasq --keep-in-foreground --no-hosts --no-resolv --conf-file=/dev/null --pid-file= --user=root \
    --bind-interfaces --listen-address=10.77.0.2,fd77::2 --local=/example.test/ \
    --address=/www.example.test/10.77.0.80 --address=/www.example.test/fd77::80 \
    --txt-record=txt.example.test,"a short text" --mx-host=example.test,mail.example.test,10 \
    --cname=alias.example.test,www.example.test --host-record=mail.example.test,10.77.0.25
big=""
for i in $(seq 40); do
    big+="    local-data: 'big.example.test. 300 IN TXT \"$(printf '%03d' "$i")-$(printf 'x%.0s' $(seq 60))\"'"$'\n'
done
cat >"$tmp/unbound.conf" <<CONF
server:
    interface: 10.77.0.53
    interface: fd77::53
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    username: ""
    chroot: ""
    directory: "$tmp"
    pidfile: "$tmp/unbound.pid"
    use-syslog: no
    do-daemonize: no
    max-udp-size: 4096
    edns-buffer-size: 4096
    local-zone: "example.test." static
    local-data: 'www.example.test. 300 IN A 10.77.0.80'
    local-data: 'www.example.test. 300 IN AAAA fd77::80'
    local-data: 'srv.example.test. 300 IN SRV 0 5 443 www.example.test.'
$big
    local-zone: "refused.test." refuse
remote-control:
    control-enable: no
CONF
daemon "$b" unbound -d -c "$tmp/unbound.conf"
sleep 2

dig_a() { in_a dig +tries=1 +time=2 "$@" >>"$tmp/dig.log" 2>&1 || true; }

record dns-udp.pcap port 53
for server in 10.77.0.2 fd77::2; do
    dig_a "@$server" www.example.test A
    dig_a "@$server" www.example.test AAAA
    dig_a "@$server" txt.example.test TXT
    dig_a "@$server" example.test MX
    dig_a "@$server" alias.example.test A
    dig_a "@$server" WwW.ExAmPlE.tEsT A
    dig_a "@$server" missing.example.test A
    dig_a "@$server" +noedns mail.example.test A
    dig_a "@$server" +cdflag +adflag www.example.test A
    dig_a "@$server" +subnet=192.0.2.0/24 www.example.test A
    dig_a "@$server" +subnet=2001:db8:1234::/48 www.example.test AAAA
    dig_a "@$server" +subnet=0.0.0.0/0 www.example.test A
    dig_a "@$server" elsewhere.invalid A
done
for server in 10.77.0.53 fd77::53; do
    dig_a "@$server" srv.example.test SRV
    dig_a "@$server" www.refused.test A
    dig_a "@$server" www.example.test HTTPS
    dig_a "@$server" missing.example.test A
done
dig_a @10.77.0.9 nobody.listens.test A
stop

# large answers in fragments: the datagram is bigger than the link's 1500
record dns-fragments.pcap 'host 10.77.0.53 or host fd77::53'
for server in 10.77.0.53 fd77::53; do
    dig_a "@$server" +bufsize=4096 +ignore big.example.test TXT
    dig_a "@$server" +bufsize=4096 +ignore www.example.test A
done
stop

# several queries on one connection, answers longer than a segment (small MSS by route)
mss 400
record dns-tcp.pcap 'host 10.77.0.53 or host fd77::53'
dig_a @10.77.0.53 +tcp +keepopen www.example.test A big.example.test TXT missing.example.test A www.example.test AAAA
dig_a @10.77.0.53 +tcp www.example.test A
dig_a @fd77::53 +tcp +keepopen www.example.test A srv.example.test SRV www.refused.test A
# three queries in one segment, then one cut into single bytes
in_a python3 - <<'PY' || true
import socket, struct, time

def query(ident, name):
    labels = b"".join(bytes([len(x)]) + x for x in name.encode().split(b".")) + b"\0"
    message = struct.pack(">6H", ident, 0x100, 1, 0, 0, 0) + labels + struct.pack(">2H", 1, 1)
    return struct.pack(">H", len(message)) + message

s = socket.create_connection(("10.77.0.53", 53))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.sendall(b"".join(query(100 + i, name) for i, name in enumerate(["www.example.test", "no.example.test", "x.refused.test"])))
time.sleep(0.3)
for byte in query(200, "www.example.test"):
    s.send(bytes([byte]))
    time.sleep(0.005)
time.sleep(0.3)
s.recv(65536)
s.close()
PY
stop

# ---- HTTP: nginx and curl ------------------------------------------------------------------------------------
mkdir -p "$tmp/www"
head -c 12000 /dev/zero | tr '\0' 'n' >"$tmp/www/page.html"
cat >"$tmp/nginx.conf" <<CONF
user root;
daemon off;
pid $tmp/nginx.pid;
error_log $tmp/nginx.err;
events { }
http { access_log off; server { listen 10.77.0.2:80; listen [fd77::2]:80; root $tmp/www; } }
CONF
daemon "$b" nginx -c "$tmp/nginx.conf"
listening 80
record http.pcap port 80
in_a curl -s http://10.77.0.2/page.html http://10.77.0.2/missing >/dev/null || true
in_a curl -s -g -o /dev/null 'http://[fd77::2]/page.html' || true
in_a curl -s -o /dev/null --connect-timeout 1 http://10.77.0.9/page.html || true
stop

# ---- ICMP: echo, fragments, unreachable ----------------------------------------------------------------------
record icmp.pcap 'icmp or icmp6 or arp or udp port 9999 or ip[6:2] & 0x3fff != 0 or ip6 proto 44'
in_a ping -c 3 -i 0.2 10.77.0.2 >/dev/null
in_a ping -c 3 -i 0.2 fd77::2 >/dev/null
in_a ping -c 2 -i 0.2 -s 3000 10.77.0.2 >/dev/null
in_a ping -c 2 -i 0.2 -s 3000 fd77::2 >/dev/null
in_a python3 -c '
import socket
for family, host in ((socket.AF_INET, "10.77.0.2"), (socket.AF_INET6, "fd77::2")):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.sendto(b"nobody home", (host, 9999))
'
stop

# ---- BGP: bird on both sides ---------------------------------------------------------------------------------
for side in 1 2; do
    other=$((3 - side))
    cat >"$tmp/bird$side.conf" <<CONF
log "$tmp/bird$side.log" all;
router id 10.77.0.$side;
protocol device { }
protocol static s4 { ipv4; $(for i in $(seq 1 20); do echo "route 198.51.$((side * 100 + i)).0/24 blackhole;"; done) }
protocol static s6 { ipv6; $(for i in $(seq 1 5); do echo "route 2001:db8:$side$i::/48 blackhole;"; done) }
protocol bgp peer {
    local 10.77.0.$side as 6500$side;
    neighbor 10.77.0.$other as 6500$other;
    connect delay time 1; error wait time 1, 2; keepalive time 2; hold time 6;
    ipv4 { import all; export all; };
    ipv6 { import all; export all; next hop address fd77::$side; };
}
CONF
done
record bgp.pcap 'tcp port 179'
daemon "$a" bird -f -c "$tmp/bird1.conf" -s "$tmp/bird1.ctl"
bird_a=${pids[-1]}
daemon "$b" bird -f -c "$tmp/bird2.conf" -s "$tmp/bird2.ctl"
bird_b=${pids[-1]}
sleep 9
in_a birdc -s "$tmp/bird1.ctl" reload in peer >/dev/null || true # route refresh
sleep 1
in_a birdc -s "$tmp/bird1.ctl" disable s4 >/dev/null || true # withdrawals
sleep 2
in_a birdc -s "$tmp/bird1.ctl" disable peer >/dev/null || true # notification
sleep 1
kill "$bird_a" "$bird_b" || true
stop

# ---- DHCP: dnsmasq and dhclient, both families ---------------------------------------------------------------
daemon "$b" dnsmasq --keep-in-foreground --port=0 --conf-file=/dev/null --pid-file= --user=root --interface=np0 \
    --dhcp-leasefile="$tmp/leases" --dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0,10m --enable-ra \
    --dhcp-range=fd77::100,fd77::1ff,64,10m --dhcp-authoritative
sleep 2
record dhcp.pcap 'udp port 67 or udp port 68 or udp port 546 or udp port 547'
echo 'send host-name "np-client"; request subnet-mask, routers;' >"$tmp/dhclient.conf"
in_a timeout 15 dhclient -4 -1 -d -sf /bin/true -cf "$tmp/dhclient.conf" -lf "$tmp/lease4" -pf "$tmp/dh4.pid" np0 >"$tmp/dh4.log" 2>&1 &
d4=$!
sleep 6
in_a timeout 15 dhclient -6 -1 -d -sf /bin/true -lf "$tmp/lease6" -pf "$tmp/dh6.pid" np0 >"$tmp/dh6.log" 2>&1 &
d6=$!
sleep 7
kill "$d4" "$d6" 2>/dev/null || true
wait "$d4" "$d6" 2>/dev/null || true
in_a timeout 5 dhclient -4 -r -sf /bin/true -cf "$tmp/dhclient.conf" -lf "$tmp/lease4" -pf "$tmp/dh4.pid" np0 >/dev/null 2>&1 || true
stop

# ---- the README's capture: some of everything, in order of time, and a piece cut by a snap length -------------
(
    cd "$out"
    mergecap -F pcap -w "$tmp/demo.pcap" dns-udp.pcap dns-tcp.pcap http.pcap icmp.pcap dhcp.pcap bgp.pcap dns-fragments.pcap
)
cp "$tmp/demo.pcap" "$out/demo.pcap"
editcap -F pcap -s 96 "$out/http.pcap" "$out/http-snap96.pcap"
chmod 644 "$out"/*.pcap
ls -l "$out"
