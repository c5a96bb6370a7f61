"""kflow messages: our schema file against the document's positions, the native packer against pycapnp."""

from __future__ import annotations

import ipaddress
import random
import struct
import subprocess
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kentik_server import KFLOW, unpack

from netprobe._core.kflow import COLUMNS as NATIVE
from netprobe._core.kflow import DERIVED, KINDS, Batch, pack
from netprobe.kentik.kflow import encode, read
from netprobe.kentik.records import COLUMNS, Field, NativeField, Records, native_batch

#: kflow-wire.md 3.2, in the order of ordinals: type and position (byte, b = bit, p = pointer)
CHF = """
timestampNano:Int64:0 dstAs:UInt32:8 dstGeo:UInt32:12 dstMac:UInt32:16 headerLen:UInt32:20
inBytes:UInt64:24 inPkts:UInt64:32 inputPort:UInt32:40 ipSize:UInt32:44 ipv4DstAddr:UInt32:48
ipv4SrcAddr:UInt32:52 l4DstPort:UInt32:56 l4SrcPort:UInt32:60 outputPort:UInt32:64 protocol:UInt32:68
sampledPacketSize:UInt32:72 srcAs:UInt32:76 srcGeo:UInt32:80 srcMac:UInt32:84 tcpFlags:UInt32:88
tos:UInt32:92 vlanIn:UInt32:96 vlanOut:UInt32:100 ipv4NextHop:UInt32:104 mplsType:UInt32:108
outBytes:UInt64:112 outPkts:UInt64:120 tcpRetransmit:UInt32:128 srcFlowTags:Text:p0
dstFlowTags:Text:p1 sampleRate:UInt32:132 deviceId:UInt32:136 flowTags:Text:p2 timestamp:Int64:144
dstBgpAsPath:Text:p3 dstBgpCommunity:Text:p4 srcBgpAsPath:Text:p5 srcBgpCommunity:Text:p6
srcNextHopAs:UInt32:140 dstNextHopAs:UInt32:152 srcGeoRegion:UInt32:156 dstGeoRegion:UInt32:160
srcGeoCity:UInt32:164 dstGeoCity:UInt32:168 big:Bool:b1376 sampleAdj:Bool:b1377
ipv4DstNextHop:UInt32:176 ipv4SrcNextHop:UInt32:180 srcRoutePrefix:UInt32:184
dstRoutePrefix:UInt32:188 srcRouteLength:UInt8:173 dstRouteLength:UInt8:174 srcSecondAsn:UInt32:192
dstSecondAsn:UInt32:196 srcThirdAsn:UInt32:200 dstThirdAsn:UInt32:204 ipv6DstAddr:Data:p7
ipv6SrcAddr:Data:p8 srcEthMac:UInt64:208 dstEthMac:UInt64:216 custom:List:p9 ipv6SrcNextHop:Data:p10
ipv6DstNextHop:Data:p11 ipv6SrcRoutePrefix:Data:p12 ipv6DstRoutePrefix:Data:p13 isMetric:Bool:b1378
appProtocol:UInt32:224
"""

#: section 7: two records
VECTOR = bytes.fromhex(
    "106a40013101b70251081d0e000203dc050103000099020a010a3150d2041006000630dc0501070002100200031f554433221100"
    "000ffdffffff000811bd67000b10110006109601070002100200050fffffffff000d510c030111094d0002010a01020000111122"
    "010b0104000011058a076162631f040a0102030001"
)

#: record columns and the fields of the schema that they become
PLAIN = {
    "in_bytes": "inBytes",
    "in_pkts": "inPkts",
    "input_port": "inputPort",
    "dport": "l4DstPort",
    "sport": "l4SrcPort",
    "output_port": "outputPort",
    "proto": "protocol",
    "tcp_flags": "tcpFlags",
    "tos": "tos",
    "vlan_in": "vlanIn",
    "vlan_out": "vlanOut",
    "out_bytes": "outBytes",
    "out_pkts": "outPkts",
    "src_mac": "srcEthMac",
    "dst_mac": "dstEthMac",
}


def decode(message: bytes) -> list[dict[str, Any]]:
    """By pycapnp; nothing may stand behind the message."""
    plain = unpack(message)
    (segments, words) = struct.unpack_from("<II", plain)
    assert segments == 0
    assert len(plain) == 8 + 8 * words
    records = [record.to_dict() for record in KFLOW.PackedCHF.from_bytes_packed(message).msgs]
    with KFLOW.PackedCHF.from_bytes(plain) as root:
        assert [record.to_dict() for record in root.msgs] == records
    return records


def positions(struct_schema: Any) -> dict[str, tuple[int, str, str]]:
    """Field -> ordinal, type, position as in the document, by pycapnp's reading of our file."""
    bits = {"bool": 1, "uint8": 8, "uint16": 16, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64}
    found = {}
    for entry in struct_schema.node.struct.fields:
        if entry.which() != "slot":
            continue
        kind = entry.slot.type.which()
        offset = entry.slot.offset
        if kind == "bool":
            where = f"b{offset}"
        elif kind in bits:
            where = str(offset * bits[kind] // 8)
        else:
            where = f"p{offset}"
        found[entry.name] = (entry.ordinal.explicit, kind, where)
    return found


def sizes(struct_schema: Any) -> tuple[int, int, int]:
    """Id, words of data, pointers."""
    node = struct_schema.node
    return node.id, node.struct.dataWordCount, node.struct.pointerCount


def test_schema_has_the_document_s_ids_and_positions() -> None:
    chf = KFLOW.CHF.schema
    assert (chf.node.id, chf.node.struct.dataWordCount, chf.node.struct.pointerCount) == (
        0xA7AB5C68E4BC7B62,
        29,
        14,
    )
    wanted = {}
    for ordinal, entry in enumerate(CHF.split()):
        name, kind, where = entry.split(":")
        wanted[name] = (ordinal, kind.lower(), where)
    assert positions(chf) == wanted
    (app,) = [entry for entry in chf.node.struct.fields if entry.name == "appProtocol"]
    assert app.slot.defaultValue.uint32 == 4294967295

    root = KFLOW.PackedCHF.schema
    assert (root.node.id, root.node.struct.dataWordCount, root.node.struct.pointerCount) == (
        0xB158A6A28E2D29C2,
        0,
        1,
    )
    assert positions(root) == {"msgs": (0, "list", "p0")}

    custom = KFLOW.Custom.schema
    assert sizes(custom) == (0xED5D37861203D027, 3, 1)
    assert positions(custom) == {"id": (0, "uint32", "0"), "isDimension": (4, "bool", "b80")}
    value = custom.fields["value"].schema
    assert (value.node.id, value.node.struct.discriminantOffset) == (0xFBA056008585E9FD, 4)
    assert positions(value) == {
        "uint32Val": (1, "uint32", "4"),
        "float32Val": (2, "float32", "4"),
        "strVal": (3, "text", "p0"),
        "uint64Val": (5, "uint64", "16"),
        "addrVal": (6, "data", "p0"),
        "uint16Val": (7, "uint16", "4"),
        "uint8Val": (8, "uint8", "4"),
    }
    tags = {entry.name: entry.discriminantValue for entry in value.node.struct.fields}
    names = {"u32": "uint32Val", "text": "strVal", "addr": "addrVal"}
    assert {kind: tags[name] for kind, name in names.items()} == KINDS


def test_native_constants_are_the_schema_s() -> None:
    where = positions(KFLOW.CHF.schema)
    derived = {
        "src": "ipv4SrcAddr",
        "dst": "ipv4DstAddr",
        "sample_rate": "sampleRate",
        "app_protocol": "appProtocol",
    }
    for table, names in ((NATIVE, PLAIN), (DERIVED, derived)):
        assert set(table) == set(names)
        for column, (offset, size) in table.items():
            _, kind, position = where[names[column]]
            assert (str(offset), f"uint{8 * size}") == (position, kind), column
    assert {*NATIVE, *DERIVED, "l3"} == set(COLUMNS)


def two_records() -> Batch:
    """Those of the document's vector."""
    records = Records(
        2,
        {
            "proto": [6, 17],
            "src": ["10.0.0.1", "0.0.0.0"],
            "dst": ["10.0.0.2", "0.0.0.0"],
            "sport": [1234, 0],
            "dport": [80, 0],
            "in_pkts": [3, 0],
            "in_bytes": [1500, 0],
            "src_mac": [0x001122334455, 0],
            "sample_rate": [10, 1],
            "app_protocol": [2, 0],
        },
    )
    fields = [
        NativeField(9, "u32", Field([77, None])),
        NativeField(10, "text", Field(["abc", None])),
        NativeField(11, "addr", Field(["10.1.2.3", None])),
    ]
    return native_batch(records, fields)


def test_document_s_vector() -> None:
    message = pack([(two_records(), 0, 2)], device_id=7, dropped=1)
    # the runs of zeros may be cut elsewhere, what they stand for may not differ
    assert unpack(message) == unpack(VECTOR)
    assert len(unpack(VECTOR)) == 856
    assert decode(message) == decode(VECTOR)


def test_body() -> None:
    body = encode([(two_records(), 0, 2)], 7, 1)
    inflate = zlib.decompressobj(31)
    plain = inflate.decompress(body)
    assert inflate.eof
    assert not inflate.unused_data
    assert plain[:80] == bytes(80)
    assert unpack(plain[80:]) == unpack(VECTOR)
    first, second = read(body)
    assert (first["sampleRate"], first["custom"][1]["value"]) == (1500, {"strVal": "abc"})
    assert (second["protocol"], second["appProtocol"], "custom" in second) == (17, 0, False)
    with pytest.raises(ValueError, match="not a kflow message"):
        read(body[:-9])
    with pytest.raises(ValueError, match="80 zero bytes"):
        read(zlib.compress(b"x" * 100, wbits=31))


NUMBER = st.one_of(st.sampled_from([0, 1, 255, 256, 65535, 1 << 16]), st.integers(0, (1 << 32) - 1))
ADDRESS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
TEXT = st.one_of(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=90, max_size=410),
)
KIND = {"u32": NUMBER, "text": TEXT, "addr": ADDRESS}


@st.composite
def parts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records as a list of dictionaries, with the same custom columns each."""
    kinds = draw(st.lists(st.sampled_from(sorted(KIND)), max_size=5))
    records = []
    for _ in range(draw(st.integers(1, 6))):
        record: dict[str, Any] = {name: draw(NUMBER) for name in PLAIN}
        for name in ("in_bytes", "in_pkts", "out_bytes", "out_pkts", "src_mac", "dst_mac"):
            record[name] = draw(st.integers(0, (1 << 64) - 1))
        size = draw(st.sampled_from([4, 16]))
        record["src"] = draw(st.binary(min_size=size, max_size=size))
        record["dst"] = draw(st.binary(min_size=size, max_size=size))
        record["sample_rate"] = draw(st.integers(0, 100_000))
        record["app_protocol"] = draw(NUMBER)
        record["custom"] = [(i, kind, draw(st.none() | KIND[kind])) for i, kind in enumerate(kinds)]
        records.append(record)
    return records


def cut_text(text: str) -> str:
    """At most 384 bytes, whole characters: Python's decoder finds the boundary."""
    return text.encode()[:384].decode(errors="ignore")


def by_pycapnp(records: list[dict[str, Any]], device: int, dropped: int) -> list[dict[str, Any]]:
    """The same records through pycapnp's builder and reader."""
    root = KFLOW.PackedCHF.new_message()
    built = root.init("msgs", len(records))
    one = np.float32
    for record, chf in zip(records, built, strict=True):
        for column, name in PLAIN.items():
            setattr(chf, name, record[column])
        rate = max(record["sample_rate"], 1) * 100
        if dropped:
            raised = one(rate) * one(len(records) + dropped) / one(len(records))
            rate = min(int(raised), 0xFFFFFFFF)
        chf.sampleRate = rate
        chf.sampleAdj = True
        chf.deviceId = device
        chf.appProtocol = record["app_protocol"]
        if len(record["src"]) == 4:
            chf.ipv4SrcAddr = int.from_bytes(record["src"], "big")
            chf.ipv4DstAddr = int.from_bytes(record["dst"], "big")
        else:
            chf.ipv6SrcAddr, chf.ipv6DstAddr = record["src"], record["dst"]
        present = [custom for custom in record["custom"] if custom[2] is not None]
        if present:
            for (number, kind, value), entry in zip(present, chf.init("custom", len(present)), strict=True):
                entry.id = number
                if kind == "u32":
                    entry.value.uint32Val = value
                elif kind == "text":
                    entry.value.strVal = cut_text(value)
                else:
                    entry.value.addrVal = bytes([4 if len(value) == 4 else 6]) + value.ljust(16, b"\0")
    return decode(root.to_bytes_packed())


@settings(max_examples=150, deadline=None)
@given(parts(), st.integers(0, (1 << 32) - 1), st.sampled_from([0, 0, 1, 14, 1000]), st.data())
def test_packer_and_pycapnp_write_the_same(
    records: list[dict[str, Any]], device: int, dropped: int, data: st.DataObject
) -> None:
    columns = {name: [record[name] for record in records] for name in COLUMNS if name != "l3"}
    customs = [
        NativeField(number, kind, Field([record["custom"][number][2] for record in records]))
        for number, kind, _ in records[0]["custom"]
    ]
    batch = native_batch(Records(len(records), columns), customs)
    cut = data.draw(st.integers(0, len(records)))
    message = pack([(batch, 0, cut), (batch, cut, len(records))], device, dropped)
    assert decode(message) == by_pycapnp(records, device, dropped)


@pytest.mark.parametrize(
    ("rates", "dropped", "wanted"),
    [
        ([1, 1], 0, [100, 100]),
        ([10], 0, [1000]),
        ([0], 0, [100]),
        ([3, 3], 14, [2400, 2400]),
        ([10, 1], 1, [1500, 150]),
        ([1 << 31], 0, [0xFFFFFFFF]),
        ([1 << 25, 1 << 25], 1 << 40, [0xFFFFFFFF, 0xFFFFFFFF]),
    ],
)
def test_sample_rate(rates: list[int], dropped: int, wanted: list[int]) -> None:
    batch = native_batch(Records(len(rates), {"sample_rate": rates, "in_pkts": [1] * len(rates)}))
    assert [record["sampleRate"] for record in decode(pack([(batch, 0, len(rates))], 1, dropped))] == wanted


def value_of(kind: str, values: Any, **keywords: Any) -> list[Any]:
    """What becomes of a custom column, by pycapnp; None where a record has none."""
    count = len(values) if keywords.get("offsets") is None else len(keywords["offsets"]) - 1
    batch = native_batch(Records(count, {}), [NativeField(1, kind, Field(values, **keywords))])
    found = []
    for record in decode(pack([(batch, 0, count)], 1)):
        customs = record.get("custom", [])
        found.append(next(iter(customs[0]["value"].values())) if customs else None)
    return found


def test_texts() -> None:
    limit = "x" * 384
    assert value_of("text", ["", "a", "1234567", "12345678", limit, limit + "y", None]) == [
        "",
        "a",
        "1234567",
        "12345678",
        limit,
        limit,
        None,
    ]
    # at a character's boundary: é is two bytes, the euro sign three, the clef four
    for sign in "é€𝄞":
        for before in range(380, 386):
            text = "x" * before + sign * 3
            assert value_of("text", [text]) == [cut_text(text)]
    # what packets can hold
    assert value_of("text", [b"a\0b"]) == ["a"]
    cases = [
        b"caf\xe9",
        b"\xc3(",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf5\x80\x80\x80",
        b"\xf4\x90\x80\x80",
    ]
    for case in cases:
        (found,) = value_of("text", [case])
        assert len(found.encode()) == len(case)
        assert [ord(c) for c in found if c != "?"] == [b for b in case if b < 0x80]
    good = "é€𝄞\ud7ff\ue000\U0010ffff\x7f"
    assert value_of("text", [good]) == [good]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=24))
def test_any_bytes_become_utf8(raw: bytes) -> None:
    (found,) = value_of("text", [raw])
    plain = raw.split(b"\0")[0]
    try:
        assert found == plain.decode()
    except UnicodeDecodeError:
        assert len(found.encode()) == len(plain)
        assert "?" in found


def test_custom_columns_as_buffers() -> None:
    marks = bytes([1, 0, 1])
    for kind in "BHIQ":
        assert value_of("u32", array(kind, [5, 6, 0]), present=marks) == [5, None, 0]
        assert value_of("u32", array(kind, [5, 0, 7]), skip_zero=True) == [5, None, 7]
    assert value_of("u32", np.array([1 << 40, 3], "u8")) == [0xFFFFFFFF, 3]
    for kind in "iq":
        offsets = array(kind, [0, 2, 2, 5])
        assert value_of("text", b"abcde", offsets=offsets, present=marks) == ["ab", None, "cde"]
    packed = bytes([1, 2, 3, 4]) + bytes(range(16)) + b"xyz"
    four, six, none = value_of("addr", packed, offsets=array("q", [0, 4, 20, 23]))
    assert (four, six, none) == (b"\x04\x01\x02\x03\x04" + bytes(12), b"\x06" + bytes(range(16)), None)


def test_columns_as_numpy_arrays() -> None:
    source = np.zeros((3, 16), "u1")
    source[:2, :4] = [[10, 0, 0, 1], [10, 0, 0, 2]]
    source[2] = np.frombuffer(ipaddress.ip_address("2001:db8::1").packed, "u1")
    columns = {
        "l3": np.array([4, 4, 6], "u1"),
        "src": source,
        "dst": source[::-1].copy(),
        "proto": np.array([6, 17, 58], "u1"),
        "dport": np.array([80, 53, 65535], "u2"),
        "out_bytes": np.array([1, 2, 1 << 63], "u8"),
        "tos": np.array([1, 2, 3], "u8"),
    }
    one, two, three = decode(pack([(native_batch(Records(3, columns)), 0, 3)], 1))
    assert (one["ipv4SrcAddr"], two["ipv4SrcAddr"], three["ipv4SrcAddr"]) == (0x0A000001, 0x0A000002, 0)
    assert three["ipv6SrcAddr"] == source[2].tobytes()
    assert three["ipv6DstAddr"] == source[0].tobytes()
    assert (one["l4DstPort"], two["protocol"], three["outBytes"], three["tos"]) == (80, 17, 1 << 63, 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"nonsense": [1]}, "unknown column: nonsense"),
        ({"proto": [1, 2]}, "column proto|proto: 2 values for 1 records"),
        ({"proto": ["x"]}, "column proto"),
        ({"proto": [-1]}, "column proto"),
        ({"proto": np.zeros(1, "f8")}, "not integers"),
        ({"in_pkts": np.zeros(8, "u1")[::8], "proto": np.zeros(16, "u1")[::16]}, "not contiguous|values for"),
        ({"src": b"123"}, "column src"),
        ({"src": ["10.0.0.256"]}, "column src"),
        ({"src": ["10.0.0.1"], "dst": ["::1"]}, "different families"),
        ({"l3": [4, 4]}, "column l3"),
    ],
)
def test_bad_columns(columns: dict[str, Any], message: str) -> None:
    if "not contiguous" in message:
        columns = {"proto": np.zeros(4, "u1")[::2]}
    with pytest.raises(ValueError, match=message):
        native_batch(Records(2 if "not contiguous" in message else 1, columns))


@pytest.mark.parametrize("offsets", [[0, 4], [0, 3, 2], [0, 1, 5], [1 << 62, 0, 0], [-1, 0, 0]])
def test_offsets_that_lead_astray(offsets: list[int]) -> None:
    field = Field(b"abcd", offsets=array("q", offsets))
    with pytest.raises(ValueError, match="custom 1"):
        native_batch(Records(2, {}), [NativeField(1, "text", field)])


def test_messages_that_cannot_be() -> None:
    batch = native_batch(Records(2, {}))
    for part in ((batch, 1, 1), (batch, 0, 3), (batch, 2, 1)):
        with pytest.raises(ValueError, match=r"no records|records . to . of 2"):
            pack([part], 1)
    with pytest.raises(ValueError, match="too much"):
        pack([(batch, 0, 2)] * 7_000_000, 1)


def test_many_records() -> None:
    """Buffers grow, numbers of words pass 2^16, pointers reach far."""
    count = 20_000
    rng = random.Random(5)
    texts = ["".join(rng.choices("abcdefghij/", k=rng.randrange(200))) for _ in range(count)]
    columns = {"in_pkts": range(1, count + 1), "src": [ipaddress.IPv6Address(i + 1) for i in range(count)]}
    columns["dst"] = columns["src"]
    batch = native_batch(Records(count, columns), [NativeField(3, "text", Field(texts))])
    message = pack([(batch, 0, count)], 9)
    root = KFLOW.PackedCHF.from_bytes_packed(message, traversal_limit_in_words=1 << 28)
    for i, record in enumerate(root.msgs):
        assert record.inPkts == i + 1
        assert int.from_bytes(record.ipv6SrcAddr, "big") == i + 1
        assert record.custom[0].value.strVal == texts[i]


def test_benchmark_runs() -> None:
    """Every row, on a few records; says nothing about time."""
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_kflow.py"
    command = [sys.executable, str(script), "--records", "2000", "--batch", "500", "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("2000 records in messages of 500;")
    assert done.stdout.count(" us\n") == 5
