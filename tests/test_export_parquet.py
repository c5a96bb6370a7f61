"""Parquet: what pyarrow reads back is what was written, and what JSON lines say."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_batches import batch

from netprobe.export import ExportError
from netprobe.export.jsonl import JsonlSink
from netprobe.export.parquet import ParquetSink
from netprobe.export.runs import Replay
from netprobe.flow_schema import APP_SCHEMA, SCHEMA

pq = pytest.importorskip("pyarrow.parquet", reason="missing: pyarrow")

CAPTURES = Path(__file__).parent / "captures"


def test_same_as_jsonl(tmp_path: Path) -> None:
    lines, target = tmp_path / "x.jsonl", tmp_path / "x.parquet"
    sinks = [JsonlSink(str(lines)), ParquetSink(str(target))]
    replay = Replay(str(CAPTURES / "demo.pcap"), seed=1)
    for one in replay.batches(rows=50):
        for sink in sinks:
            sink.write(one)
    assert not target.exists()
    for sink in sinks:
        sink.close(None)
    replay.close()
    table = pq.read_table(target)
    columns = [c.name for c in (*SCHEMA, *APP_SCHEMA) if not c.name.startswith("pg_")]
    assert table.column_names == columns
    assert str(table.schema.field("first").type) == "timestamp[ns, tz=UTC]"
    wanted = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(wanted) > 100
    for name in table.column_names:
        values = table[name]
        if name in ("first", "last"):
            values = values.cast("int64")
        got = values.to_pylist()
        if name in ("src", "dst"):
            got = [
                str(ipaddress.ip_address(raw[: 4 if version == 4 else 16]))
                for raw, version in zip(got, table["l3"].to_pylist(), strict=True)
            ]
        elif name in ("smac", "dmac"):
            got = [raw.hex(":") for raw in got]
        assert got == [record.get(name) for record in wanted], name
    assert any(record["out_window"] is not None for record in wanted)
    assert {"dns_query", "dns_response", "http_url", "http_status"} <= {
        name for record in wanted for name in record
    }


def test_without_decoders_there_are_no_columns_of_theirs(tmp_path: Path) -> None:
    target = tmp_path / "x.parquet"
    sink = ParquetSink(str(target), decoded=False)
    replay = Replay(str(CAPTURES / "demo.pcap"), seed=1, decoders=())
    for one in replay.batches():
        sink.write(one)
    sink.close(None)
    replay.close()
    assert pq.read_table(target).column_names == [column.name for column in SCHEMA]


def test_no_place(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file"):
        ParquetSink(str(tmp_path / "no" / "x.parquet"))


def test_empty(tmp_path: Path) -> None:
    sink = ParquetSink(str(tmp_path / "x.parquet"))
    sink.close(None)
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0


def test_program(tmp_path: Path) -> None:
    target = tmp_path / "x.parquet"
    command = [sys.executable, "-m", "netprobe.cli.kprobe", "--read", CAPTURES / "http.pcap", "--no-decode"]
    subprocess.run([*command, "--export", "parquet", "--output", target], check=True)
    assert sum(pq.read_table(target)["out_pkts"].to_pylist()) == 85
    assert not (tmp_path / "x.parquet.part").exists()


def test_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netprobe.export.parquet.GROUP_ROWS", 4)
    sink = ParquetSink(str(tmp_path / "x.parquet"))
    for i in range(5):
        sink.write(batch({"sport": 2 * i}, {"sport": 2 * i + 1}))
    sink.close(None)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 3
    assert file.read()["sport"].to_pylist() == list(range(10))
