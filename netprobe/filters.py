"""Capture filters: tcpdump expressions, compiled by libpcap, run by the core."""

from __future__ import annotations

from netprobe._core.bpf import BpfProgram
from netprobe.errors import ConfigError
from netprobe.linktypes import compiler_number, name_of

SNAPLEN = 262144
# a file says nothing of the network it was taken on; `ip broadcast` needs a netmask and cannot be compiled
UNKNOWN_NETMASK = 0xFFFFFFFF


def compile_filter(expression: str, linktype: int) -> BpfProgram:
    """The program of a tcpdump expression for packets of a link type; ConfigError says what is wrong."""
    import pcapy  # lazily: it loads libpcap

    try:
        rows = pcapy.compile(compiler_number(linktype), SNAPLEN, expression, 1, UNKNOWN_NETMASK).get_bpf()
        return BpfProgram(rows, linktype)
    except (pcapy.PcapError, ValueError) as error:
        raise ConfigError(f"filter {expression!r} for {name_of(linktype)}: {error}") from None
