"""DHCP messages. Options are walked once; nothing is kept but what the dhcp handler shows."""
from libc.string cimport memcpy, memset

from netprobe._core.wire.be cimport be32, load32

cdef enum:
    # BOOTP header
    HTYPE = 1
    HLEN = 2
    XID = 4
    YIADDR = 16
    CHADDR = 28
    SNAME = 44
    FILE = 108
    BOOTP_HEADER = 236
    OPTIONS = 240
    SNAME_LENGTH = 64
    FILE_LENGTH = 128
    # options
    OPT_PAD = 0
    OPT_HOSTNAME = 12
    OPT_OVERLOAD = 52
    OPT_TYPE = 53
    OPT_SERVER_ID = 54
    OPT_END = 255
    # DHCPv6
    V6_HEADER = 4
    V6_RELAY_HEADER = 34
    V6_SERVER_ID = 2

cdef uint32_t COOKIE = <uint32_t>0x63825363


cdef int walk4(const uint8_t *data, uint32_t n, Dhcp4 *out, uint8_t *overload) noexcept nogil:
    """One field of options. An option that comes several times is one long option (RFC 3396); for those of fixed
    size the first one counts."""
    cdef uint32_t at = 0, length, room
    cdef uint8_t code
    while at < n:
        code = data[at]
        at += 1
        if code == OPT_PAD:
            continue
        if code == OPT_END:
            return DHCP_OK
        if at == n or data[at] > n - at - 1:
            return DHCP_BAD_OPTIONS
        length = data[at]
        at += 1
        if code == OPT_TYPE:
            if length and out.type == 0:
                out.type = data[at]
        elif code == OPT_SERVER_ID:
            if length >= 4 and not out.has_server_id:
                out.has_server_id = 1
                memcpy(out.server_id, data + at, 4)
        elif code == OPT_HOSTNAME:
            out.has_hostname = 1
            room = <uint32_t>sizeof(out.hostname) - out.hostname_len
            if room > length:
                room = length
            memcpy(out.hostname + out.hostname_len, data + at, room)
            out.hostname_len = <uint8_t>(out.hostname_len + room)
        elif code == OPT_OVERLOAD:
            if length and overload[0] == 0:
                overload[0] = data[at]
        at += length
    return DHCP_OK


cdef int dhcp4_parse(const uint8_t *data, uint32_t n, Dhcp4 *out) noexcept nogil:
    cdef uint8_t overload = 0, ignored = 1
    cdef int status
    memset(out, 0, sizeof(Dhcp4))
    if n < BOOTP_HEADER:
        return DHCP_SHORT
    out.op = data[0]
    out.htype = data[HTYPE]
    out.hlen = data[HLEN]
    out.xid = load32(data + XID)
    memcpy(out.yiaddr, data + YIADDR, 4)
    memcpy(out.chaddr, data + CHADDR, 16)
    if n < OPTIONS or be32(data + BOOTP_HEADER) != COOKIE:
        return DHCP_BOOTP
    status = walk4(data + OPTIONS, n - OPTIONS, out, &overload)
    # the order is that of RFC 3396: options, file, sname
    if overload & 1 and walk4(data + FILE, FILE_LENGTH, out, &ignored) != DHCP_OK:
        status = DHCP_BAD_OPTIONS
    if overload & 2 and walk4(data + SNAME, SNAME_LENGTH, out, &ignored) != DHCP_OK:
        status = DHCP_BAD_OPTIONS
    return status


cdef int dhcp6_parse(const uint8_t *data, uint32_t n, Dhcp6 *out) noexcept nogil:
    cdef uint32_t at = V6_HEADER, length
    memset(out, 0, sizeof(Dhcp6))
    if n < V6_HEADER:
        return DHCP_SHORT
    out.type = data[0]
    if out.type == DHCP6_RELAY_FORW or out.type == DHCP6_RELAY_REPL:
        if n < V6_RELAY_HEADER:
            return DHCP_SHORT
        out.is_relay = 1
        out.hops = data[1]
        at = V6_RELAY_HEADER
    else:
        memcpy(out.xid, data + 1, 3)
    while at < n:
        if n - at < 4:
            return DHCP_BAD_OPTIONS
        length = (<uint32_t>data[at + 2] << 8) | data[at + 3]
        if length > n - at - 4:
            return DHCP_BAD_OPTIONS
        if data[at] == 0 and data[at + 1] == V6_SERVER_ID:
            out.has_server_id = 1
        at += 4 + length
    return DHCP_OK


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

STATUS = ("ok", "short", "bootp", "bad options")


def parse_dhcp4(bytes data):
    """What the handler reads of a DHCPv4 message (UDP payload)."""
    cdef Dhcp4 m
    status = dhcp4_parse(<const uint8_t *><const char *>data, <uint32_t>len(data), &m)
    return {
        "status": STATUS[status],
        "op": m.op,
        "htype": m.htype,
        "hlen": m.hlen,
        "type": m.type,
        "xid": bytes((<const char *>&m.xid)[:4]),
        "yiaddr": bytes(m.yiaddr[:4]),
        "chaddr": bytes(m.chaddr[:16]),
        "server_id": bytes(m.server_id[:4]) if m.has_server_id else None,
        "hostname": bytes(m.hostname[:m.hostname_len]) if m.has_hostname else None,
    }


def parse_dhcp6(bytes data):
    """What the handler reads of a DHCPv6 message (UDP payload)."""
    cdef Dhcp6 m
    status = dhcp6_parse(<const uint8_t *><const char *>data, <uint32_t>len(data), &m)
    return {
        "status": STATUS[status],
        "type": m.type,
        "is_relay": bool(m.is_relay),
        "hops": m.hops,
        "xid": bytes(m.xid[:3]),
        "has_server_id": bool(m.has_server_id),
    }
