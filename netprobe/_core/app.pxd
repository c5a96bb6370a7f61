"""What an application decoder reports, and which decoder a port belongs to (kprobe spec 6)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from netprobe._core.packet cimport PROTO_TCP, PROTO_UDP
from netprobe._core.wire.text cimport TEXT_MAX, text_cut, text_has_nul

cdef enum:
    # the application protocol numbers of spec 4.6
    APP_ID_NONE = 0
    APP_ID_DNS = 1
    APP_ID_HTTP = 2
    APP_ID_TLS = 3
    APP_ID_DHCP = 4
    APP_ID_RADIUS = 9
    APP_ID_POSTGRES = 15     # ours: only when asked for by port; the number to show is 0 (app_number)

cdef enum:
    # AppRecord.has
    APP_TEXT0 = 1
    APP_TEXT1 = 2
    APP_TEXT2 = 4
    APP_TEXT3 = 8
    APP_NUM0 = 16
    APP_NUM1 = 32
    APP_NUM2 = 64
    APP_NUM3 = 128
    APP_ADDR0 = 256
    APP_ADDR1 = 512
    APP_ADDR2 = 1024
    APP_LATENCY = 2048

# One decoded message. The slots:
#            text0          text1     text2      text3       num0     num1     num2         num3          addr0   addr1  addr2
#   DNS      query name     answers                          type     rcode
#   HTTP     URL            host      referer    user agent  status
#   TLS      server name                                     version  cipher
#   DHCP     hardware addr  host      domain                 op       type     lease                      client  your   server
#   RADIUS   user                     session                code     service  acct status  framed proto  framed  mask
#   Postgres user           database  statement  error code  rows
# Everything but framed proto stands in the slot that gives its generic column (spec 4.7: STR, INT, INET).
# A TLS record is no message of its own: it adds what it has to the flow entries of both directions and is
# exported with them by the timer (spec 6.4). Any other record is to be exported at once with its direction's flow.
cdef struct AppRecord:
    int64_t ts               # ns, of the packet that completed the message
    int64_t latency_ns       # as measured, may be negative
    uint32_t latency_ms      # as the columns show it: DHCP, RADIUS 1..20000; HTTP, DNS, Postgres from 0
    uint16_t has             # APP_*
    uint8_t app              # APP_ID_*
    uint8_t addr_len         # of each addr: 4 or 16
    uint32_t num[4]
    uint8_t addr[3][16]
    uint16_t text_len[4]
    uint8_t text[4][TEXT_MAX]  # not terminated; DNS, TLS, DHCP, RADIUS: UTF-8; HTTP, Postgres: bytes as sent, no NUL

cdef struct AppPorts:
    uint8_t tcp[65536]       # APP_ID_*
    uint8_t udp[65536]

# decoders: bit 1 << APP_ID_* for each active one (spec 6.0: its columns exist and decoding is on)
cdef void app_ports_init(AppPorts *p, uint32_t decoders, uint16_t dns_port, const uint16_t *http, uint32_t n_http,
                         const uint16_t *radius, uint32_t n_radius) noexcept nogil


cdef inline int app_classify(const AppPorts *p, uint8_t l4, uint16_t sport, uint16_t dport) noexcept nogil:
    """APP_ID_* by port: the lower one first, then the higher."""
    cdef const uint8_t *table
    cdef uint16_t low = sport if sport < dport else dport
    if l4 == PROTO_TCP:
        table = &p.tcp[0]
    elif l4 == PROTO_UDP:
        table = &p.udp[0]
    else:
        return APP_ID_NONE
    if table[low]:
        return table[low]
    return table[sport if low == dport else dport]


cdef inline int app_number(int app) noexcept nogil:
    """The number that a record shows (spec 4.6)."""
    return 0 if app == APP_ID_POSTGRES else app


cdef inline void app_record(AppRecord *r, int app, int64_t ts) noexcept nogil:
    # the texts stay as they are: text_len says what counts
    r.ts = ts
    r.latency_ns = 0
    r.latency_ms = 0
    r.has = 0
    r.app = <uint8_t>app
    r.addr_len = 4
    memset(r.num, 0, sizeof(r.num))
    memset(r.text_len, 0, sizeof(r.text_len))


cdef inline void app_text(AppRecord *r, int slot, const uint8_t *data, uint32_t n) noexcept nogil:
    """Set a text, cut at a character; one with a NUL becomes empty."""
    n = text_cut(data, n, TEXT_MAX) if not text_has_nul(data, n) else 0
    if n:
        memcpy(&r.text[slot][0], data, n)
    r.text_len[slot] = <uint16_t>n
    r.has |= <uint16_t>(APP_TEXT0 << slot)


cdef inline void app_num(AppRecord *r, int slot, uint32_t value) noexcept nogil:
    r.num[slot] = value
    r.has |= <uint16_t>(APP_NUM0 << slot)


cdef inline void app_addr4(AppRecord *r, int slot, const uint8_t *addr) noexcept nogil:
    memcpy(&r.addr[slot][0], addr, 4)
    r.has |= <uint16_t>(APP_ADDR0 << slot)


cdef inline void app_latency(AppRecord *r, int64_t start, int64_t end, uint32_t least, uint32_t most) noexcept nogil:
    """Whole milliseconds, cut off, within bounds."""
    # by unsigned: the stamps of a hostile file may be anywhere
    cdef int64_t ns = <int64_t>(<unsigned long long>end - <unsigned long long>start)
    cdef int64_t ms = ns // 1000000 if ns > 0 else 0
    r.latency_ns = ns
    if ms < least:
        ms = least
    r.latency_ms = most if ms > most else <uint32_t>ms
    r.has |= APP_LATENCY


# --- for tests: defined in app.pyx -------------------------------------------------------------------------------

cdef object app_dict(const AppRecord *r)
