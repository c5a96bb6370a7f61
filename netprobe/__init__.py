"""netprobe: what a network carries, from packets to metrics.

    >>> import netprobe
    >>> summary = netprobe.summarize("capture.pcap", hosts="192.168.0.0/24")
    >>> summary.to_dict()["5m"]["packets"]["total"]

The names below are loaded when they are first used, so that a program that needs one does not pay for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

if TYPE_CHECKING:
    from netprobe.agent.agent import Agent
    from netprobe.columns import PacketChunk, packets
    from netprobe.errors import ConfigError, InputError, NetprobeError
    from netprobe.flow_columns import FlowChunk, flows
    from netprobe.live_summary import live
    from netprobe.sketches import Cardinality, Counter, Histogram, Quantiles, Rate, TopN
    from netprobe.summary import Progress, Summary, merge, summarize

_HOME = {
    "Agent": "agent.agent",
    "Cardinality": "sketches",
    "ConfigError": "errors",
    "Counter": "sketches",
    "FlowChunk": "flow_columns",
    "Histogram": "sketches",
    "InputError": "errors",
    "NetprobeError": "errors",
    "PacketChunk": "columns",
    "Progress": "summary",
    "Quantiles": "sketches",
    "Rate": "sketches",
    "Summary": "summary",
    "TopN": "sketches",
    "flows": "flow_columns",
    "live": "live_summary",
    "merge": "summary",
    "packets": "columns",
    "summarize": "summary",
}

__all__ = [
    "Agent",
    "Cardinality",
    "ConfigError",
    "Counter",
    "FlowChunk",
    "Histogram",
    "InputError",
    "NetprobeError",
    "PacketChunk",
    "Progress",
    "Quantiles",
    "Rate",
    "Summary",
    "TopN",
    "__version__",
    "flows",
    "live",
    "merge",
    "packets",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'netprobe' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"netprobe.{_HOME[name]}"), name)
    # asked once; no submodule may have one of these names, since importing it would put it in this place
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
