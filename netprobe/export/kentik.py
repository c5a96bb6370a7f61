"""Flow records to Kentik: from the columns of the flow table to those of kflow (kprobe.md 4.3, 4.5)."""

from __future__ import annotations

import threading
from array import array

from netprobe.export.batch import TO_HOSTS, ExportError, FlowBatch
from netprobe.kentik import Client, Field, Records

__all__ = ["CLOSE_S", "Errors", "KentikSink", "to_records"]

MAC_BYTES = 6
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


class Errors:
    """Shows a client's errors on standard output, like upstream. ExportError: the program must end."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self) -> None:
        for text in self._client.errors.take():
            print(f"libkflow error: {text}", flush=True)
        if self._client.fatal is not None:
            raise ExportError(self._client.fatal)


class KentikSink:
    """Gives records to a client: of a replay no faster than the device's limit takes them. Live, what is
    above the limit is dropped, and what gets through is scaled to stand for it.

    ExportError: something was not delivered, or the client said that the program must end.
    """

    def __init__(self, client: Client, *, live: bool = False) -> None:
        self._client = client
        self._live = live
        self._stopping = threading.Event()
        self._errors = Errors(client)

    def write(self, batch: FlowBatch) -> None:
        client = self._client
        self._errors.show()
        if self._live:
            client.send(to_records(batch))
            return
        if client.device.max_flow_rate < 1:
            raise ExportError("the device's flow limit is 0, Kentik would take nothing")
        # a record for which there is no room in time would be dropped
        wait_s = batch.rows / client.device.max_flow_rate + CLOSE_S
        if client.send(to_records(batch), wait_s) < batch.rows and not self._stopping.is_set():
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
        if not complete or stats.failed or (stats.dropped and not self._live):
            raise ExportError(
                f"of {stats.handed_over} records {stats.posted} were sent, {stats.failed} failed, "
                f"{stats.dropped} were dropped, {stats.waiting} were left"
            )

    def abort(self) -> None:
        self._stopping.set()
        self._client.stop(0.0)
