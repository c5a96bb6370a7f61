"""Wrong types and values for the public functions: one clear line each, and no traceback of ours."""

from __future__ import annotations

import io
import ipaddress
import struct
from pathlib import Path
from typing import Any

import numpy
import policy_fakes
import pytest

import netprobe

DEMO = Path(__file__).resolve().parent / "captures" / "demo.pcap"

TEXTS: list[Any] = [5, b"udp", ["udp"], True]
HOSTS: list[Any] = [5, [5], b"10.0.0.0/8", [None], [["10.0.0.0/8"]], 3.5, True, "x", {"a": 1}]
PATHS: list[Any] = [None, 5, 3.5, [5], [None], [["x"]], object(), io.BytesIO(b"a\nb"), [io.StringIO("a\nb")]]
NUMBERS: list[Any] = ["2", 2.5, None, True, -1, 10**30, [1]]
SWITCHES: list[Any] = ["no", 5, None, 2.5, [], numpy.zeros(3)]

SUMMARIZE: dict[str, list[Any]] = {
    "path": PATHS,
    "handlers": [5, [5], [None], b"net", "", [], {"type": 5}, {"type": "net", "config": 5}, [["net", 5]]],
    "hosts": HOSTS,
    "filter": TEXTS,
    "geo": [5, "city.mmdb"],
    "geo_city": [5, True, ["city.mmdb"], b"x"],
    "geo_asn": [5, True, ["asn.mmdb"], b"x"],
    "workers": [*NUMBERS, 0, 17],
    "periods": [*NUMBERS, 0, 11],
    "deep_sample_rate": [*NUMBERS, 0, 101],
    "inner": SWITCHES,
    "seed": [*NUMBERS, 2**64],
    "stream_limit": [*NUMBERS, 0, 2**32],
    "window_config": [5, [1], "x", {5: 1}, {"num_periods": "x"}],
    "progress": [5, "x"],
    "stop": [5, True],
}
PACKETS: dict[str, list[Any]] = {
    "path": PATHS,
    "columns": [5, "ts", [], [5], [[]], b"ts", True],
    "filter": TEXTS,
    "hosts": HOSTS,
    "inner": SWITCHES,
    "chunk_rows": [*NUMBERS, 0, 10**12],
}
LIVE: dict[str, list[Any]] = {
    "seconds": ["1", True, -1, float("nan"), float("inf"), [1]],
    "handlers": [5, b"net"],
    "hosts": HOSTS,
    "filter": TEXTS,
    "geo": [5],
    "geo_city": [5],
    "source": [5, "x", None],
    "periods": [*NUMBERS, 0, 11],
    "deep_sample_rate": [*NUMBERS, 0, 101],
    "window_config": [5, "x"],
    "stop": [5, True],
}
FLOWS: dict[str, list[Any]] = {
    "path": PATHS,
    "bidirectional": SWITCHES,
    "idle": ["5", None, True, -1, 0, float("nan"), float("inf"), 10**30, [5]],
    "active": ["5", True, -1, 0, float("nan")],
    "decode": [5, "x", None, ["x"], [5], [[]], b"dns"],
    "http_ports": [5, "80", ["80"], [True], [70000], [-1], None, [80.5]],
    "postgres_ports": [5, "80"],
    "filter": TEXTS,
    "hosts": HOSTS,
    "columns": [5, "ts", [], [5], [[]], b"ts", True],
    "chunk_rows": [*NUMBERS, 0, 10**12],
    "capacity": [*NUMBERS, 0, 10**12],
    "seed": ["1", 1.5, True, [1]],
    "seconds": ["1", True, -1],
}
CALLS: dict[str, tuple[Any, dict[str, Any], dict[str, list[Any]]]] = {
    "summarize": (netprobe.summarize, {"path": DEMO}, SUMMARIZE),
    "packets": (lambda **given: list(netprobe.packets(**given)), {"path": DEMO}, PACKETS),
    "flows": (lambda **given: list(netprobe.flows(**given)), {"path": DEMO}, FLOWS),
    "live": (netprobe.live, {"iface": "mock0", "source": "mock", "seconds": 0}, LIVE),
}


@pytest.mark.parametrize(("call", "name"), [(call, name) for call in CALLS for name in CALLS[call][2]])
def test_wrong_arguments(call: str, name: str) -> None:
    function, good, bad = CALLS[call]
    for value in bad[name]:
        with pytest.raises(netprobe.NetprobeError) as caught:
            function(**{**good, name: value})
        text = str(caught.value)
        assert "\n" not in text, (name, value)
        # it names what is wrong, or what is in it
        words = {"handlers": "handler", "geo_city": "city", "geo_asn": "ASN", "iface": "iface"}
        hints = (name, words.get(name, name), "net 1.0", "CIDR")
        assert any(hint in text for hint in hints), (value, text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": "2"}, "workers: '2' is a string, expected a whole number, 1 to 16"),
        ({"workers": 99}, "workers: 99, expected 1 to 16"),
        ({"seed": -1}, "seed: -1, expected 0 to 18446744073709551615"),
        ({"hosts": 5}, "hosts: 5 is a number, expected text such as 10.0.0.0/8, or a list of such"),
        ({"path": None}, "path: nothing is given, expected the path of a capture, or a list of them"),
        ({"stop": 5}, "stop: 5 is a number, expected a threading.Event"),
    ],
)
def test_what_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(netprobe.ConfigError) as caught:
        netprobe.summarize(**{"path": DEMO, **given})
    assert str(caught.value) == message


@pytest.mark.parametrize("function", [netprobe.packets, netprobe.flows])
def test_one_capture_at_a_time(function: Any) -> None:
    with pytest.raises(netprobe.ConfigError) as caught:
        function([DEMO, DEMO])
    assert str(caught.value) == "path: a list is given, expected the path of a capture"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb\x1b.pcap", r"a\nb\x1b.pcap: no"), (b"\xff\n", r"\udcff\n: no"), ("x" * 5000, "xx...: f")],
)
def test_odd_names_of_files_stay_on_one_line(name: Any, shown: str) -> None:
    for several in (name, [DEMO, name]):
        with pytest.raises(netprobe.InputError) as caught:
            netprobe.summarize(several)
        assert shown in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1200


def test_what_a_summary_and_an_agent_take() -> None:
    summary = netprobe.summarize(DEMO)
    for wrong in (summary, 5, None, [5]):
        with pytest.raises(netprobe.ConfigError, match=r"merge: .*, expected summaries"):
            netprobe.merge(wrong)  # type: ignore[arg-type]
    with pytest.raises(netprobe.ConfigError, match="label site: 5 is a number, expected text"):
        summary.to_prometheus(site=5)  # type: ignore[arg-type]
    with netprobe.Agent(iface="eth0", runtime=policy_fakes) as agent:
        for number in ("0", 0.5, None, True):
            with pytest.raises(netprobe.ConfigError, match=r"number: .* expected a whole number"):
                agent.bucket(number)  # type: ignore[arg-type]


NETWORK = ipaddress.ip_network("192.168.0.0/24")


@pytest.mark.parametrize(
    "hosts",
    [
        ["192.168.0.0/24"],
        (text for text in ["192.168.0.0/24"]),
        NETWORK,
        [NETWORK],
        ipaddress.ip_interface("192.168.0.0/24"),
    ],
    ids=["list", "iterator", "network", "networks", "interface"],
)
def test_hosts_in_any_form(hosts: Any) -> None:
    """Made-up packets go to 192.168.0.0/24; an agent hands on the text."""
    seen = netprobe.live("mock0", source="mock", seconds=0.25, hosts=hosts)
    assert seen.to_dict()["5m"]["packets"]["in"] == seen.packets > 0


@pytest.mark.parametrize("hosts", [["192.168.0.0/24", "10.0.0.0/8"], [NETWORK, "10.0.0.0/8"], None, ""])
def test_hosts_of_an_agent(hosts: Any) -> None:
    with netprobe.Agent(iface="eth0", hosts=hosts, filter=None, runtime=policy_fakes) as agent:
        assert agent.taps["default"].config["host_spec"] == ("192.168.0.0/24,10.0.0.0/8" if hosts else "")


def test_numpy_numbers_and_bytes_are_fine() -> None:
    summary = netprobe.summarize(
        bytes(DEMO), workers=numpy.int64(1), seed=numpy.uint64(2**64 - 1), inner=numpy.bool_(True)
    )
    assert summary.packets == 408
    assert sum(chunk.rows for chunk in netprobe.packets(DEMO, ["ts"], chunk_rows=numpy.int32(100))) == 408


@pytest.mark.parametrize("other", [None, 5, {}])
def test_merging_something_else(other: Any) -> None:
    summary = netprobe.summarize(DEMO)
    with pytest.raises(netprobe.ConfigError, match=r"^merge: .*, expected a summary$"):
        summary.merge(other)
    with pytest.raises(netprobe.ConfigError, match=r"^merge: .*, expected summaries$"):
        netprobe.merge([summary, other])


def many_link_types(count: int) -> bytes:
    """One packet of each of so many link types: Ethernet, then numbers that nobody has."""

    def block(kind: int, body: bytes) -> bytes:
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    head = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    types = [1, *range(400, 400 + count - 1)]
    interfaces = b"".join(block(1, struct.pack("<HHI", number, 0, 0)) for number in types)
    packets = (block(6, struct.pack("<IIIII", i, 0, i, 20, 20) + bytes(20)) for i in range(count))
    return head + interfaces + b"".join(packets)


@pytest.mark.parametrize("workers", [1, 2])
def test_filter_and_many_link_types(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "many.pcapng"
    path.write_bytes(many_link_types(64))
    assert netprobe.summarize(path, filter="len > 5", workers=workers).packets == 1
    path.write_bytes(many_link_types(65))
    with pytest.raises(netprobe.InputError) as caught:
        netprobe.summarize(path, filter="len > 5", workers=workers)
    assert str(caught.value) == (
        "filter 'len > 5': there are packets of more than 64 link types, and filters for 64 at most"
    )
    assert netprobe.summarize(path, workers=workers).packets == 65
