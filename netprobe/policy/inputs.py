"""Kinds of input: which settings they take, which handlers they feed, and what makes two of them one.

One typed row per key, as in :mod:`netprobe.handlers.options`; ``docs/configuration.md`` is made of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netprobe.errors import ConfigError
from netprobe.handlers.options import Bad, boolean, kind_of, unsigned
from netprobe.hosts import parse_hosts
from netprobe.policy.nodes import MAX_MESSAGE, shortened

PCAP_SOURCES = ("libpcap", "af_packet", "mock")
#: the ring of the kernel is many times faster, and Linux only
DEFAULT_SOURCE = "af_packet" if sys.platform.startswith("linux") else "libpcap"
#: aliases of input types
SAME_TYPE = {"sflow": "flow"}
#: libpcap's optimiser takes seconds for a few hundred hosts, hours for thousands, and holds up the whole
#: process: how long a filter may be, from which length on it is looked at first, and how many instructions
#: it may have before they are optimised (5 s on an ordinary machine)
MAX_FILTER = 4096
MAX_RING_MB = 2048
LOOK_AT_FILTER = 400
MAX_INSTRUCTIONS = 9000


def text(value: object) -> str:
    if not isinstance(value, str):
        said = kind_of(value)
        # as it would have to be written
        hint = f': "{said.split()[0]}"' if isinstance(value, int) else ""
        raise Bad(f"{said}, expected text{hint}")
    return value


def pcap_source(value: object) -> str:
    if value not in PCAP_SOURCES:
        raise Bad(f"{kind_of(value)}, which is unknown; expected one of {', '.join(PCAP_SOURCES)}")
    return str(value)


def connections(value: object) -> int:
    # the reassembler has a limit of its own, far below
    return min(unsigned(value), (1 << 32) - 1)


def ring_size(value: object) -> int:
    size = unsigned(value)
    if not 1 <= size <= MAX_RING_MB:
        raise Bad(f"{size}, expected 1 to {MAX_RING_MB}")
    return size


def host_spec(value: object) -> str:
    try:
        parse_hosts(text(value))
    except ConfigError as error:
        # a literal that pktvisor's users know
        raise Bad(str(error)) from None
    return str(value)


def bpf(value: object) -> str:
    expression = text(value)
    if len(expression) > MAX_FILTER:
        raise Bad(f"a filter of {len(expression)} characters, expected at most {MAX_FILTER}")
    if len(expression) > LOOK_AT_FILTER:
        from netprobe.filters import instructions

        count = instructions(expression)
        if count > MAX_INSTRUCTIONS:
            raise Bad(
                f"a filter of {count} instructions, expected at most {MAX_INSTRUCTIONS}; "
                "net and portrange say in one what many hosts and ports do"
            )
    return expression


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A key of an input: how its value is read, what holds without it, what it does."""

    read: Callable[[object], Any]
    form: str
    default: str
    help: str


@dataclass(frozen=True, slots=True, eq=False)
class InputType:
    """A kind of input. ``config`` None: it takes every key. ``built``: it can run in this version."""

    name: str
    summary: str
    config: Mapping[str, Key] | None
    filter: Mapping[str, Key]
    handlers: tuple[str, ...]
    built: bool = True


_BPF = Key(bpf, "text", "none", "a filter in tcpdump's language")

PCAP = InputType(
    "pcap",
    "packets of an interface",
    {
        "iface": Key(text, "text", "required", "name of the interface, an address that it owns, or `auto`"),
        "bpf": _BPF,
        "host_spec": Key(
            host_spec,
            "text",
            "none",
            "networks of the host, `addr/len[,addr/len…]`; those of the interface are added",
        ),
        "pcap_source": Key(
            pcap_source,
            ", ".join(PCAP_SOURCES),
            DEFAULT_SOURCE,
            "how packets are captured; `mock` makes them up",
        ),
        "debug": Key(boolean, "boolean", "false", "accepted, without effect"),
        "pcap_file": Key(text, "text", "none", "read this capture instead of an interface"),
        "tcp_packet_reassembly_cache_limit": Key(
            connections,
            "number",
            "300000",
            "TCP connections tracked at once, at most 1000000; 0: so many",
        ),
        "ring_mb": Key(ring_size, "number", "32", "MiB of the kernel's buffer (beyond pktvisor)"),
    },
    {"bpf": _BPF},
    ("net", "dns", "dhcp", "bgp", "pcap", "input_resources"),
)
MOCK = InputType(
    "mock",
    "a random number each second, for tests",
    None,
    {},
    ("mock_dyn", "net", "dns", "flow", "input_resources"),
)
DNSTAP = InputType(
    "dnstap", "messages of a DNS server", {}, {}, ("net", "dns", "input_resources"), built=False
)
FLOW = InputType("flow", "NetFlow, IPFIX or sFlow", {}, {}, ("flow", "input_resources"), built=False)
NETPROBE = InputType("netprobe", "active probes", {}, {}, ("netprobe", "input_resources"), built=False)

_TYPES = {one.name: one for one in (PCAP, DNSTAP, FLOW, NETPROBE, MOCK)}
INPUT_TYPES = ("pcap", "dnstap", "flow", "sflow", "netprobe", "mock")
# quotes are honoured under these keys, of any input: taps are typed before it is known who uses them
STRING_KEYS = (
    *(key for key, row in (PCAP.config or {}).items() if row.read not in (boolean, connections, ring_size)),
    *("dnstap_file", "socket", "tcp", "flow_type", "bind", "test_type", "target", "except_on_start"),
)


def same_type(name: str) -> str:
    """The type that an alias stands for."""
    return SAME_TYPE.get(name, name)


def input_type(name: str) -> InputType:
    return _TYPES[same_type(name)]


def check_input(kind: InputType, config: Mapping[str, Any], places: Callable[[str], str]) -> dict[str, Any]:
    """The settings of an input, each of its type. ``places`` gives the place of a key, for errors.

    ConfigError for an unknown key, with the known ones, and for a value that does not fit.
    """
    if kind.config is None:
        return dict(config)
    known = {**kind.config, **kind.filter}
    found = {}
    for key, value in config.items():
        if key not in known:
            raise ConfigError(
                f"{places(key)}: unknown key of the {kind.name} input, expected one of {', '.join(known)}"
            )
        try:
            found[key] = known[key].read(value)
        except Bad as error:
            raise ConfigError(f"{places(key)}: {shortened(str(error), MAX_MESSAGE)}") from None
    if kind.name == "pcap" and found.get("pcap_source") != "mock":
        _check_source(found, places)
    return found


def _check_source(config: Mapping[str, Any], places: Callable[[str], str]) -> None:
    if not config.get("iface") and not config.get("pcap_file"):
        expected = "expected the name of an interface, an address that it owns, or auto"
        raise ConfigError(f"{places('iface')}: no interface is given, {expected}")


def input_name(tap: str, kind: InputType, config: Mapping[str, Any], filter: Mapping[str, Any]) -> str:
    """``<tap>-<hash>``: inputs of one name are one input (agent spec 2.4.2)."""
    seen = {**config, **filter} if kind.name == "pcap" else dict(config)
    text = json.dumps([kind.name, seen], sort_keys=True, separators=(",", ":"))
    return f"{tap}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
