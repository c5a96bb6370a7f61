"""The message parser against dnspython, the name levels against the spec's table."""

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe._core.wire.dns import aggregate, metric_port, parse

OK, BAD_QUESTION, BAD_RECORDS, TOO_MANY = 0, 2, 3, 4

labels = st.binary(min_size=1, max_size=63)
plain = st.text("abcXYZ019-_", min_size=1, max_size=20).map(str.encode)


def wire_length(parts: list[bytes]) -> int:
    return sum(len(part) + 1 for part in parts) + 1


names = st.lists(st.one_of(plain, labels), max_size=12).filter(lambda parts: wire_length(parts) <= 255)


def text(name: dns.name.Name) -> bytes:
    """How the spec writes a name: labels as they are, dots between, no trailing one."""
    return b".".join(name.labels[:-1])


def lower(name: bytes) -> bytes:
    return name.lower()  # of bytes: ASCII only


@given(names, st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_header_and_question(parts, qid, flags, qtype):
    message = dns.message.QueryMessage(id=qid)
    message.flags = flags & ~0x7800  # opcode query: dnspython reads other opcodes differently
    name = dns.name.Name([*parts, b""])
    message.question.append(dns.rrset.RRset(name, 1, dns.rdatatype.RdataType.make(qtype)))
    got = parse(message.to_wire())
    assert got["status"] == OK
    assert (got["id"], got["qtype"], got["qclass"], got["counts"]) == (qid, qtype, 1, (1, 0, 0, 0))
    assert got["raw"] == text(name)
    assert got["name"] == lower(text(name))
    assert got["qr"] == bool(flags & dns.flags.QR)
    assert got["aa"] == bool(flags & dns.flags.AA)
    assert got["tc"] == bool(flags & dns.flags.TC)
    assert got["ad"] == bool(flags & dns.flags.AD)
    assert got["cd"] == bool(flags & dns.flags.CD)
    assert got["rcode"] == flags & 15


@given(st.integers(0, 15))
def test_opcode(opcode):
    assert parse(bytes([0, 0, opcode << 3, 0]) + bytes(8))["opcode"] == opcode


RECORDS = (
    "www.example.com. 60 IN A 192.0.2.1",
    "www.example.com. 60 IN CNAME a.very.long.name.example.com.",
    "example.com. 60 IN NS ns1.example.com.",
    "example.com. 60 IN MX 10 mail.example.com.",
    'example.com. 60 IN TXT "some text" "more"',
    "www.example.com. 60 IN AAAA 2001:db8::1",
    "www.example.com. 60 IN RRSIG A 8 3 60 20300101000000 20200101000000 1 example.com. AAAA",
)


def response(
    picked: list[int], authority: list[int], question: str = "www.example.com."
) -> dns.message.Message:
    message = dns.message.make_response(dns.message.make_query(question, "A"))
    for section, chosen in ((message.answer, picked), (message.authority, authority)):
        for number in chosen:
            name, ttl, rclass, rtype, data = RECORDS[number].split(" ", 4)
            section.append(dns.rrset.from_text(name, int(ttl), rclass, rtype, data))
    return message


@given(st.lists(st.integers(0, 6), max_size=8), st.lists(st.integers(0, 6), max_size=4))
def test_rrsig_is_looked_for_among_answers(picked, authority):
    wire = response(picked, authority).to_wire()  # dnspython compresses names
    got = parse(wire)
    assert got["status"] == OK
    assert got["rrsig"] == (6 in picked)
    assert got["counts"][1:3] == (len(picked), len(authority))
    assert parse(wire, 1)["rrsig"] is False  # not asked for


other_options = st.builds(dns.edns.GenericOption, st.sampled_from([3, 10, 12, 65001]), st.binary(max_size=40))
subnets = st.one_of(
    st.builds(
        lambda address, bits: dns.edns.ECSOption(".".join(map(str, address)), bits),
        st.binary(min_size=4, max_size=4),
        st.integers(1, 32),
    ),
    st.builds(
        lambda address, bits: dns.edns.ECSOption(
            ":".join(f"{address[i] << 8 | address[i + 1]:x}" for i in range(0, 16, 2)), bits
        ),
        st.binary(min_size=16, max_size=16),
        st.integers(1, 128),
    ),
)


def masked(option: dns.edns.ECSOption) -> bytes:
    packed = bytes(
        dns.inet.inet_pton(dns.inet.AF_INET if option.family == 1 else dns.inet.AF_INET6, option.address)
    )
    bits = int.from_bytes(packed, "big")
    keep = len(packed) * 8 - option.srclen
    return (bits >> keep << keep).to_bytes(len(packed), "big")


@given(st.lists(other_options, max_size=3), subnets, st.lists(other_options, max_size=3), st.integers(0, 3))
def test_client_subnet_anywhere(before, subnet, after, records_before):
    message = dns.message.make_query("Example.com", "A")
    for number in range(records_before):
        message.additional.append(dns.rrset.from_text(f"r{number}.example.com.", 60, "IN", "A", "192.0.2.7"))
    message.use_edns(0, options=[*before, subnet, *after])
    assert parse(message.to_wire())["ecs"] == (subnet.family, masked(subnet))
    assert parse(message.to_wire(), 2)["ecs"] is None


def opt_query(option: bytes) -> bytes:
    header = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    question = b"\x01a\x00\x00\x01\x00\x01"
    return (
        header + question + b"\x00\x00\x29\x10\x00\x00\x00\x00\x00" + len(option).to_bytes(2, "big") + option
    )


def ecs(family: int, source: int, address: bytes) -> bytes:
    body = family.to_bytes(2, "big") + bytes([source, 0]) + address
    return b"\x00\x08" + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (ecs(1, 24, bytes([198, 51, 100])), (1, bytes([198, 51, 100, 0]))),
        # bits past the prefix are not part of the subnet
        (ecs(1, 20, bytes([198, 51, 255])), (1, bytes([198, 51, 240, 0]))),
        # nor is what the prefix promises and nobody sent
        (ecs(1, 32, bytes([198, 51])), (1, bytes([198, 51, 0, 0]))),
        (ecs(1, 200, bytes(range(1, 10))), (1, bytes([1, 2, 3, 4]))),
        (ecs(2, 128, bytes(range(16))), (2, bytes(range(16)))),
        (ecs(2, 56, bytes.fromhex("20010db8001234")), (2, bytes.fromhex("20010db8001234") + bytes(9))),
        (ecs(1, 0, b""), None),
        (ecs(2, 0, b""), None),
        (ecs(3, 24, bytes([1, 2, 3])), None),
        (b"\x00\x08\x00\x04\x00\x01\x18", None),  # longer than the record
        (b"\x00\x08\x00\x07\x00\x01\x18\x00\x01\x02", None),
        (b"\x00\x0a\x00\x02\xff\xff" + ecs(1, 8, b"\x0a"), (1, bytes([10, 0, 0, 0]))),
    ],
)
def test_odd_client_subnets(option, expected):
    got = parse(opt_query(option))
    assert got["status"] == OK
    assert got["ecs"] == expected


def test_subnet_in_a_response_is_no_querys():
    wire = bytearray(opt_query(ecs(1, 8, b"\x0a")))
    wire[2] |= 0x80
    assert parse(bytes(wire))["ecs"] is None


def walk(wire: bytes) -> bool:
    """Can dnspython read the whole message?"""
    try:
        dns.message.from_wire(wire, ignore_trailing=True)
    except Exception:
        return False
    return True


bases = st.sampled_from(
    [
        response([0, 1, 3, 6], [2]).to_wire(),
        opt_query(ecs(1, 24, bytes([1, 2, 3]))),
        response([], []).to_wire(),
    ]
)


@given(bases, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_mutated_messages(wire, changes, cut):
    data = bytearray(wire)
    for place, value in changes:
        data[place % len(data)] = value
    data = bytes(data[: len(data) - cut if cut < len(data) // 2 else len(data)])
    got = parse(data)
    if len(data) < 12:
        assert got is None
        return
    if data[2] & 0x78:
        return  # another opcode: dnspython reads a different kind of message
    if walk(data):
        message = dns.message.from_wire(data, ignore_trailing=True)
        if got["counts"][0]:
            assert got["status"] in (OK, TOO_MANY)
            if got["status"] == OK:
                assert got["raw"] == text(message.question[0].name)
                assert got["qtype"] == message.question[0].rdtype
    if got["status"] == OK and got["name"] is not None:
        assert got["name"] == got["raw"].lower()


@given(st.binary(max_size=200), st.integers(0, 3))
def test_junk_is_survived(data, want):
    got = parse(data, want)
    assert (got is None) == (len(data) < 12)
    if got and got["name"] is not None:
        assert len(got["name"]) <= 255


def question(name: bytes, tail: bytes = b"\x00\x01\x00\x01") -> bytes:
    return bytes([0, 1, 1, 0, 0, 1]) + bytes(6) + name + tail


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"\x00", b""),
        (b"\x03WwW\x07eXample\x00", b"www.example"),
        # a pointer behind the question: the name goes on there, the type follows the pointer
        (b"\x01a\xc0\x14", b"a.bc"),
        (b"\xc0\x0c", None),  # points at itself
        (b"\x01a\xc0\x0c", None),  # for ever
        (b"\xc0\xff", None),  # past the end
        (b"\x41" + b"a" * 65 + b"\x00", None),  # the two reserved kinds of label
        (b"\x81" + b"a" * 129 + b"\x00", None),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3c" + b"b" * 60 + b"\x00", b".".join([b"a" * 63] * 3 + [b"b" * 60])),
        ((b"\x3f" + b"a" * 63) * 4 + b"\x00", b".".join([b"a" * 63] * 4)),
        ((b"\x3f" + b"a" * 63) * 4 + b"\x01a\x00", None),  # 257
        (b"\x05abc", None),
        (b"\x03abc", None),
    ],
)
def test_names(name, expected):
    tail = b"\x00\x01\x00\x01\x02bc\x00" if b"\xc0\x14" in name else b"\x00\x01\x00\x01"
    got = parse(question(name, tail if expected is not None or b"\xc0" in name else b""))
    assert got["name"] == expected
    assert got["status"] == (OK if expected is not None else BAD_QUESTION)


def test_pointer_levels():
    def chain(jumps: int) -> bytes:
        # the question points to the last of a row of pointers, each to the one before, the first to a name
        data = bytearray(question(b"\xc0\x00"))
        target = len(data)
        data += b"\x01x\x00"
        for _ in range(jumps - 1):
            place = len(data)
            data += bytes([0xC0 | target >> 8, target & 255])
            target = place
        data[12:14] = bytes([0xC0 | target >> 8, target & 255])
        return bytes(data)

    assert parse(chain(20))["name"] == b"x"
    assert parse(chain(21))["status"] == BAD_QUESTION


@pytest.mark.parametrize("cut", range(12, 24))
def test_cut_question(cut):
    whole = question(b"\x03www\x02ab\x00")
    got = parse(whole[:cut])
    assert (got["status"], got["name"]) == ((OK, b"www.ab") if cut == len(whole) else (BAD_QUESTION, None))


def test_records():
    wire = bytearray(response([0, 6], []).to_wire())
    assert parse(bytes(wire[:-1]))["status"] == BAD_RECORDS
    # an RRSIG in front of the damage has been seen
    wire = bytearray(response([6, 0], []).to_wire())
    assert parse(bytes(wire[:-1]))["rrsig"] is True
    # the question needs no record
    assert parse(bytes(wire[:40]), 0)["name"] == b"www.example.com"
    wire[6:8] = (99).to_bytes(2, "big")
    assert parse(bytes(wire), 0)["status"] == OK
    wire[6:8] = (100).to_bytes(2, "big")
    got = parse(bytes(wire))
    assert (got["status"], got["name"]) == (TOO_MANY, None)


@pytest.mark.parametrize("size", range(12))
def test_no_header(size):
    assert parse(bytes(size)) is None


# --- names' levels (metrics spec 7.6)
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix", "level2", "level3"),
    [
        ("biz.foo.bar.com", 0, ".bar.com", ".foo.bar.com"),
        ("a.com", 0, "a.com", None),
        ("abcdefg.com.", 0, "abcdefg.com.", None),
        ("foo.bar.com", 0, ".bar.com", "foo.bar.com"),
        (".", 0, ".", None),
        ("..", 0, "..", None),
        ("a", 0, "a", None),
        ("a.", 0, "a.", None),
        ("foo.bar.com.", 0, ".bar.com.", "foo.bar.com."),
        (".foo.bar.com", 0, ".bar.com", ".foo.bar.com"),
        ("a.b.c", 0, ".b.c", "a.b.c"),
        (".b.c", 0, ".b.c", None),
        ("biz.foo.bar.com", 8, ".foo.bar.com", "biz.foo.bar.com"),
        ("biz.foo.bar.com", 7, ".foo.bar.com", "biz.foo.bar.com"),
        ("biz.foo.bar.com", 11, "biz.foo.bar.com", None),
        ("foo.bar.com.", 15, ".bar.com.", "foo.bar.com."),
        ("www.google.co.uk", 6, ".google.co.uk", "www.google.co.uk"),
        ("www.google.co.uk", 12, "www.google.co.uk", None),
        ("localhost", 0, "localhost", "localhost"),
        ("", 0, "", None),
        ("google.com", 0, "google.com", None),
        (".google.com", 0, ".google.com", ".google.com"),
        ("a.b.c.d.e.f", 0, ".e.f", ".d.e.f"),
    ],
)
def test_levels(name, suffix, level2, level3):
    expected = level2.encode(), None if level3 is None else level3.encode()
    assert aggregate(name.encode(), suffix) == expected


def levels(d: str, s: int) -> tuple[str, str | None]:
    """Section 7.6, step by step, with Python's own searching."""
    n = len(d)
    if n < 5:
        return d, None
    limit = n - s if s > 0 and n > s else n - 2 if d.endswith(".") else n - 1
    first = d.rfind(".", 0, limit + 1)
    if first <= 0:
        return d, d
    second = d.rfind(".", 0, first)
    if second < 0:
        return d, None
    if second == 0:
        return d, d
    third = d.rfind(".", 0, second)
    return d[second:], d[third:] if third >= 0 else d


@given(st.text("ab.", max_size=255), st.integers(0, 300))
def test_levels_of_anything(name, suffix):
    level2, level3 = levels(name, suffix)
    assert aggregate(name.encode(), suffix) == (level2.encode(), None if level3 is None else level3.encode())


def test_too_long_a_name():
    with pytest.raises(ValueError, match="256 bytes"):
        aggregate(b"a" * 256)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((5000, 53), 5000),
        ((53, 5000), 5000),
        ((5353, 5353), 5353),
        ((5355, 53), 5355),
        ((53000, 1), 1),
        ((1, 2), 0),
        ((0, 53), 0),
        ((53, 0), 0),
    ],
)
def test_metric_port(ports, expected):
    assert metric_port(*ports) == expected
