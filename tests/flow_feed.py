"""A capture through the flow reader as kprobe sets it up, without a sink: records as dicts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from netprobe._core.app_flow import AppRows
from netprobe._core.capfile import CaptureReader
from netprobe._core.flow_reader import COLUMNS, REASONS, FlowReader
from netprobe.inputs.sources import open_source

CODES = {"i8": "q", "u8": "Q", "u4": "I", "u2": "H", "u1": "B"}
ROWS = 512


def kprobe_rows(path: Path | str, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records in the order in which they came out, with their `app_fields`, and the reader's stats."""
    settings: dict[str, Any] = {
        "bidirectional": False,
        "schedule": True,
        "raw_extensions": True,
        "decode": True,
    }
    out: list[dict[str, Any]] = []
    with open_source(path) as source:
        capture = CaptureReader(source)
        capture.open()
        reader = FlowReader(capture, **{**settings, **options})
        while not reader.at_end:
            buffers = {name: bytearray(size * ROWS) for name, (_, size, _) in COLUMNS.items()}
            apps = AppRows()
            rows = reader.fill(buffers, ROWS, apps)
            columns: dict[str, list[Any]] = {}
            for name, (kind, size, _) in COLUMNS.items():
                raw = bytes(buffers[name][: rows * size])
                columns[name] = (
                    memoryview(raw).cast(CODES[kind]).tolist()  # type: ignore[call-overload]
                    if kind in CODES
                    else [raw[i * size : (i + 1) * size] for i in range(rows)]
                )
            fields: list[dict[str, Any]] = [{} for _ in range(rows)]
            for name in apps.names():
                values, offsets, present = apps.column(name, rows)
                for i in range(rows):
                    if present[i]:
                        fields[i][name] = (
                            values[i]
                            if offsets is None
                            else bytes(values[offsets[i] : offsets[i + 1]]).decode()
                        )
            for i in range(rows):
                row = {name: column[i] for name, column in columns.items()}
                for end in ("src", "dst"):
                    row[end] = str(ipaddress.ip_address(row[end][: 4 if row["l3"] == 4 else 16]))
                out.append({**row, "reason": REASONS[row["reason"]], "app_fields": fields[i]})
        return out, reader.stats()
