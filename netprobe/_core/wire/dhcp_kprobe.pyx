"""DHCPv4 for kprobe. Unlike wire/dhcp it does not stop at the end option and knows no overload (spec 6.3)."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from netprobe._core.wire.be cimport be32
from netprobe._core.wire.text cimport text_has_nul, utf8_valid

cdef enum:
    # BOOTP header
    OFF_OP = 0
    OFF_HLEN = 2
    OFF_XID = 4
    OFF_CLIENT = 12
    OFF_YOUR = 16
    OFF_SERVER = 20
    OFF_HARDWARE = 28
    OFF_MAGIC = 236
    OFF_OPTIONS = 240
    HARDWARE_MAX = 16
    # options
    PAD = 0
    HOSTNAME = 12
    DOMAIN = 15
    LEASE = 51
    TYPE = 53
    END = 255

cdef uint32_t MAGIC = <uint32_t>0x63825363


cdef int dhcpk_parse(const uint8_t *data, uint32_t n, DhcpFull *out) noexcept nogil:
    cdef uint32_t at = OFF_OPTIONS, length
    cdef const uint8_t *value
    cdef uint8_t code
    memset(out, 0, sizeof(DhcpFull))
    if n < OFF_OPTIONS:
        return DHCPK_SHORT
    if be32(data + OFF_MAGIC) != MAGIC:
        return DHCPK_NO_MAGIC
    out.op = data[OFF_OP]
    out.hlen = data[OFF_HLEN]
    out.xid = be32(data + OFF_XID)
    memcpy(out.client, data + OFF_CLIENT, 4)
    memcpy(out.your, data + OFF_YOUR, 4)
    memcpy(out.server, data + OFF_SERVER, 4)
    memcpy(out.hardware, data + OFF_HARDWARE, HARDWARE_MAX)
    while at < n:
        code = data[at]
        at += 1
        if code == PAD or code == END:
            continue
        if at == n or data[at] > n - at - 1:
            return DHCPK_BAD_OPTION
        length = data[at]
        value = data + at + 1
        at += 1 + length
        if code == TYPE and length == 1:
            out.type = value[0]
        elif code == LEASE and length == 4:
            out.has |= DHCPK_LEASE
            out.lease = be32(value)
        elif code == HOSTNAME or code == DOMAIN:
            if not utf8_valid(value, length) or text_has_nul(value, length):
                continue
            if code == HOSTNAME:
                out.has |= DHCPK_HOSTNAME
                out.hostname = value
                out.hostname_len = <uint8_t>length
            else:
                out.has |= DHCPK_DOMAIN
                out.domain = value
                out.domain_len = <uint8_t>length
    return DHCPK_OK


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

STATUS = ("ok", "short", "no magic", "bad option")


def parse(bytes data):
    """The fields of one message (UDP payload); absent options are None."""
    cdef DhcpFull m
    cdef int status = dhcpk_parse(<const uint8_t *><const char *>data, <uint32_t>len(data), &m)
    return {
        "status": STATUS[status],
        "op": m.op,
        "type": m.type,
        "hlen": m.hlen,
        "xid": m.xid,
        "client": bytes(m.client[:4]),
        "your": bytes(m.your[:4]),
        "server": bytes(m.server[:4]),
        "hardware": bytes(m.hardware[:16]),
        "hostname": (<const char *>m.hostname)[:m.hostname_len] if m.has & DHCPK_HOSTNAME else None,
        "domain": (<const char *>m.domain)[:m.domain_len] if m.has & DHCPK_DOMAIN else None,
        "lease": m.lease if m.has & DHCPK_LEASE else None,
    }
