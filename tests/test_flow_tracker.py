"""Connection tracking (kprobe spec 5): the spec's worked values, its rules one by one, and tshark."""

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED_ABSENT, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from netprobe._core.flow_tester import FlowTester
from netprobe.flow_columns import flows

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
US, MS, SECOND = 10**3, 10**6, 10**9
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
WRAP = 2**32


class Talk:
    """One TCP connection in a table of unidirectional records; sequence numbers count from the SYN's."""

    def __init__(self, isn: tuple[int, int] = (1000, 5000), **config: Any) -> None:
        self.table = FlowTester(**config)
        self.isn = isn

    def send(
        self,
        side: int,
        ts: int,
        at: int = 1,
        size: int = 0,
        flags: int = ACK,
        window: int = 1000,
        wscale: int = -1,
    ) -> list[dict[str, Any]]:
        ends = (A, 1111, B, 80) if side == 0 else (B, 80, A, 1111)
        self.table.add(
            ends[0],
            ends[2],
            ends[1],
            ends[3],
            6,
            ts,
            40 + size,
            flags=flags,
            seq=(self.isn[side] + at) % WRAP,
            payload=size,
            window=window,
            wscale=wscale,
        )
        return self.table.go()

    def shake(self, rtt: tuple[int, int] = (20 * MS, 10 * MS), scales: tuple[int, int] = (-1, -1)) -> int:
        """SYN, SYN+ACK, ACK; returns the time of the last."""
        self.send(0, 0, 0, 0, SYN, 64, scales[0])
        self.send(1, rtt[0], 0, 0, SYN | ACK, 64, scales[1])
        self.send(0, rtt[0] + rtt[1], 1)
        return rtt[0] + rtt[1]

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The client's record and the server's."""
        found = {r["sport"]: r for r in self.table.finish()}
        return found[1111], found[80]


# --- latencies (5.3, 5.4, 5.9) ------------------------------------------------------------------------------


def test_network_latency_is_half_the_handshake() -> None:
    talk = Talk()
    talk.shake((21 * MS, 9 * MS))
    client, server = talk.end()
    assert (client["client_ms"], client["server_ms"]) == (4, 0)
    assert (server["client_ms"], server["server_ms"]) == (0, 10)


@pytest.mark.parametrize(
    "rtt, ms", [(0, 1), (2 * SECOND, 1000), (120 * SECOND, 20000), (40 * SECOND + 2 * MS, 20000), (1, 1)]
)
def test_latency_is_clamped(rtt: int, ms: int) -> None:
    """Spec 10.3, test_min_max_latency: 1 s is 1000, 60 s is 20000, 0 is 1."""
    talk = Talk(idle=1000 * SECOND)
    talk.shake((rtt, rtt))
    client, server = talk.end()
    assert (client["client_ms"], server["server_ms"]) == (ms, ms)


def test_clock_starts_with_the_latest_syn() -> None:
    talk = Talk()
    talk.send(0, 0, 0, 0, SYN)
    talk.send(0, 1 * SECOND, 0, 0, SYN)
    talk.send(1, 1 * SECOND + 50 * MS, 0, 0, SYN | ACK)
    talk.send(1, 2 * SECOND, 0, 0, SYN | ACK)
    talk.send(0, 2 * SECOND + 30 * MS)
    client, server = talk.end()
    assert server["server_ms"] == 25  # the first SYN+ACK counts, and only that
    assert client["client_ms"] == 15


def test_no_latency_without_both_packets() -> None:
    talk = Talk()
    talk.send(1, 0, 0, 0, SYN | ACK)
    talk.send(0, 10 * MS)
    client, server = talk.end()
    assert (client["client_ms"], server["server_ms"]) == (0, 0)


def test_first_payload_exchange() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t + MS, 1, 10)
    talk.send(0, t + 2 * MS, 11, 10)
    talk.send(1, t + 31 * MS, 1, 10)
    talk.send(0, t + 90 * MS, 21, 10)
    client, server = talk.end()
    assert (client["fpex_ms"], server["fpex_ms"]) == (0, 30)


def test_first_payload_exchange_of_any_protocol_on_every_export() -> None:
    table = FlowTester(active=SECOND)
    table.add(A, B, 0, 0, 47, 0, payload=10)
    table.add(B, A, 0, 0, 47, 44 * MS + 999_999, payload=10)
    table.add(B, A, 0, 0, 47, 2 * SECOND, payload=10)
    table.add(B, A, 0, 0, 47, 4 * SECOND, payload=10)
    got = [r["fpex_ms"] for r in table.go() + table.finish() if r["src"][:4] == B]
    assert got == [44, 44, 44]


# --- retransmission, reordering, repeats (5.5) --------------------------------------------------------------


def test_retransmission_after_the_handshake_time() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t + 100 * MS, 1, 100)
    talk.send(0, t + 110 * MS, 1, 100)  # client's handshake time: 10 ms, not below it
    talk.send(0, t + 109 * MS + 999 * US, 1, 100)
    client, _ = talk.end()
    assert (client["out"]["retransmits"], client["out"]["reordered"]) == (1, 1)


def test_reorder_limit_without_handshake_is_3_ms() -> None:
    talk = Talk()
    talk.send(0, 0, 1, 100)
    talk.send(0, 3 * MS - 1, 1, 100)
    talk.send(0, 3 * MS, 1, 100)
    (record,) = talk.table.finish()
    assert (record["out"]["retransmits"], record["out"]["reordered"]) == (1, 1)


def test_gap_counts_like_a_repeat() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 100)
    talk.send(0, t + MS, 201, 100)  # 101..200 overtaken or lost
    talk.send(0, t + 2 * MS, 101, 100)
    talk.send(0, t + SECOND, 401, 100)
    client, _ = talk.end()
    assert (client["out"]["reordered"], client["out"]["retransmits"]) == (2, 1)


def test_syn_and_fin_take_a_number() -> None:
    """RFC 9293 3.4: what repeats one of them is a retransmission, and data is not expected in its place."""
    talk = Talk()
    t = talk.shake()
    talk.send(0, t + SECOND, 1, 0, ACK | FIN)
    talk.send(0, t + 2 * SECOND, 1, 0, ACK | FIN)
    talk.send(0, t + 3 * SECOND, 2)
    talk.send(1, t + 4 * SECOND, 0, 0, SYN | ACK)
    talk.send(1, t + 5 * SECOND, 1, 100)
    client, server = talk.end()
    assert (client["out"]["retransmits"], server["out"]["retransmits"]) == (1, 1)


def test_keep_alives_do_not_count() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t + MS, 1, 100)
    for i in range(1, 4):
        talk.send(0, t + i * SECOND, 100, i % 2)
    client, _ = talk.end()
    assert client["out"]["retransmits"] == 0
    # the same number with FIN or RST is none
    talk = Talk()
    t = talk.shake()
    talk.send(0, t + MS, 1, 100)
    talk.send(0, t + SECOND, 100, 1, ACK | RST)
    talk.send(0, t + 2 * SECOND, 100, 0, ACK | FIN)
    assert talk.end()[0]["out"]["retransmits"] == 2


@pytest.mark.parametrize("again, repeats", [(0, 0), (3, 0), (4, 1), (5, 1), (9, 1)])
def test_repeats(again: int, repeats: int) -> None:
    """The first retransmission moves the marker; three more on the same number are one repeat."""
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 100)
    talk.send(0, t, 101, 100)
    for i in range(again):
        talk.send(0, t + (i + 1) * SECOND, 101, 100)
    client, _ = talk.end()
    assert (client["out"]["retransmits"], client["out"]["repeats"]) == (again, repeats)


def test_repeats_of_the_very_first_number() -> None:
    """The marker starts there, so the run is one ahead."""
    talk = Talk()
    for i in range(4):
        talk.send(0, i * SECOND, 0, 0, SYN)
    (record,) = talk.table.finish()
    assert (record["out"]["retransmits"], record["out"]["repeats"]) == (3, 1)


def test_another_number_resets_the_run() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 100)
    talk.send(0, t, 101, 100)
    for i, at in enumerate([1, 1, 1, 101, 1, 1, 1, 101]):
        talk.send(0, t + (i + 1) * SECOND, at, 100)
    client, _ = talk.end()
    assert (client["out"]["retransmits"], client["out"]["repeats"]) == (8, 0)


def test_counters_start_anew_at_each_export_but_the_run_goes_on() -> None:
    talk = Talk(active=2 * SECOND + SECOND // 2)
    t = talk.shake()
    talk.send(0, t, 1, 100)
    records = []
    for i in range(1, 7):
        records += talk.send(0, t + i * SECOND, 1, 100)
    records += talk.table.finish()
    mine = [r["out"] for r in records if r["sport"] == 1111]
    assert [(m["retransmits"], m["repeats"]) for m in mine] == [(2, 0), (3, 1), (1, 0)]


@given(st.integers(0, WRAP - 1), st.lists(st.integers(1, 1400), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_numbers_wrap_around(isn: int, sizes: list[int]) -> None:
    """D13: wherever the initial number lies, an orderly transfer shows nothing, a repeat shows one."""
    for start in (isn, WRAP - 500):
        talk = Talk((start, 7))
        t = talk.shake()
        at = 1
        for n in sizes:
            t += 20 * MS
            talk.send(0, t, at, n)
            at += n
        talk.send(0, t + SECOND, at - sizes[-1], sizes[-1])
        client, _ = talk.end()
        one_byte = sizes[-1] == 1  # cannot be told from a keep-alive
        assert (client["out"]["retransmits"], client["out"]["reordered"]) == (0 if one_byte else 1, 0)


# --- windows (5.6) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scales, factor",
    [((7, 2), (128, 4)), ((-1, 2), (1, 1)), ((7, -1), (1, 1)), ((0, 0), (1, 1)), ((20, 3), (16384, 8))],
)
def test_window_scale_needs_both_sides(scales: tuple[int, int], factor: tuple[int, int]) -> None:
    """D1, and RFC 7323: at most 14."""
    talk = Talk()
    t = talk.shake(scales=scales)
    talk.send(0, t, 1, 0, ACK, 500)
    talk.send(1, t, 1, 0, ACK, 300)
    client, server = talk.end()
    assert (client["out"]["window"], server["out"]["window"]) == (500 * factor[0], 300 * factor[1])


@pytest.mark.parametrize("early, factor", [(1, 128), (2, 128), (3, 1)])
def test_window_scale_when_the_capture_has_the_ack_first(early: int, factor: int) -> None:
    """Two ACKs ahead of the SYN+ACK are forgiven; without one, nobody knows whether scaling is on."""
    talk = Talk()
    talk.send(0, 0, 0, 0, SYN, 64, 7)
    for i in range(early):
        talk.send(0, i + 1, 1)
    talk.send(1, 10, 0, 0, SYN | ACK, 64, 2)
    talk.send(0, 20, 1, 0, ACK, 500)
    client, _ = talk.end()
    assert client["out"]["window"] == 500 * factor


def test_window_of_a_syn_stays_raw_and_without_syn_there_is_none() -> None:
    talk = Talk()
    talk.send(0, 0, 0, 0, SYN, 64000, 7)
    talk.send(1, 5, 1, 0, ACK, 77)
    client, server = talk.end()
    assert (client["out"]["window"], server["out"]["window"]) == (64000, -1)


def test_zero_windows_count_since_the_last_export() -> None:
    talk = Talk(active=SECOND)
    t = talk.shake()
    for i, window in enumerate([0, 0, 10, 0]):
        talk.send(1, t + i * MS, 1, 0, ACK, window)
    records = talk.send(1, t + 2 * SECOND, 1, 0, ACK | RST, 0)
    records += talk.table.finish()
    mine = [r["out"] for r in records if r["sport"] == 80]
    assert [(m["zero_windows"], m["window"]) for m in mine] == [(3, 0), (1, 0)]


# --- the end of a connection (5.8) --------------------------------------------------------------------------


def close(talk: Talk, t: int) -> None:
    talk.send(0, t, 1, 0, ACK | FIN)
    talk.send(1, t + MS, 1, 0, ACK | FIN)
    talk.send(0, t + 2 * MS, 2)


def test_final_values_reach_the_record() -> None:
    """D15: both states are gone after the last ACK, their values are not."""
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 0)
    assert talk.table.trackers == 2
    close(talk, t + SECOND)
    assert talk.table.trackers == 0
    client, server = talk.end()
    assert (client["client_ms"], server["server_ms"]) == (5, 10)
    assert client["out"]["packets"] == 5


def test_the_packet_that_ends_it_is_not_examined() -> None:
    talk = Talk()
    close(talk, talk.shake())
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 0, ACK | FIN)
    talk.send(1, t, 1, 0, ACK | FIN)
    talk.send(0, t + SECOND, 900, 100, ACK, 0)
    client, _ = talk.end()
    assert (client["out"]["retransmits"], client["out"]["zero_windows"]) == (0, 0)


def test_reset_changes_nothing() -> None:
    talk = Talk()
    t = talk.shake()
    talk.send(0, t, 1, 0, RST | ACK)
    talk.send(1, t, 1, 0, RST)
    assert talk.table.trackers == 2


def test_the_next_connection_with_the_same_ports_starts_fresh() -> None:
    talk = Talk(active=10 * SECOND, idle=100 * SECOND)
    t = talk.shake()
    talk.send(0, t, 1, 10)
    talk.send(1, t + 40 * MS, 1, 10)
    close(talk, t + SECOND)
    records = talk.send(0, 20 * SECOND, 0, 0, SYN)
    records += talk.send(1, 20 * SECOND + 300 * MS, 0, 0, SYN | ACK)
    records += talk.send(0, 20 * SECOND + 500 * MS, 1)
    client, server = talk.end()
    old = {r["sport"]: r for r in records}
    assert (old[1111]["client_ms"], old[80]["server_ms"], old[80]["fpex_ms"]) == (5, 10, 40)
    assert (client["client_ms"], server["server_ms"], server["fpex_ms"]) == (100, 150, 0)
    assert client["out"]["retransmits"] == 0


def test_states_idle_for_60_seconds_are_dropped_at_compaction() -> None:
    """Pure ACKs are no activity of a TCP direction; after a minute of them it starts anew."""
    talk = Talk(schedule=True, seed=5)
    t = talk.shake((200 * MS, 100 * MS))
    got = []
    for s in range(1, 120):
        got += talk.send(0, t + s * SECOND, 1)
    last = talk.table.finish()
    latencies = [r["client_ms"] for r in got + last if r["sport"] == 1111]
    assert latencies[0] == 50 and latencies[-1] == 0
    # dropped in the pass at 60 to 92 s: until then every record has it, one more may attach it (D15)
    assert 4 <= latencies.count(50) <= 8


def test_bidirectional_record_has_both_sides() -> None:
    talk = Talk(bidirectional=True)
    t = talk.shake((21 * MS, 9 * MS), (2, 3))
    talk.send(0, t + MS, 1, 100, ACK, 10)
    talk.send(0, t + SECOND, 1, 100, ACK, 10)
    talk.send(1, t + SECOND + 5 * MS, 1, 50, ACK, 0)
    (r,) = talk.table.finish()
    assert (r["client_ms"], r["server_ms"], r["fpex_ms"]) == (4, 10, 1004)
    assert (r["out"]["retransmits"], r["in"]["retransmits"]) == (1, 0)
    assert (r["out"]["window"], r["in"]["window"], r["in"]["zero_windows"]) == (40, 0, 1)
    assert (r["first"], r["last"]) == (0, t + SECOND + 5 * MS)


# --- the spec's worked values (10.2, 10.4) ------------------------------------------------------------------


def kprobe_capture(name: str) -> Path:
    data = shared_data()
    path = data / "pcap" / "kprobe" / name if data else None
    if path is None or not path.is_file():
        pytest.skip(SHARED_ABSENT)
    return path


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """All records of a capture, each as a dict of plain numbers and text addresses."""
    options = {"bidirectional": False, "idle": 1e6, "active": None, **options}
    out = []
    for chunk in flows(path, **options):
        text = {name: chunk.addresses(name) for name in ("src", "dst")}
        for i in range(chunk.rows):
            row = {name: column[i].item() for name, column in chunk.items() if column.ndim == 1}
            out.append({**row, "src": text["src"][i], "dst": text["dst"][i]})
    return out


def test_udp_first_exchange_latency() -> None:
    found = rows(kprobe_capture("google.com-any.pcap"))
    # in order of the queries and replies of each resolver
    assert sorted(r["out_bytes"] for r in found) == [56, 64, 64, 80, 92, 432]
    latency = {(r["src"], r["sport"], r["dst"], r["dport"]): r["fpex_latency_ms"] for r in found}
    assert latency["8.8.4.4", 53, "10.0.0.52", 52407] == 44
    assert sorted(latency.values()) == [0, 0, 0, 41, 42, 44]
    assert all(r["out_pkts"] == 1 for r in found)


def test_tcp_first_exchange_latency() -> None:
    client, server = rows(kprobe_capture("google.com.pcap"))
    assert (server["src"], server["sport"]) == ("172.217.25.110", 80)
    assert (server["dst"], server["dport"]) == ("10.211.55.16", 42370)
    assert (server["fpex_latency_ms"], server["server_nw_latency_ms"]) == (7, 3)
    assert (client["client_nw_latency_ms"], client["fpex_latency_ms"]) == (1, 0)
    assert (client["out_pkts"], client["out_bytes"]) == (3 + 3, 214 + 120)
    assert (server["out_pkts"], server["out_bytes"]) == (3 + 2, 635 + 80)
    assert server["out_window"] == 32768


@pytest.mark.tool("editcap")
def test_tcp_request_and_response(tmp_path: Path) -> None:
    """10.4: what the records after packets 4 and 6 hold; cut there, because nobody decodes here."""
    whole = kprobe_capture("google.com.pcap")
    cut = tmp_path / "cut.pcap"
    subprocess.run(["editcap", "-F", "pcap", "-r", whole, cut, "1-4"], check=True)
    client = rows(cut)[0]
    assert (client["out_pkts"], client["out_bytes"], client["out_tcp_flags"]) == (3, 214, 0x1A)
    assert (client["client_nw_latency_ms"], client["out_window"]) == (1, 29312)
    subprocess.run(["editcap", "-F", "pcap", "-r", whole, cut, "1-6"], check=True)
    server = rows(cut)[1]
    assert (server["out_pkts"], server["out_bytes"], server["out_tcp_flags"]) == (3, 635, 0x1A)
    assert (server["server_nw_latency_ms"], server["fpex_latency_ms"], server["out_window"]) == (3, 7, 32768)


def test_tcp_retransmits() -> None:
    found = {(r["src"], r["sport"], r["dport"]): r for r in rows(kprobe_capture("retransmits.pcap"))}
    one, two = found["10.211.55.2", 52952, 2222], found["10.211.55.2", 52953, 2222]
    assert (one["out_retransmits"], one["out_repeats"], one["out_pkts"], one["out_bytes"]) == (8, 1, 12, 686)
    assert (two["out_retransmits"], two["out_repeats"], two["out_pkts"], two["out_bytes"]) == (6, 1, 10, 572)
    for port in (52952, 52953):
        back = found["10.211.55.16", 2222, port]
        assert (back["out_pkts"], back["out_bytes"], back["server_nw_latency_ms"]) == (2, 112, 1)
    assert not any(r["out_reordered"] for r in found.values())


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("dhcpv4.pcap", [328, 322]),
        ("sns-pb.isc.org.pcap", [60, 300]),
        ("radius-acct-start.pcap", None),
    ],
)
def test_sizes(name: str, sizes: list[int] | None) -> None:
    found = rows(kprobe_capture(name))
    if sizes is not None:
        assert sorted(r["out_bytes"] for r in found) == sorted(sizes)
    if name == "radius-acct-start.pcap":
        assert [r["fpex_latency_ms"] for r in found] == [0, 1]


def test_ethernet_padding_is_no_payload() -> None:
    found = rows(kprobe_capture("ipv4_eth_padding.pcap"))
    (size,) = {r["out_bytes"] for r in found}
    assert size == 40 and found[0]["fpex_latency_ms"] == 0


# --- tshark -------------------------------------------------------------------------------------------------

FIELDS = [
    "ip.src",
    "tcp.srcport",
    "tcp.analysis.retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.zero_window",
    "tcp.analysis.keep_alive",
    "tcp.window_size",
    "ip.len",
]


def tshark(path: Path) -> list[list[str]]:
    args = [arg for field in FIELDS for arg in ("-e", field)]
    out = subprocess.run(
        ["tshark", "-r", path, "-Y", "tcp && ip", "-T", "fields", "-E", "separator=|", *args],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("|") for line in out.stdout.splitlines()]


@pytest.mark.tool("tshark")
def test_health_equals_tshark(tmp_path: Path) -> None:
    """A lossy transfer with scaled windows, keep-alives and a closed window, where the rules agree.

    They do not agree on gaps (tshark: a lost segment; here: like a repeat), so there are none.
    """
    packets: list[Any] = []
    now = 0.0

    def send(side: int, seq: int, size: int = 0, flags: str = "A", window: int = 500, **more: Any) -> None:
        ends = ("10.0.0.1", "10.0.0.2")
        ports = (4000, 80)
        p = (
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / IP(src=ends[side], dst=ends[1 - side])
            / TCP(
                sport=ports[side],
                dport=ports[1 - side],
                seq=(base[side] + seq) % WRAP,
                ack=(base[1 - side] + more.pop("ack", 1)) % WRAP if flags != "S" else 0,
                flags=flags,
                window=window,
                **more,
            )
        )
        if size:
            p = p / Raw(b"x" * size)
        p.time = 1_700_000_000 + now
        packets.append(p)

    base = (WRAP - 3000, 77)  # wraps around in the middle
    send(0, 0, flags="S", window=60000, options=[("MSS", 1460), ("WScale", 7)])
    now += 0.050
    send(1, 0, flags="SA", window=50000, options=[("MSS", 1460), ("WScale", 3)])
    now += 0.030
    send(0, 1)
    at = 1
    for i in range(12):
        now += 0.2
        send(0, at, 900, "PA", 500 + i)
        if i % 3 == 0:
            now += 0.7
            send(0, at, 900, "PA", 500 + i)  # lost on the way to the server
        at += 900
        now += 0.06
        send(1, 1, window=300 - 25 * i, ack=at)
    now += 5
    send(0, at - 1, ack=1)  # keep-alive
    now += 0.06
    send(1, 1, window=0, ack=at)
    now += 0.06
    send(1, 1, window=80, ack=at)
    path = tmp_path / "health.pcap"
    wrpcap(str(path), packets)

    want: dict[str, Counter[str]] = {}
    window: dict[str, int] = {}
    for src, _, again, disordered, zero, alive, size, length in tshark(path):
        count = want.setdefault(src, Counter())
        count["pkts"] += 1
        count["bytes"] += int(length)
        count["retransmits"] += bool(again)
        count["reordered"] += bool(disordered)
        count["zero_windows"] += bool(zero)
        count["alive"] += bool(alive)
        window[src] = int(size)
    assert want["10.0.0.1"]["retransmits"] == 4 and want["10.0.0.1"]["alive"] == 1
    assert want["10.0.0.2"]["zero_windows"] >= 1

    one_way = {r["src"]: r for r in rows(path)}
    (both,) = rows(path, bidirectional=True)
    for src, side in (("10.0.0.1", "out"), ("10.0.0.2", "in")):
        for name in ("pkts", "bytes", "retransmits", "reordered", "zero_windows"):
            assert one_way[src]["out_" + name] == want[src][name], name
            assert both[f"{side}_{name}"] == want[src][name], name
        assert one_way[src]["out_window"] == both[side + "_window"] == window[src]
    assert (both["server_nw_latency_ms"], both["client_nw_latency_ms"]) == (25, 15)


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", ["http.pcap", "bgp.pcap", "dns-tcp.pcap"])
def test_real_connections_equal_tshark(name: str) -> None:
    """Packets and bytes of recorded connections, end by end."""
    path = Path(__file__).parent / "captures" / name
    want: dict[tuple[str, int], list[int]] = {}
    for src, port, *_, length in tshark(path):
        end = want.setdefault((src, int(port)), [0, 0])
        end[0] += 1
        end[1] += int(length)
    assert want
    got: dict[tuple[str, int], list[int]] = {}
    for r in rows(path, filter="tcp and ip"):
        end = got.setdefault((r["src"], r["sport"]), [0, 0])
        end[0] += r["out_pkts"]
        end[1] += r["out_bytes"]
    assert got == want


def test_payload_is_told_from_headers_not_from_the_capture(tmp_path: Path) -> None:
    """D14: a snap length changes nothing of what the tracker says."""
    packets = []
    for i, (seq, size) in enumerate([(0, 0), (1, 700), (701, 700), (1401, 700), (701, 700)]):
        flags = "S" if i == 0 else "A"
        p = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=5, dport=80, seq=seq, flags=flags)
        p = p / Raw(b"x" * size) if size else p
        p.time = 1_700_000_000 + i
        packets.append(p)
    answer = Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=80, dport=5) / Raw(b"y" * 900)
    answer.time = 1_700_000_010
    whole = tmp_path / "whole.pcap"
    wrpcap(str(whole), [*packets, answer])
    want = rows(whole)
    short = tmp_path / "short.pcap"
    subprocess.run(["editcap", "-s", "60", "-F", "pcap", whole, short], check=True)
    skip = {"connection_id"}
    assert [{k: v for k, v in r.items() if k not in skip} for r in rows(short)] == [
        {k: v for k, v in r.items() if k not in skip} for r in want
    ]
    assert want[0]["out_retransmits"] == 1
