"""Ports to decoders; records as Python objects for tests and for looking at them."""
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

cdef enum:
    # the ports that carry these whatever is configured (spec 6.0)
    PORT_DHCP_SERVER = 67
    PORT_DHCP_CLIENT = 68
    PORT_HTTP = 80
    PORT_TLS = 443


cdef void app_ports_init(AppPorts *p, uint32_t decoders, uint16_t dns_port, const uint16_t *http, uint32_t n_http,
                         const uint16_t *radius, uint32_t n_radius) noexcept nogil:
    cdef uint32_t i
    memset(p, 0, sizeof(AppPorts))
    # the order matters: a later line takes a port from an earlier one
    p.udp[dns_port] = APP_ID_DNS
    for i in range(n_http):
        p.tcp[http[i]] = APP_ID_HTTP
    for i in range(n_radius):
        p.udp[radius[i]] = APP_ID_RADIUS
    if decoders >> APP_ID_DHCP & 1:
        p.udp[PORT_DHCP_SERVER] = p.udp[PORT_DHCP_CLIENT] = APP_ID_DHCP
    if decoders >> APP_ID_HTTP & 1:
        p.tcp[PORT_HTTP] = APP_ID_HTTP
    if decoders >> APP_ID_TLS & 1:
        p.tcp[PORT_TLS] = APP_ID_TLS


# --- for tests ----------------------------------------------------------------------------------------------------

FIELDS = {
    APP_ID_DNS: (("name", "answers", "", ""), ("type", "rcode", "", ""), ("", "", "")),
    APP_ID_HTTP: (("url", "host", "referer", "agent"), ("status", "", "", ""), ("", "", "")),
    APP_ID_TLS: (("name", "", "", ""), ("version", "cipher", "", ""), ("", "", "")),
    APP_ID_DHCP: (("hardware", "host", "domain", ""), ("op", "type", "lease", ""), ("client", "your", "server")),
    APP_ID_RADIUS: (("user", "", "session", ""), ("code", "service", "status", "protocol"), ("address", "mask", "")),
    APP_ID_POSTGRES: (("user", "database", "statement", "error"), ("rows", "", "", ""), ("", "", "")),
}
NAMES = {APP_ID_DNS: "dns", APP_ID_HTTP: "http", APP_ID_TLS: "tls", APP_ID_DHCP: "dhcp", APP_ID_RADIUS: "radius",
         APP_ID_POSTGRES: "postgres"}


cdef object app_dict(const AppRecord *r):
    """A record by field names: text and addresses as bytes, `ms` and `ns` when it has a latency."""
    cdef int i
    texts, nums, addrs = FIELDS[r.app]
    out = {"app": NAMES[r.app], "ts": r.ts}
    for i in range(4):
        if r.has & (APP_TEXT0 << i):
            out[texts[i]] = (<const char *>&r.text[i][0])[:r.text_len[i]]
        if r.has & (APP_NUM0 << i):
            out[nums[i]] = r.num[i]
    for i in range(3):
        if r.has & (APP_ADDR0 << i):
            out[addrs[i]] = (<const char *>&r.addr[i][0])[:r.addr_len]
    if r.has & APP_LATENCY:
        out["ms"] = r.latency_ms
        out["ns"] = r.latency_ns
    return out


def classify(tcp: bool, int sport, int dport, decoders=(), int dns_port=53, http=(), radius=(1812, 1813)):
    """Application number of a port pair (spec 6.0). `decoders`: names of the active ones."""
    cdef AppPorts ports
    cdef uint16_t[64] https
    cdef uint16_t[64] radii
    cdef uint32_t mask = 0, i
    for number, name in NAMES.items():
        if name in decoders:
            mask |= <uint32_t>1 << <int>number
    for i in range(len(http)):
        https[i] = http[i]
    for i in range(len(radius)):
        radii[i] = radius[i]
    app_ports_init(&ports, mask, dns_port, https, <uint32_t>len(http), radii, <uint32_t>len(radius))
    return app_classify(&ports, PROTO_TCP if tcp else PROTO_UDP, sport, dport)
