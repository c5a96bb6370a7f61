#!/bin/bash
# Records the captures of the application decoders: HTTP, TLS, RADIUS, PostgreSQL between two network namespaces.
#
#   sudo tests/record/record_apps.sh [OUTDIR]          (default: tests/captures)
#
# Needs root, iproute2, tcpdump, python3, nginx, curl, openssl, freeradius, radclient, PostgreSQL's initdb and
# postgres, psql. As with record.sh the bytes differ from run to run and the tests ask tshark.
. "$(dirname "$0")/stage.sh"

# ---- HTTP: nginx, and a few lines of Python for what it cannot do; curl, and Python for what curl cannot -------
mkdir -p "$tmp/www/made"
head -c 2500 /dev/zero | tr '\0' 'n' >"$tmp/www/page.html"
echo 'small' >"$tmp/www/small.txt"
# server-side includes have no length beforehand: chunked, or to the end of the connection for HTTP/1.0
echo '<!--#echo var="uri" --> made on the way' >"$tmp/www/made/index.html"
cat >"$tmp/nginx.conf" <<CONF
user root;
daemon off;
pid $tmp/nginx.pid;
error_log $tmp/nginx.err;
events { }
http {
    access_log off;
    types { text/html html; text/plain txt; }
    server {
        listen 10.77.0.2:80;
        listen [fd77::2]:80;
        root $tmp/www;
        location /made/ { ssi on; index index.html; }
        location /post { client_max_body_size 1m; proxy_pass http://127.0.0.1:8081; }
        location /moved { return 302 /page.html; }
    }
    server { listen 127.0.0.1:8081; location / { return 200 "taken"; } }
}
CONF
daemon "$b" nginx -c "$tmp/nginx.conf"
listening 80
# answers 101 to whoever wants to switch, then echoes
cat >"$tmp/switch.py" <<'PY'
import socket
server = socket.create_server(("10.77.0.2", 8080))
while True:
    s, _ = server.accept()
    data = b""
    while b"\r\n\r\n" not in data:
        data += s.recv(4096)
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
    while data := s.recv(4096):
        s.sendall(data)
    s.close()
PY
daemon "$b" python3 "$tmp/switch.py"
listening 8080
www=http://10.77.0.2
fetch() { in_a curl -s "$@" >/dev/null || true; }
record app-http.pcap 'tcp port 80 or tcp port 8080'
# one connection, several requests
fetch -e 'http://before.example/' $www/page.html $www/small.txt $www/missing $www/moved $www/made/
fetch -I $www/page.html --next $www/small.txt
fetch -g 'http://[fd77::2]/small.txt?query=1&x=%20y' -H 'Host: named.example'
fetch -H 'If-Modified-Since: Tue, 01 Jan 2047 00:00:00 GMT' $www/small.txt --next $www/small.txt
head -c 1800 /dev/zero | tr '\0' 'b' >"$tmp/body"
fetch --data-binary "@$tmp/body" -H 'Expect: 100-continue' $www/post --next $www/small.txt
fetch -X POST -H 'Transfer-Encoding: chunked' -d "@$tmp/body" $www/post --next $www/small.txt
fetch --http1.0 $www/made/
fetch -X OPTIONS -A '' $www/small.txt
mss 300
fetch -A "$(printf 'long agent %.0s' $(seq 60))" $www/page.html --next -H "Cookie: $(printf 'c%.0s' $(seq 1000))" $www/made/
in_a python3 - <<'PY'
import socket, time

def talk(port, *pieces, wait=0.15):
    s = socket.create_connection(("10.77.0.2", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        s.sendall(piece)
        time.sleep(0.004 if len(piece) == 1 else wait)
    time.sleep(wait)
    s.settimeout(0.3)
    try:
        while s.recv(65536):
            pass
    except TimeoutError:
        pass
    s.close()

def get(path, more="", method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: pipe.example\r\n{more}\r\n".encode()

# five requests in one segment, of which one wants no body
talk(80, get("/small.txt") + get("/missing") + get("/page.html", method="HEAD") + get("/made/") + get("/small.txt?5"))
# one byte at a time
talk(80, *[bytes([c]) for c in get("/small.txt?slow", "User-Agent: one by one\r\n")])
# a request and a half, then the rest
two = get("/small.txt?first") + get("/small.txt?second")
talk(80, two[:80], two[80:])
talk(8080, get("/echo", "Connection: Upgrade\r\nUpgrade: echo\r\n"), b"GET this is not HTTP any more\r\n\r\n", b"\0\1\2")
# no HTTP at all
talk(80, b"FOO\r\n\r\n")
PY
mss 0
stop

# ---- TLS: openssl's client and server --------------------------------------------------------------------------
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$tmp/key.pem" -out "$tmp/cert.pem" -days 30 -subj /CN=np.example \
    2>/dev/null
daemon "$b" openssl s_server -accept 10.77.0.2:443 -key "$tmp/key.pem" -cert "$tmp/cert.pem" -quiet -WWW -groups X25519:P-256
listening 443
hello() { in_a timeout 3 openssl s_client -connect 10.77.0.2:443 "$@" </dev/null >/dev/null 2>&1 || true; }
record app-tls.pcap 'tcp port 443'
hello -servername tls13.np.example -tls1_3
hello -servername tls12.np.example -tls1_2
hello -servername rsa.np.example -tls1_2 -cipher AES128-SHA
hello -noservername -tls1_2
hello -noservername -tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256
# a group that the server must ask for: hello retry request
hello -servername retry.np.example -tls1_3 -groups X448:P-256
# hellos longer than a record and than a segment
alpn=$(for i in $(seq 60); do printf 'protocol-%02d,' "$i"; done)
hello -servername records.np.example -max_send_frag 512 -alpn "${alpn%,}"
mss 200
hello -servername segments.np.example -alpn "${alpn%,}"
hello -servername both.np.example -tls1_2 -max_send_frag 512 -alpn "${alpn%,}"
mss 0
# somebody who speaks something else
in_a python3 -c '
import socket
s = socket.create_connection(("10.77.0.2", 443))
s.sendall(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
s.settimeout(1)
s.recv(1000)
' || true
stop

# ---- RADIUS: freeradius and radclient ---------------------------------------------------------------------------
mkdir -p "$tmp/raddb"
echo '$INCLUDE /usr/share/freeradius/dictionary' >"$tmp/raddb/dictionary"
cat >"$tmp/raddb/users" <<'USERS'
bob Cleartext-Password := "secret"
    Service-Type = Framed-User, Framed-Protocol = PPP, Framed-IP-Address = 10.1.2.3,
    Framed-IP-Netmask = 255.255.255.0
asker Auth-Type := Accept, Response-Packet-Type := Access-Challenge
    Reply-Message = "and then?", State = 0x01
USERS
cat >"$tmp/raddb/radiusd.conf" <<CONF
prefix = /usr
libdir = /usr/lib/freeradius
logdir = $tmp
run_dir = $tmp
modules {
    pap { }
    files {
        usersfile = $tmp/raddb/users
    }
    always ok {
        rcode = ok
    }
}
client np { ipaddr = 10.77.0.0/24
    secret = testing123
}
server default {
    listen { type = auth
        ipaddr = 10.77.0.2
        port = 1812
    }
    listen { type = acct
        ipaddr = 10.77.0.2
        port = 1813
    }
    authorize {
        files
        pap
    }
    authenticate {
        Auth-Type PAP {
            pap
        }
    }
    accounting {
        ok
    }
}
CONF
daemon "$b" freeradius -f -l stdout -d "$tmp/raddb"
listening 1812
ask() { echo "$2" | in_a radclient -r 1 -t 2 "10.77.0.2:$3" "$1" testing123 >/dev/null 2>&1 || true; }
record app-radius.pcap 'udp port 1812 or udp port 1813'
ask auth 'User-Name = "bob", User-Password = "secret", Service-Type = Framed-User, NAS-Port = 3' 1812
ask auth 'User-Name = "bob", User-Password = "wrong"' 1812
ask auth 'User-Name = "asker", User-Password = "x", Service-Type = Administrative-User' 1812
ask auth 'User-Name = "übung@example", CHAP-Password = 0x0102030405060708090a0b0c0d0e0f1011' 1812
ask acct 'User-Name = "bob", Acct-Status-Type = Start, Acct-Session-Id = "S-0001", Framed-IP-Address = 10.1.2.3, Framed-Protocol = PPP, Framed-IP-Netmask = 255.255.255.255' 1813
ask acct 'User-Name = "bob", Acct-Status-Type = Interim-Update, Acct-Session-Id = "S-0001", Acct-Input-Octets = 77' 1813
ask acct 'User-Name = "bob", Acct-Status-Type = Stop, Acct-Session-Id = "S-0001", Acct-Terminate-Cause = User-Request' 1813
ask acct 'Acct-Status-Type = Accounting-On' 1813
stop

# ---- PostgreSQL: the server and psql ----------------------------------------------------------------------------
mkdir "$tmp/pg"
chown postgres "$tmp/pg"
run_pg() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
initdb=$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -1)
(cd / && run_pg "$initdb" -D "$tmp/pg" -U np -A trust >/dev/null)
echo 'host all all 10.77.0.0/24 trust' >>"$tmp/pg/pg_hba.conf"
daemon "$b" setpriv --reuid=postgres --regid=postgres --clear-groups \
    "$(dirname "$(realpath "$initdb")")/postgres" -D "$tmp/pg" -h 10.77.0.2 -k "$tmp/pg" -c ssl=off
listening 5432
sql() { in_a env PGCONNECT_TIMEOUT=3 psql -X -q -h 10.77.0.2 -U np "$@" >/dev/null 2>&1 || true; }
record app-postgres.pcap 'tcp port 5432'
PGSSLMODE=prefer sql -d postgres -c 'select 1' -c 'create table t (a int, b text)' \
    -c "insert into t select n, repeat('x', 20) from generate_series(1, 30) n" -c 'select * from t' \
    -c 'select nothing from nowhere' -c 'update t set a = a + 1 where a < 11'
PGSSLMODE=disable sql -d postgres -c 'select 1; select 2; select count(*) from t'
PGSSLMODE=disable sql -d nowhere -c 'select 1'
mss 120
PGSSLMODE=disable sql -d postgres -c "select '$(printf 'y%.0s' $(seq 300))'" -c 'copy t to stdout' -c 'delete from t'
mss 0
stop
ls -l "$out"/app-*
