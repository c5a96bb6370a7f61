"""Flow records to Kentik: from the columns of the flow table to those of kflow (kprobe.md 4.3, 4.5)."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from array import array

from netprobe.export.batch import TO_HOSTS, ExportError, FlowBatch
from netprobe.export.sinks import Sink
from netprobe.kentik import Client, Field, Records

__all__ = ["CLOSE_S", "Errors", "KentikSink", "spread_packets", "to_records"]

LOG = logging.getLogger("kprobe")

MAC_BYTES = 6
ADDRESS_BYTES = 16
COUNTERS = ("in_pkts", "in_bytes", "out_pkts", "out_bytes")
#: for the end of a replay, beside the time that the device's rate limit asks for
CLOSE_S = 30.0


def to_records(batch: FlowBatch) -> Records:
    """Times have no place in kflow; everything else that kprobe fills is there."""
    towards = [direction == TO_HOSTS for direction in batch.numbers("direction")]
    inwards = any(towards)
    rows = batch.rows
    zeros = bytes(rows)

    def health(name: str) -> memoryview | array[int]:
        """The side that a unidirectional record has."""
        out = batch.columns[f"out_{name}"]
        if not inwards:
            return out
        pairs = zip(towards, batch.numbers(f"in_{name}"), out.tolist(), strict=True)
        return array(out.format, [a if side else b for side, a, b in pairs])

    def split(values: list[int]) -> tuple[array[int], array[int]]:
        """One column for direction in, one for the others."""
        pairs = list(zip(towards, values, strict=True))
        return (
            array("I", [v if side else 0 for side, v in pairs]),
            array("I", [0 if side else v for side, v in pairs]),
        )

    source = [int.from_bytes(mac) for mac in batch.pieces("smac", MAC_BYTES)]
    destination = [int.from_bytes(mac) for mac in batch.pieces("dmac", MAC_BYTES)]
    vlan_in, vlan_out = split(batch.numbers("vlan"))
    columns = {name: batch.columns[name] for name in ("proto", "src", "dst", "sport", "dport", "sample_rate")}
    for name in ("in_pkts", "in_bytes", "out_pkts", "out_bytes"):
        columns[name] = batch.columns[name]
    window = health("window")
    known = bytes(value >= 0 for value in window)
    fields = {
        "FRAGMENTS": Field(batch.columns["fragments"], skip_zero=True),
        "CONNECTION_ID": Field(batch.columns["connection_id"], skip_zero=True),
        "CLIENT_NW_LATENCY_MS": Field(batch.columns["client_nw_latency_ms"], skip_zero=True),
        "SERVER_NW_LATENCY_MS": Field(batch.columns["server_nw_latency_ms"], skip_zero=True),
        "FPEX_LATENCY_MS": Field(batch.columns["fpex_latency_ms"], skip_zero=True),
        "RETRANSMITTED_OUT_PKTS": Field(health("retransmits"), skip_zero=True),
        "REPEATED_RETRANSMITS": Field(health("repeats"), skip_zero=True),
        "OOORDER_IN_PKTS": Field(health("reordered"), skip_zero=True),
        "RECEIVE_WINDOW": Field(window, present=known),
        "ZERO_WINDOWS": Field(health("zero_windows"), skip_zero=True),
        **decoded(batch),
    }
    return Records(
        rows,
        {
            **columns,
            "l3": batch.columns["l3"],
            "src_mac": array("Q", source),
            "dst_mac": array("Q", destination),
            "tos": health("tos"),
            "tcp_flags": health("tcp_flags"),
            "input_port": split([mac & 0xFFFF for mac in destination])[0] if inwards else zeros,
            "output_port": split([mac & 0xFFFF for mac in source])[1],
            "vlan_in": vlan_in,
            "vlan_out": vlan_out,
            "app_protocol": batch.columns["app"],
        },
        fields,
    )


def decoded(batch: FlowBatch) -> dict[str, Field]:
    """What decoders found, by the names of the named columns."""
    apps = batch.apps
    if apps is None or not len(apps):
        return {}
    latency = batch.columns["appl_latency_ms"]
    fields = {"APPL_LATENCY_MS": Field(latency, present=bytes(value >= 0 for value in latency))}
    for name in apps.names():
        values, offsets, present = apps.column(name, batch.rows, binary=True)
        prefix = "KFLOW_" if name.startswith(("dns_", "http_")) else ""
        fields[prefix + name.upper()] = Field(values, present=present, offsets=offsets)
    return fields


def spread_packets(batch: FlowBatch) -> tuple[FlowBatch, list[tuple[int, int]] | None]:
    """Packets for messages that have none of their own: Kentik takes no records without packets.

    Of several messages in one segment only the first comes with the packets that were counted. Each other one
    gets one of them, from a record of the same flow that can spare it. Sums stay what they were. Where there
    is none to spare the record is left out: the ranges of the others are the second result (None: all).
    """
    counts = [a + b for a, b in zip(batch.numbers("in_pkts"), batch.numbers("out_pkts"), strict=True)]
    empty = [i for i, count in enumerate(counts) if count == 0]
    if not empty:
        return batch, None
    keys = list(
        zip(
            *(batch.numbers(name) for name in ("proto", "sport", "dport", "direction", "l3")),
            batch.pieces("src", ADDRESS_BYTES),
            batch.pieces("dst", ADDRESS_BYTES),
            strict=True,
        )
    )
    poor = {keys[i] for i in empty}
    rich: dict[tuple[object, ...], list[int]] = {}
    for i, key in enumerate(keys):
        if counts[i] > 1 and key in poor:
            rich.setdefault(key, []).append(i)
    columns = {name: array("Q", batch.numbers(name)) for name in COUNTERS}
    left_out = []
    for i in empty:
        donors = rich.get(keys[i], [])
        while donors and counts[donors[-1]] < 2:
            donors.pop()
        if not donors:
            left_out.append(i)
            continue
        donor = donors[-1]
        side = "in" if columns["in_pkts"][donor] else "out"
        pkts, size = columns[f"{side}_pkts"], columns[f"{side}_bytes"]
        share = size[donor] // pkts[donor]
        pkts[donor] -= 1
        size[donor] -= share
        pkts[i], size[i] = 1, share
        counts[donor] -= 1
    views = {name: memoryview(values) for name, values in columns.items()}
    ends = [-1, *left_out, batch.rows]
    ranges = [(a + 1, b) for a, b in itertools.pairwise(ends) if a + 1 < b]
    return FlowBatch(batch.rows, {**batch.columns, **views}, batch.apps), ranges if left_out else None


class Errors:
    """Shows a client's errors on standard output, like upstream. ExportError: the program must end."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self) -> None:
        for text in self._client.errors.take():
            # that nobody listens any more is no reason to stop
            with contextlib.suppress(OSError):
                print(f"libkflow error: {text}", flush=True)
        if self._client.fatal is not None:
            raise ExportError(self._client.fatal)


class KentikSink(Sink[FlowBatch]):
    """Gives records to a client: of a replay no faster than the device's limit takes them. Live, what is
    above the limit is dropped, and what gets through is scaled to stand for it.

    ExportError: something was not delivered, or the client said that the program must end.
    """

    def __init__(self, client: Client, *, live: bool = False) -> None:
        self._client = client
        self._live = live
        self._stopping = threading.Event()
        self._errors = Errors(client)
        if live and client.device.max_flow_rate < 1:
            LOG.warning("the device's flow limit is 0: nothing will be sent")
        #: messages without packets, see spread_packets
        self.left_out = 0

    def write(self, batch: FlowBatch) -> None:
        client = self._client
        self._errors.show()
        batch, ranges = spread_packets(batch)
        rows = batch.rows if ranges is None else sum(stop - start for start, stop in ranges)
        self.left_out += batch.rows - rows
        if self._live:
            client.send(to_records(batch), ranges=ranges)
            return
        if client.device.max_flow_rate < 1:
            raise ExportError("the device's flow limit is 0, Kentik would take nothing")
        # a record for which there is no room in time would be dropped
        wait_s = rows / client.device.max_flow_rate + CLOSE_S
        if client.send(to_records(batch), wait_s, ranges) < rows and not self._stopping.is_set():
            raise ExportError("the queue to Kentik did not empty in time")

    def idle(self) -> None:
        self._errors.show()

    def close(self, limit_s: float | None) -> None:
        client = self._client
        if limit_s is None:
            limit_s = client.stats().waiting / max(client.device.max_flow_rate, 1) + CLOSE_S
        complete = client.stop(limit_s)
        stats = client.stats()
        self._errors.show()
        if self.left_out:
            LOG.info("%d messages had no packets of their own and were not sent", self.left_out)
        if not complete or stats.failed or (stats.dropped and not self._live):
            raise ExportError(
                f"of {stats.handed_over} records {stats.posted} were sent, {stats.failed} failed, "
                f"{stats.dropped} were dropped, {stats.waiting} were left"
            )

    def lost(self, rows: int) -> None:
        self._client.flows.lost(rows)

    def abort(self) -> None:
        self._stopping.set()
        self._client.stop(0.0)
