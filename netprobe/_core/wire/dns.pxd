"""DNS messages: RFC 1035 header and names, EDNS (RFC 6891), client subnet (RFC 7871)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet

cdef enum:
    DNS_HEADER = 12
    DNS_MAX_RECORDS = 100  # announced in total; a message with more is not decoded beyond its header
    DNS_NONE = 255         # a position that there is not
    DNS_MAX_JUMPS = 20     # compression pointers followed in one name
    # dns_parse `want`: what to look for beyond header and first question
    DNS_WANT_ECS = 1       # queries: walk to the OPT record and its client subnet
    DNS_WANT_RRSIG = 2     # responses: is there an RRSIG among the answers
    # dns_parse results: 0, or the first thing that could not be read
    DNS_OK = 0
    DNS_SHORT = 1          # under 12 bytes: no message at all
    DNS_BAD_QUESTION = 2   # header fine, first question unreadable
    DNS_BAD_RECORDS = 3    # header and question fine, a later record (looked at only when wanted) is unreadable
    DNS_TOO_MANY = 4       # header fine, over DNS_MAX_RECORDS announced: question not decoded either
    # DnsMsg.tcp: how the message travelled (all but the first two come from dnstap)
    DNS_UDP = 0
    DNS_TCP = 1
    DNS_DOT = 2
    DNS_DOH = 3
    DNS_DNSCRYPT_UDP = 4
    DNS_DNSCRYPT_TCP = 5
    DNS_DOQ = 6

cdef struct DnsMsg:
    # one DNS message, complete in itself; pkt is the (UDP) packet, or a synthetic one for TCP
    const Packet *pkt
    int64_t ts
    uint64_t flow_hash     # canonical 5-tuple, equal both ways
    uint32_t size          # of the message, bytes
    uint16_t id
    uint16_t qtype
    uint16_t qclass
    uint16_t port          # metric port (spec 7.1): the one that is not the DNS port
    uint16_t counts[4]     # question, answer, authority, additional
    uint8_t status         # DNS_OK ...
    uint8_t qr
    uint8_t opcode
    uint8_t rcode          # the header's four bits
    uint8_t aa
    uint8_t tc
    uint8_t ad
    uint8_t cd
    uint8_t has_question   # first question decoded: name, qtype valid
    uint8_t has_rrsig
    uint8_t tcp            # DNS_UDP, DNS_TCP ...
    uint8_t ecs_family     # 0 none, 1, 2 (other families: 0)
    uint8_t ecs_addr[16]
    uint8_t is_mixed       # some letter was upper case: raw is valid and differs from name
    uint8_t name_len
    # level 2 and 3 of 7.6 as offsets into name; 255: none (valid after dns_aggregate)
    uint8_t agg2
    uint8_t agg3
    uint8_t suffix_len     # s of 7.6 used for the above, 0..255
    uint8_t agg_done
    # positions in name of its last, second and third last dot, 255: none (valid with has_dots: then no label
    # holds a dot of its own)
    uint8_t has_dots
    uint8_t dots[3]
    uint64_t h_name        # freq_hash of name, of level 2, of level 3 (0: not computed)
    uint64_t h_agg2
    uint64_t h_agg3
    uint32_t coupon        # hll_coupon of name, 0: not computed
    uint8_t name[304]      # lower-cased text, labels joined by '.', no trailing dot, not terminated
    uint8_t raw[256]       # the same with letters as they came; valid only when is_mixed

# fills everything but pkt, ts, flow_hash, port and tcp, which are the caller's
cdef int dns_parse(const uint8_t *data, uint32_t n, int want, DnsMsg *m) noexcept nogil
cdef void dns_aggregate(DnsMsg *m, uint32_t suffix_len) noexcept nogil
cdef inline bint is_dns_port(uint16_t port) noexcept nogil:
    return (port == 53) | (port == 5353) | (port == 5355) | (port == 53000)


cdef inline uint16_t dns_metric_port(uint16_t sport, uint16_t dport) noexcept nogil:
    """0: not DNS. As likely one way round as the other: no branches."""
    cdef uint32_t to_dns = 0 - <uint32_t>is_dns_port(dport)
    cdef uint32_t from_dns = 0 - <uint32_t>is_dns_port(sport)
    return <uint16_t>((sport & to_dns) | (dport & from_dns & ~to_dns))


cdef inline void dns_levels(DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    """dns_aggregate unless that has been done."""
    cdef uint32_t one, two, three
    if m.agg_done and m.suffix_len == suffix_len:
        return
    if suffix_len != 0 or not m.has_dots or m.name_len < 5:
        dns_aggregate(m, suffix_len)
        return
    # the parser has met every dot on its way; bit operations instead of branches that nobody can predict
    one = 0 - <uint32_t>(m.dots[0] == DNS_NONE)          # all ones: a single label
    two = 0 - <uint32_t>(m.dots[1] == DNS_NONE)          # at most two
    three = 0 - <uint32_t>(m.dots[2] == DNS_NONE)
    m.agg2 = <uint8_t>(m.dots[1] & ~two)
    m.agg3 = <uint8_t>((m.dots[2] & ~three & ~two) | (DNS_NONE & two & ~one))
    m.suffix_len = 0
    m.agg_done = 1
    m.h_agg2 = 0
    m.h_agg3 = 0
