"""kprobe at work: where packets come from, what becomes of them, and sinks behind a thread of their own.

`inputs` (a file, an interface), `runs` (the flow table on one, on to a sink), `modes` (dns, radius),
`batch` (columns without numpy), `sinks` (the thread, `null`), `jsonl`, `parquet`, `ipfix`, `kentik`,
`kentik_modes`.
"""

from netprobe.export.batch import ExportError, FlowBatch
from netprobe.export.sinks import Exporter, NullSink, Sink

__all__ = ["ExportError", "Exporter", "FlowBatch", "NullSink", "Sink"]
