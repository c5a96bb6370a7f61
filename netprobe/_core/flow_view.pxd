"""From a decoded packet to what the flow table counts."""
from libc.stdint cimport int64_t, uint8_t

from netprobe._core.flow cimport FlowPacket, FlowTable
from netprobe._core.packet cimport Packet, RawPacket

# 0: not an IP packet, a header cut off, or a fragment (reassemble first): not counted.
# For a reassembled datagram the caller sets packets, fragments and bytes afterwards.
# `frame` is the packet that came by wire (MACs, VLAN): p itself, or the datagram's last fragment.
cdef int flow_view(const FlowTable *t, const Packet *p, const Packet *frame, FlowPacket *v) noexcept nogil
# SAMPLE_* of a unidirectional flow, for config.sample > 1 (spec 3.10)
cdef uint8_t flow_verdict(const FlowTable *t, const FlowPacket *v) noexcept nogil
# The same for what most packets are: Ethernet with at most one 802.1Q tag, IPv4 without options or IPv6 without extensions,
# whole, TCP or UDP, all of it captured. 0: some other packet, to be decoded. The direction is that of `mac`, or unknown.
cdef int flow_view_plain(const FlowTable *t, const RawPacket *r, FlowPacket *v) noexcept nogil
# what decoders read of such a packet, out of its view
cdef void plain_packet(const FlowPacket *v, Packet *out) noexcept nogil


cdef inline int64_t flow_stamp(int64_t ts) noexcept nogil:
    """Within 1938 to 2223, so that differences of stamps and time-outs fit their type whatever a file says."""
    if ts < <int64_t>-1000000000000000000:
        return -1000000000000000000
    return ts if ts < <int64_t>8000000000000000000 else 8000000000000000000
