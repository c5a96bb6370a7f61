"""Geo databases: the tree walk against maxminddb, the text against geoip2 and the spec's examples."""

from __future__ import annotations

import ipaddress
import pickle
import random
import sys
from pathlib import Path

import geoip2.database
import maxminddb
import mmdb_writer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe._core.mmdb import Mmdb
from netprobe.errors import InputError
from netprobe.geo import UNKNOWN, GeoAsn, GeoCity, GeoNames

CITY = {
    "89.160.20.112/28": {
        "continent": {"code": "EU"},
        "country": {"iso_code": "SE", "names": {"en": "Sweden", "de": "Schweden"}},
        "subdivisions": [{"iso_code": "E"}, {"iso_code": "X"}],
        "city": {"names": {"en": "Linköping"}},
        "location": {"latitude": 58.4167, "longitude": 15.6167},
    },
    "2a02:dac0::/29": {
        "continent": {"code": "EU"},
        "country": {"iso_code": "RU", "names": {"en": "Russia"}},
        "location": {"latitude": 60, "longitude": 100},
    },
    "10.0.0.0/8": {"country": {"iso_code": "ZZ"}, "city": {"names": {"fr": "Ville"}}},
    "10.1.0.0/16": {"traits": {"is_anycast": True}},
    "192.0.2.1/32": {"city": {"names": {"en": "Host"}}, "location": {"latitude": -0.5}},
    "2001:db8::/33": {"continent": {"code": "AN"}},
}
ASN = {
    "1.128.0.0/11": {"autonomous_system_number": 1221, "autonomous_system_organization": "Telstra Pty Ltd"},
    "2401:8080::/32": {"autonomous_system_number": 237},
    "8.8.8.0/24": {"autonomous_system_organization": "no number"},
}


def packed(address: str) -> bytes:
    raw = ipaddress.ip_address(address).packed
    return raw if len(raw) == 16 else bytes(10) + b"\xff\xff" + raw


def key(database: GeoCity | GeoAsn, address: str) -> bytes:
    return database.native.lookup_address(address).to_bytes(4, sys.byteorder) + packed(address)


def names(city: GeoCity, address: str) -> tuple[str, str | None, str | None]:
    return GeoNames(city, None).city(key(city, address))


@pytest.fixture(params=[24, 28, 32])
def city_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    path.write_bytes(mmdb_writer.build(CITY, record_size=request.param))
    return path


def test_location_text(city_path: Path) -> None:
    city = GeoCity(city_path)
    assert names(city, "89.160.20.112") == ("EU/Sweden/E/Linköping", "58.416700", "15.616700")
    assert names(city, "2a02:dac0::1") == ("EU/Russia", "60.000000", "100.000000")
    assert names(city, "10.9.9.9") == ("ZZ", None, None)
    assert names(city, "10.1.2.3") == (UNKNOWN, None, None)
    assert names(city, "192.0.2.1") == ("Host", "-0.500000", None)
    assert names(city, "192.0.2.2") == (UNKNOWN, None, None)
    assert names(city, "::ffff:10.9.9.9")[0] == "ZZ"


def test_asn_text(tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    path.write_bytes(mmdb_writer.build(ASN, kind="Test-ASN"))
    asn = GeoAsn(path)
    geo = GeoNames(None, asn)
    assert geo.asn(key(asn, "1.128.0.0")) == "1221/Telstra Pty Ltd"
    assert geo.asn(key(asn, "2401:8080::")) == "237"
    assert geo.asn(key(asn, "8.8.8.8")) == UNKNOWN
    assert geo.asn(key(asn, "6.6.6.6")) == UNKNOWN
    assert geo.city(key(asn, "1.128.0.0")) == ("", None, None)
    assert GeoNames().asn(bytes(20)) == ""
    assert pickle.loads(pickle.dumps(geo)).asn(key(asn, "1.128.0.0")) == "1221/Telstra Pty Ltd"


@pytest.mark.parametrize("record_size", [24, 28, 32])
@pytest.mark.parametrize("ip_version", [4, 6])
def test_walk_equals_maxminddb(tmp_path: Path, record_size: int, ip_version: int) -> None:
    """Every address: found or not as maxminddb has it; equal offsets exactly for equal records."""
    rng = random.Random(7)
    networks = {f"{ipaddress.IPv4Address(rng.getrandbits(32))}/32": {"n": i % 40} for i in range(200)}
    for i in range(200):
        length = rng.randint(1, 31)
        base = rng.getrandbits(length) << (32 - length)
        networks[f"{ipaddress.IPv4Address(base)}/{length}"] = {"n": i % 40}
        if ip_version == 6:
            length = rng.randint(8, 128)
            base = rng.getrandbits(length - 3) | 1 << (length - 3)
            networks[f"{ipaddress.IPv6Address(base << (128 - length))}/{length}"] = {"n": i % 40}
    path = tmp_path / "t.mmdb"
    path.write_bytes(mmdb_writer.build(networks, record_size=record_size, ip_version=ip_version))
    reader = maxminddb.open_database(str(path), maxminddb.MODE_MEMORY)
    native = GeoCity(path).native
    seen: dict[int, object] = {}
    found = 0
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for text in networks:
        network = ipaddress.ip_network(text)
        for value in (int(network[0]), int(network[-1]), int(network[0]) - 1, int(network[-1]) + 1):
            if 0 <= value < 1 << network.max_prefixlen:
                addresses.append(type(network[0])(value))
    for address in addresses:
        offset = native.lookup_address(str(address))
        if address.version == 6 and ip_version == 4:
            assert offset == 0
            continue
        expected = reader.get(address)
        assert (offset == 0) == (expected is None), address
        if offset:
            found += 1
            assert seen.setdefault(offset, expected) == expected
    assert found > 400
    assert len(seen) == len({str(record) for record in seen.values()})


def test_lookup_of_ipv6_in_ipv4_database(tmp_path: Path) -> None:
    path = tmp_path / "four.mmdb"
    path.write_bytes(mmdb_writer.build({"10.0.0.0/8": CITY["10.0.0.0/8"]}, ip_version=4))
    city = GeoCity(path)
    assert names(city, "10.0.0.1")[0] == "ZZ"
    assert names(city, "2001:db8::1")[0] == UNKNOWN


@given(st.binary(min_size=60, max_size=400), st.integers(1, 60), st.sampled_from([24, 28, 32]))
def test_any_tree_is_harmless(data: bytes, nodes: int, record_size: int) -> None:
    """Loops, records behind the end, short trees: an offset inside the file, nothing, or a refusal."""
    if nodes * record_size // 4 + 16 > len(data):
        with pytest.raises(ValueError, match="does not fit"):
            Mmdb(data, nodes, record_size, 6)
        return
    native = Mmdb(data, nodes, record_size, 6)
    for address in ("0.0.0.0", "255.255.255.255", "10.1.2.3", "::", "2001:db8::1", "ffff::"):
        offset = native.lookup_address(address)
        assert offset == 0 or nodes * record_size // 4 + 16 <= offset < len(data)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((0, 24, 6), "empty"), ((1, 25, 6), "record size"), ((1, 24, 5), "IP version"), ((99, 24, 6), "fit")],
)
def test_refused_metadata(numbers: tuple[int, int, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Mmdb(bytes(100), *numbers)


def test_refused_files(tmp_path: Path, city_path: Path) -> None:
    whole = city_path.read_bytes()
    bad = {
        "missing": None,
        "empty": b"",
        "text": b"hello\n" * 100,
        "no tree": whole[whole.index(mmdb_writer.MARKER) :],
        "no metadata": whole[: whole.index(mmdb_writer.MARKER)],
        "other kind": mmdb_writer.build(ASN, kind="GeoLite2-ASN"),
    }
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            GeoCity(path)
        message = str(caught.value)
        assert str(path) in message, name
        assert "expected a MaxMind city database" in message
        assert "\n" not in message
    with pytest.raises(InputError, match="is a directory"):
        GeoCity(tmp_path)
    with pytest.raises(InputError, match="it is a GeoIP2-City database"):
        path.write_bytes(mmdb_writer.build(CITY, kind="GeoIP2-City"))
        GeoAsn(path)


def test_damaged_record_says_nothing(tmp_path: Path) -> None:
    raw = mmdb_writer.build({"10.0.0.0/8": {"city": {"names": {"en": "Here"}}}})
    path = tmp_path / "damaged.mmdb"
    path.write_bytes(raw.replace(b"\x42enDHere", b"\x42en\x5fHere"))
    city = GeoCity(path)
    assert city.native.lookup_address("10.0.0.1")
    assert names(city, "10.0.0.1") == (UNKNOWN, None, None)


def test_spec_examples(geo_city: str, geo_asn: str) -> None:
    city, asn = GeoCity(geo_city), GeoAsn(geo_asn)
    assert names(city, "2a02:dac0::") == ("EU/Russia", "60.000000", "100.000000")
    assert names(city, "89.160.20.112")[0] == "EU/Sweden/E/Linköping"
    assert names(city, "216.160.83.56")[0] == "NA/United States/WA/Milton"
    geo = GeoNames(city, asn)
    assert geo.asn(key(asn, "1.128.0.0")) == "1221/Telstra Pty Ltd"
    assert geo.asn(key(asn, "2401:8080::")) == "237/Merit Network Inc."
    assert geo.asn(key(asn, "6.6.6.6")) == UNKNOWN


@pytest.mark.parametrize("name", ["GeoIP2-City-Test", "GeoLite2-City-Test"])
def test_every_network_equals_geoip2(shared: Path, name: str) -> None:
    path = shared / "geo" / f"{name}.mmdb"
    city = GeoCity(path)
    count = 0
    with geoip2.database.Reader(str(path)) as oracle, maxminddb.open_database(str(path)) as reader:
        for network, _ in reader:
            text = str(network[0])
            record = oracle.city(text)
            parts = [
                record.continent.code,
                record.country.names.get("en") or record.country.iso_code,
                record.subdivisions[0].iso_code if record.subdivisions else None,
                record.city.names.get("en"),
            ]
            place = [record.location.latitude, record.location.longitude]
            expected = ("/".join(p for p in parts if p) or UNKNOWN, *(p and f"{p:.6f}" for p in place))
            assert names(city, text) == expected, text
            count += 1
    assert count > 200
