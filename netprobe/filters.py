"""Capture filters: tcpdump expressions, compiled by libpcap, run by the core."""

from __future__ import annotations

from collections.abc import Callable

from netprobe._core.bpf import BpfProgram
from netprobe._core.decode import known_link_type
from netprobe.errors import ConfigError, InputError
from netprobe.linktypes import compiler_number, name_of

SNAPLEN = 262144
# a file says nothing of the network it was taken on; `ip broadcast` needs a netmask and cannot be compiled
UNKNOWN_NETMASK = 0xFFFFFFFF
# a wired, a wireless and a cooked link: what can be compiled for none of them is no expression
TRIED = (1, 127, 113)
# the engine has room for the programs of so many (LINK_TYPES)
MAX_LINK_TYPES = 64
REJECT_ALL = [(0x06, 0, 0, 0)]


def compile_filter(expression: str, linktype: int) -> BpfProgram:
    """The program of a tcpdump expression for packets of a link type; ConfigError says what is wrong."""
    import pcapy  # lazily: it loads libpcap

    try:
        rows = pcapy.compile(compiler_number(linktype), SNAPLEN, expression, 1, UNKNOWN_NETMASK).get_bpf()
        return BpfProgram(rows, linktype)
    except (pcapy.PcapError, ValueError) as error:
        raise ConfigError(f"filter {expression!r} for {name_of(linktype)}: {error}") from None


def instructions(expression: str) -> int:
    """How many instructions an expression has for Ethernet before they are optimised: what that will cost.

    0 if it cannot be compiled.
    """
    import pcapy

    try:
        return len(pcapy.compile(TRIED[0], SNAPLEN, expression, 0, UNKNOWN_NETMASK).get_bpf())
    except (pcapy.PcapError, ValueError):
        return 0


def compiler(expression: str) -> Callable[[int], BpfProgram]:
    """link type -> program, for the link types that show up; ConfigError when it can work for none.

    A link type that cannot be decoded has nothing that a filter could select, unless libpcap knows better.
    What this gives raises ConfigError for a link type of which libpcap knows nothing, and InputError when
    there are too many.
    """
    refused: ConfigError | None = None
    for linktype in TRIED:
        try:
            compile_filter(expression, linktype)
            break
        except ConfigError as problem:
            refused = refused or problem
    else:
        assert refused is not None
        raise refused

    seen: set[int] = set()

    def compiled(linktype: int) -> BpfProgram:
        seen.add(linktype)
        if len(seen) > MAX_LINK_TYPES:
            raise InputError(
                f"filter {expression!r}: there are packets of more than {MAX_LINK_TYPES} link types, "
                f"and filters for {MAX_LINK_TYPES} at most"
            )
        try:
            return compile_filter(expression, linktype)
        except ConfigError:
            if known_link_type(linktype):
                raise
            return BpfProgram(REJECT_ALL, linktype)

    return compiled
