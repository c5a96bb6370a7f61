"""kprobe's command line: the usage text, and what the flags mean together."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._docopt import UsageError, integer, parse

__all__ = ["U32", "USAGE", "Options", "Translation", "number", "read_flags"]

USAGE = """\
Turn packets into flow records, and send them to Kentik or write them as JSON lines, Parquet or IPFIX.

Usage:
  {prog} [-v]... [--http-port=PORT]... [--radius-port=PORT]... [--ports=PORT]... [--translate=SPEC]...
         [options] [--] [MODE]
  {prog} (-h | --help)
  {prog} (-V | --version)

MODE is dns or radius, the same as --dns and --radius; behind it, --filter is the filter of that mode.

Input:
  -i NAME, --interface=NAME  Network interface to capture on
  --read=FILE           Replay a capture instead: pcap or pcapng, plain or compressed; - is standard input
  --filter=EXPR         Only packets that this tcpdump expression selects
  --sample=N            Keep one of N flows, chosen at random; by default the device's rate, or all flows
  --seed=N              Make what is random (export times, sampling, connection ids) the same in every run
  --promisc             Promiscuous capture
  --snaplen=N           Look only at the first N bytes of a packet, 0 for all; by default 65535 of those that
                        are captured, and all that a file has
  --pcap-source=SOURCE  How packets are captured: af_packet (a ring shared with the kernel) or libpcap; by
                        default af_packet where the kernel has it, else libpcap
  --fanout-group=GROUP  Share the interface's packets with all members of this group
  --fanout=GROUP        The same
  --fanout-mode=MODE    How packets are shared: hash, lb or cpu [default: hash]
  --translate=SPEC      A,B or A,PORT,B,PORT: where A is an end of a flow, write B; may be repeated

Records:
  --export=SINK         kentik, jsonl, parquet, ipfix or null [default: kentik]
  --output=PLACE        jsonl: a file, - for standard output (default). parquet: a file. ipfix: HOST:PORT of
                        the collector (default 127.0.0.1:4739)
  --no-decode           No protocol decoding
  --http-port=PORT      One more TCP port of HTTP; may be repeated
  --dns-port=PORT       The UDP port of DNS [default: 53]
  --radius-port=PORT    UDP port of RADIUS in place of 1812 and 1813; may be repeated

Other modes:
  --dns                 Ship answers of DNS (UDP port 53) instead of flows
  --dns-filter=EXPR     dns mode: a tcpdump expression in place of the choice by port
  --juniper-mirror      dns mode: packets are mirrored by a Juniper router
  --radius              Ship users and their addresses out of RADIUS accounting instead of flows
  --ports=PORT          Ports of the radius mode in place of 1812 and 1813; may be repeated

Kentik:
  --email=ADDRESS       API user, or the variable KENTIK_EMAIL
  --token=TOKEN         API token, or the variable KENTIK_TOKEN
  --device-id=N         This device
  --device-if=NAME      The device with an address of this interface
  --device-ip=IP        The device with this address
  --device-name=NAME    The device of this name; by default that of this machine
  --device-plan=ID      Plan with which a device is created that is not there
  --device-site=ID      Its site
  --region=REGION       Cluster [default: US]
  --api-url=URL         In place of the region's
  --flow-url=URL        In place of the region's
  --metrics-url=URL     In place of the region's
  --dns-url=URL         In place of the region's
  --proxy-url=URL       HTTP proxy for everything that goes to Kentik
  --status-host=HOST    Address of the status server [default: 127.0.0.1]
  --status-port=PORT    Its port; 0 for none [default: 0]

  -v                    Versions, configuration, debug log on standard error; -vv and -vvv show more
  -h --help             Show this text
  -V --version          Show the version
"""

REPEATABLE = frozenset({"-v", "--http-port", "--radius-port", "--ports", "--translate"})
MODES = ("dns", "radius")
SINKS = ("kentik", "jsonl", "parquet", "ipfix", "null")
FANOUT_MODES = ("hash", "lb", "cpu")
PCAP_SOURCES = ("af_packet", "libpcap")
IPFIX_PORT = 4739
RADIUS_PORTS = (1812, 1813)
SNAPLEN = 65535
SNAPLEN_MAX = 262144
U16 = (1 << 16) - 1
U32 = (1 << 32) - 1
I32 = (1 << 31) - 1
U64 = (1 << 64) - 1

URL_FLAGS = ("--api-url", "--flow-url", "--metrics-url", "--dns-url", "--proxy-url")
LIVE_FLAGS = ("--promisc", "--fanout-group", "--fanout", "--pcap-source")
PLACES = ("--read", "--output")
FLOW_FLAGS = ("--filter", "--sample", "--translate", "--no-decode", "--http-port")

Mode = Literal["flow", "dns", "radius"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Translation:
    """Where `source` is an end of a flow (and `source_port` its port, if given), write `target`."""

    source: Address
    source_port: int | None
    target: Address
    target_port: int | None


@dataclass(frozen=True)
class Options:
    """What the flags ask for, checked. `kentik`: the flags that concern Kentik, by their names."""

    mode: Mode
    interface: str | None
    read: str | None
    filter: str | None
    sample: int | None
    seed: int | None
    promisc: bool
    snaplen: int
    pcap_source: str | None
    fanout_group: int | None
    fanout_mode: str
    translations: tuple[Translation, ...]
    export: str
    output: str | None
    collector: tuple[str, int] | None
    decode: bool
    http_ports: tuple[int, ...]
    dns_port: int
    radius_ports: tuple[int, ...]
    mode_filter: str | None
    mirrored: bool
    mode_ports: tuple[int, ...]
    verbose: int
    kentik: Mapping[str, Any] = field(default_factory=dict)
    #: flags that were given and change nothing
    idle_flags: tuple[str, ...] = ()

    def secrets(self) -> list[str]:
        """Texts in flags that nobody else should read: the token, users and passwords in URLs."""
        urls = [self.kentik[flag] or "" for flag in URL_FLAGS]
        # a password may hold what ends a host's name
        users = [url.partition("://")[2].rpartition("@")[0] for url in urls]
        return [text for text in (self.kentik["--token"], *users) if text]


def read_flags(program: str, version: str, argv: list[str]) -> Options:
    """UsageError: a line for the user. SystemExit(0) behind --help and --version."""
    usage = USAGE.replace("{prog}", program)
    arguments = parse(usage, _mode_flags(argv, usage), version, repeatable=REPEATABLE, strict=True)
    return _options(arguments)


def _mode_flags(argv: list[str], usage: str) -> list[str]:
    """`--filter` behind the word dns is that mode's own."""
    import docopt

    takes_value = {
        name for o in docopt.parse_options(usage) for name in (o.short, o.longer) if name and o.argcount
    }
    out: list[str] = []
    words = iter(argv)
    behind = False
    for word in words:
        if word == "--":
            return [*out, word, *words]
        if behind and (word == "--filter" or word.startswith("--filter=")):
            word = word.replace("--filter", "--dns-filter", 1)
        out.append(word)
        if word in takes_value:
            out += [value for value in [next(words, None)] if value is not None]
        elif word == "dns":
            behind = True
    return out


def _options(arguments: dict[str, Any]) -> Options:
    for flag, value in arguments.items():
        for text in value if isinstance(value, list) else [value]:
            _check_text(flag, text)
    mode = _mode(arguments)
    live = _source(arguments)
    export = arguments["--export"]
    if export not in SINKS:
        raise UsageError(f"--export {export!r}: unknown, expected {', '.join(SINKS)}")
    if export == "ipfix" and mode != "flow":
        raise UsageError(f"--export ipfix: holds flow records, which {mode} mode has none of")
    status_port = integer("--status-port", arguments["--status-port"], 0, U16)
    if export != "kentik" and status_port:
        raise UsageError("--status-port: only with --export kentik")
    group = _fanout(arguments)
    return Options(
        mode=mode,
        interface=arguments["--interface"],
        read=arguments["--read"],
        filter=arguments["--filter"] if mode == "flow" else None,
        sample=number(arguments, "--sample", U64),
        seed=number(arguments, "--seed", U64),
        promisc=arguments["--promisc"],
        snaplen=_snaplen(arguments["--snaplen"], live),
        pcap_source=_pcap_source(arguments["--pcap-source"], group),
        fanout_group=group,
        fanout_mode=arguments["--fanout-mode"],
        translations=tuple(rule for text in arguments["--translate"] for rule in _translations(text)),
        export=export,
        output=arguments["--output"],
        collector=_place(export, arguments["--output"]),
        decode=not arguments["--no-decode"],
        http_ports=_ports(arguments, "--http-port"),
        dns_port=integer("--dns-port", arguments["--dns-port"], 1, U16),
        radius_ports=_ports(arguments, "--radius-port") or RADIUS_PORTS,
        mode_filter=arguments["--dns-filter"],
        mirrored=arguments["--juniper-mirror"],
        mode_ports=_mode_ports(arguments, mode),
        verbose=arguments["-v"],
        kentik={**arguments, "--status-port": status_port},
        idle_flags=_idle(arguments, mode, group),
    )


def _check_text(flag: str, value: Any) -> None:
    """Only the names of files may be any bytes."""
    if isinstance(value, str) and flag not in PLACES and any("\udc80" <= c <= "\udcff" for c in value):
        raise UsageError(f"{flag}: is not valid UTF-8")


def _mode(arguments: dict[str, Any]) -> Mode:
    word = arguments["MODE"]
    if word is not None and word not in MODES:
        raise UsageError(f"unexpected argument {word!r}, expected dns or radius")
    dns = arguments["--dns"] or word == "dns"
    radius = arguments["--radius"] or word == "radius"
    if dns and radius:
        raise UsageError("--dns and --radius exclude each other")
    for flag, fits, name in (
        ("--dns-filter", dns, "dns"),
        ("--juniper-mirror", dns, "dns"),
        ("--ports", radius, "radius"),
    ):
        if arguments[flag] and not fits:
            raise UsageError(f"{flag}: only in {name} mode")
    return "dns" if dns else "radius" if radius else "flow"


def _source(arguments: dict[str, Any]) -> bool:
    """Live?"""
    interface, read = arguments["--interface"], arguments["--read"]
    if interface is not None and read is not None:
        raise UsageError("-i and --read exclude each other")
    if interface is None and read is None:
        raise UsageError("-i NAME or --read FILE is needed")
    if interface == "":
        raise UsageError("-i: the name of an interface is needed")
    if read == "":
        raise UsageError("--read: the name of a file is needed, or - for standard input")
    if read is not None:
        for flag in LIVE_FLAGS:
            if arguments[flag]:
                raise UsageError(f"{flag}: only with -i")
    return interface is not None


def _fanout(arguments: dict[str, Any]) -> int | None:
    mode = arguments["--fanout-mode"]
    if mode not in FANOUT_MODES:
        raise UsageError(f"invalid fanout mode: {mode!r}, expected hash, lb or cpu")
    groups = [number(arguments, flag, U16) for flag in ("--fanout-group", "--fanout")]
    given = [group for group in groups if group is not None]
    if len(set(given)) > 1:
        raise UsageError("--fanout and --fanout-group are the same flag, and were given different groups")
    return given[0] if given else None


def _pcap_source(text: str | None, group: int | None) -> str | None:
    """None: the better one that there is."""
    if text is not None and text not in PCAP_SOURCES:
        raise UsageError(f"--pcap-source {text!r}: unknown, expected {' or '.join(PCAP_SOURCES)}")
    if text == "libpcap" and group is not None:
        raise UsageError("--fanout-group: only with --pcap-source af_packet")
    return text


def _snaplen(text: str | None, live: bool) -> int:
    """Of a file, 0 is as much as it has; live, a number says how much may come."""
    value = (SNAPLEN if live else 0) if text is None else integer("--snaplen", text, 0, I32)
    return min(value, SNAPLEN_MAX) or SNAPLEN_MAX if live else value


def _idle(arguments: dict[str, Any], mode: Mode, group: int | None) -> tuple[str, ...]:
    given = [flag for flag in FLOW_FLAGS if arguments[flag]]
    if arguments["--dns-port"] != "53":
        given.append("--dns-port")
    if mode == "dns" and arguments["--radius-port"]:
        given.append("--radius-port")
    idle = [] if mode == "flow" else [f"{flag} (in {mode} mode)" for flag in given]
    if group is None and arguments["--fanout-mode"] != "hash":
        idle.append("--fanout-mode (without --fanout-group)")
    return tuple(idle)


def number(arguments: Mapping[str, Any], flag: str, high: int) -> int | None:
    text = arguments[flag]
    return None if text is None else integer(flag, text, 0, high)


def _ports(arguments: dict[str, Any], flag: str) -> tuple[int, ...]:
    return tuple(integer(flag, port, 1, U16) for port in arguments[flag])


def _mode_ports(arguments: dict[str, Any], mode: Mode) -> tuple[int, ...]:
    if mode != "radius":
        return ()
    if arguments["--ports"] == [""]:
        raise UsageError("no ports specified")
    return _ports(arguments, "--ports") or _ports(arguments, "--radius-port") or RADIUS_PORTS


def _place(export: str, output: str | None) -> tuple[str, int] | None:
    if output is not None and export in ("kentik", "null"):
        raise UsageError(f"--output: has no meaning with --export {export}")
    if export == "parquet" and output in (None, "", "-"):
        raise UsageError("--export parquet: needs --output FILE")
    if export == "jsonl" and output == "":
        raise UsageError("--output: is empty, expected a file or -")
    if export != "ipfix":
        return None
    text = output or f"127.0.0.1:{IPFIX_PORT}"
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"--output {text!r}: expected HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), integer("--output port", port, 1, U16)


def _translations(text: str) -> list[Translation]:
    """`A,B`, or `A,PORT,B,PORT`; what follows is not looked at. An interface stands for its addresses."""
    parts = [part.strip() for part in text.split(",")]
    wanted = ("src addr", "dst addr") if len(parts) == 2 else ("src addr", "src port", "dst addr", "dst port")
    for i, name in enumerate(wanted):
        if i >= len(parts) or not parts[i]:
            raise UsageError(f"--translate {text!r}: missing {name}, expected A,B or A,PORT,B,PORT")
    sources, targets = _addresses(text, parts[0]), _addresses(text, parts[len(wanted) // 2])
    ports: list[int | None] = [None, None]
    if len(wanted) == 4:
        ports = [integer(f"--translate {text!r}: port", parts[i], 0, U16) for i in (1, 3)]
    found = []
    for source in sources:
        target = next((each for each in targets if each.version == source.version), None)
        if target is not None:
            found.append(Translation(source, ports[0], target, ports[1]))
    if not found:
        raise UsageError(f"--translate {text!r}: both must be IPv4, or both IPv6")
    return found


def _addresses(text: str, part: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(part)]
    except ValueError:
        pass
    from netprobe.inputs.interfaces import list_interfaces

    for interface in list_interfaces():
        if interface.name == part and interface.addresses:
            return [ipaddress.ip_interface(each).ip for each in interface.addresses]
    raise UsageError(f"--translate {text!r}: {part!r} is not an IP address, nor an interface with one")
