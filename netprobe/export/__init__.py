"""Where flow records go: sinks behind a thread of their own, and the replay that feeds them.

`batch` (columns without numpy), `replay` (a capture through the flow table), `sinks` (the thread, `null`),
`jsonl`, `ipfix`, `kentik`.
"""

from netprobe.export.batch import ExportError, FlowBatch
from netprobe.export.sinks import Exporter, NullSink, Sink

__all__ = ["ExportError", "Exporter", "FlowBatch", "NullSink", "Sink"]
