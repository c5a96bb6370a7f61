"""Batches for sinks, made by hand."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from netprobe.export.batch import CODES, FlowBatch
from netprobe.flow_columns import SCHEMA

DEFAULTS: dict[str, Any] = {"l3": 4, "proto": 6, "direction": 2, "sample_rate": 1, "reason": 5}
DEFAULTS |= {"src": "10.0.0.1", "dst": "10.0.0.2", "out_window": -1, "in_window": -1, "appl_latency_ms": -1}


def batch(*records: dict[str, Any]) -> FlowBatch:
    """One record per dict; addresses and MACs as text."""
    columns = {}
    for column in SCHEMA:
        values = [record.get(column.name, DEFAULTS.get(column.name, 0)) for record in records]
        if column.name in ("src", "dst"):
            raw = b"".join(ipaddress.ip_address(v).packed.ljust(16, b"\0") for v in values)
            columns[column.name] = memoryview(raw)
        elif column.name in ("smac", "dmac"):
            raw = b"".join(bytes.fromhex((v or "00" * 6).replace(":", "")) for v in values)
            columns[column.name] = memoryview(raw)
        else:
            code = CODES[column.dtype]
            packed = bytearray(struct.pack(f"={len(values)}{code}", *values))
            columns[column.name] = memoryview(packed).cast(code)
    return FlowBatch(len(records), columns)
