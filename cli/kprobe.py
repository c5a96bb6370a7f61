"""kprobe: packets to flow records, to Kentik or to whoever reads JSON lines or IPFIX."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

from ._docopt import UsageError, called_name, integer, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from netprobe.export import Sink
    from netprobe.export.replay import Applications, Replay
    from netprobe.kentik import Settings

USAGE = """\
Turn packets into flow records and send them to Kentik, or write them as JSON lines or IPFIX.

This version replays capture files (--read). Flags marked * belong to live capture and other modes: they are
understood, but not built yet, and end the program with exit code 1.

Usage:
  {prog} [-v]... [--http-port=PORT]... [--radius-port=PORT]... [--ports=PORT]... [--translate=SPEC]...
         [options] [--] [MODE]
  {prog} (-h | --help)
  {prog} (-V | --version)

MODE is dns* or radius*, instead of the flags --dns and --radius.

Input:
  -i NAME, --interface=NAME  Network interface to capture on*
  --read=FILE           Replay a capture instead: pcap or pcapng, plain or compressed; - is standard input
  --filter=EXPR         Only packets that this tcpdump expression selects
  --sample=N            Keep one of N flows, chosen at random; by default the device's rate, or all flows
  --seed=N              Make what is random (export times, sampling, connection ids) the same in every run
  --promisc             Promiscuous capture*
  --snaplen=N           Capture only the first N bytes of a packet*
  --fanout-group=GROUP  Share the interface's packets with all members of this group*
  --fanout=GROUP        The same*
  --fanout-mode=MODE    How packets are shared: hash, lb or cpu*
  --translate=SPEC      A,B or A,PORT,B,PORT: where A is an end of a flow, write B; may be repeated*

Records:
  --export=SINK         kentik, jsonl, parquet, ipfix or null [default: kentik]
  --output=PLACE        jsonl: a file, - for standard output (default). parquet: a file. ipfix: HOST:PORT of
                        the collector (default 127.0.0.1:4739)
  --no-decode           No protocol decoding. Without this flag too, in this version
  --http-port=PORT      One more TCP port of HTTP; may be repeated
  --dns-port=PORT       The UDP port of DNS [default: 53]
  --radius-port=PORT    UDP port of RADIUS in place of 1812 and 1813; may be repeated

Other modes:
  --dns                 Send answers of DNS instead of flows*
  --dns-filter=EXPR     Filter of the dns mode*
  --juniper-mirror      dns mode: packets are mirrored by a Juniper router*
  --radius              Send users and their addresses instead of flows*
  --ports=PORT          Ports of the radius mode; may be repeated*

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

  -v                    Versions, configuration and debug log on standard error; -vv shows HTTP as well
  -h --help             Show this text
  -V --version          Show the version
"""

EXIT_OK = 0
EXIT_FAILURE = 1

REPEATABLE = frozenset({"-v", "--http-port", "--radius-port", "--ports", "--translate"})
#: flag -> what it belongs to
NOT_BUILT = {
    "--interface": "live capture",
    "--promisc": "live capture",
    "--snaplen": "live capture",
    "--fanout-group": "live capture",
    "--fanout": "live capture",
    "--fanout-mode": "live capture",
    "--translate": "translation of addresses",
    "--dns": "dns mode",
    "--dns-filter": "dns mode",
    "--juniper-mirror": "dns mode",
    "--radius": "radius mode",
    "--ports": "radius mode",
}
MODES = ("dns", "radius")
SINKS = ("kentik", "jsonl", "parquet", "ipfix", "null")
FANOUT_MODES = ("hash", "lb", "cpu")
IPFIX_PORT = 4739
RADIUS_PORTS = [1812, 1813]
U16 = (1 << 16) - 1
U32 = (1 << 32) - 1

LOG = logging.getLogger("kprobe")


def main(argv: list[str] | None = None) -> int:
    """Run the program; the result is its exit code."""
    program = called_name("kprobe")
    from netprobe.errors import NetprobeError
    from netprobe.kentik.errors import KentikError

    verbose = 0
    try:
        usage = USAGE.replace("{prog}", program)
        arguments = parse(
            usage,
            sys.argv[1:] if argv is None else argv,
            f"Version: {__version__}",
            repeatable=REPEATABLE,
        )
        verbose = arguments["-v"]
        return _run(arguments)
    except UsageError as problem:
        return _failed(f"{problem} ({program} --help shows the usage)")
    except KentikError as problem:
        for line in problem.lines():
            print(line, flush=True)
        return EXIT_FAILURE
    except BrokenPipeError:
        # who read the help has gone; what is left in the buffer would fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILURE
    except NetprobeError as problem:
        return _failed(str(problem))
    except KeyboardInterrupt:
        return _failed("interrupted, not everything was delivered")
    except MemoryError:
        return _failed("out of memory")
    except Exception as problem:
        if verbose:
            LOG.exception("internal error")
        return _failed(f"internal error: {type(problem).__name__}: {problem} (-v shows where)")


def _failed(text: str) -> int:
    with contextlib.suppress(OSError):
        print("Error: " + " ".join(text.splitlines()), file=sys.stderr, flush=True)
    return EXIT_FAILURE


def _run(arguments: dict[str, Any]) -> int:
    _refuse_what_is_not_built(arguments)
    if arguments["--read"] is None:
        raise UsageError("--read FILE is needed (or -i, when live capture is built)")
    kind = arguments["--export"]
    make_sink = _sink(kind, arguments)
    sample = _number(arguments, "--sample", U32)
    from netprobe.export.replay import Applications, Replay

    applications = Applications(
        integer("--dns-port", arguments["--dns-port"], 1, U16),
        [integer("--radius-port", port, 1, U16) for port in arguments["--radius-port"]] or RADIUS_PORTS,
        [integer("--http-port", port, 1, U16) for port in arguments["--http-port"]],
    )
    _start_log(arguments["-v"])
    LOG.debug("kprobe %s reads %s, export %s", __version__, arguments["--read"], kind)
    if not arguments["--no-decode"]:
        LOG.warning("protocol decoding is not built yet: records are those of --no-decode")
    sink, device_rate = make_sink()
    rate = max(device_rate if sample is None else sample, 1)
    try:
        seed = _number(arguments, "--seed", U32)
        replay = Replay(arguments["--read"], filter=arguments["--filter"], sample=rate, seed=seed)
    except BaseException:
        if sink is not None:
            sink.abort()
        raise
    return _replay(replay, sink, applications)


def _refuse_what_is_not_built(arguments: dict[str, Any]) -> None:
    mode = arguments["MODE"]
    if mode is not None and mode not in MODES:
        raise UsageError(f"unexpected argument {mode!r}")
    if (arguments["--dns"] or mode == "dns") and (arguments["--radius"] or mode == "radius"):
        raise UsageError("--dns and --radius exclude each other")
    if arguments["--fanout-mode"] not in (None, *FANOUT_MODES):
        raise UsageError(f"invalid fanout mode: {arguments['--fanout-mode']!r}, expected hash, lb or cpu")
    if mode is not None:
        raise UsageError(f"{mode}: {mode} mode is not built yet")
    for flag, part in NOT_BUILT.items():
        if arguments[flag]:
            shown = "-i" if flag == "--interface" else flag
            raise UsageError(f"{shown}: {part} is not built yet")
    if arguments["--export"] not in SINKS:
        raise UsageError(f"--export {arguments['--export']!r}: unknown, expected {', '.join(SINKS)}")


def _number(arguments: dict[str, Any], flag: str, high: int) -> int | None:
    text = arguments[flag]
    return None if text is None else integer(flag, text, 0, high)


def _sink(kind: str, arguments: dict[str, Any]) -> Callable[[], tuple[Sink | None, int]]:
    """What makes the sink (None: forget the records) and says the device's sample rate."""
    output = arguments["--output"]
    status_port = _number(arguments, "--status-port", U16)
    if kind != "kentik" and status_port:
        raise UsageError("--status-port: only with --export kentik")
    if output is not None and kind in ("kentik", "null"):
        raise UsageError(f"--output: has no meaning with --export {kind}")
    if kind == "null":
        return lambda: (None, 1)
    if kind == "jsonl":
        from netprobe.export.jsonl import JsonlSink

        return lambda: (JsonlSink("-" if output is None else output), 1)
    if kind == "parquet":
        from netprobe.export.parquet import ParquetSink

        if not output or output == "-":
            raise UsageError("--export parquet: needs --output FILE")
        return lambda: (ParquetSink(output), 1)
    if kind == "ipfix":
        from netprobe.export.ipfix import IpfixSink

        host, port = _host_and_port(output or f"127.0.0.1:{IPFIX_PORT}")
        return lambda: (IpfixSink(host, port), 1)
    settings = _settings(arguments, status_port or 0)

    def connected() -> tuple[Sink, int]:
        from netprobe.export.kentik import KentikSink
        from netprobe.kentik import connect

        LOG.debug("configuration: %s", settings.describe())
        client = connect(settings)
        return KentikSink(client), client.sample_rate

    return connected


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"--output {text!r}: expected HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), integer("--output port", port, 1, U16)


def _settings(arguments: dict[str, Any], status_port: int) -> Settings:
    from netprobe.kentik import Credentials, Endpoints, Settings

    credentials = Credentials.choose(arguments["--email"], arguments["--token"], os.environ)
    urls = {name: arguments[f"--{name}-url"] for name in ("api", "flow", "metrics", "dns")}
    return Settings(
        credentials,
        Endpoints.of(arguments["--region"], **urls),
        proxy=arguments["--proxy-url"],
        device_id=_number(arguments, "--device-id", U32) or 0,
        device_if=arguments["--device-if"],
        device_ip=arguments["--device-ip"],
        device_name=arguments["--device-name"],
        plan=_number(arguments, "--device-plan", U32) or 0,
        site=_number(arguments, "--device-site", U32) or 0,
        sample=_number(arguments, "--sample", U32),
        status_host=arguments["--status-host"],
        status_port=status_port,
    )


def _start_log(verbose: int) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    # the HTTP stack says a lot; headers, and so the token, are not among it
    logging.getLogger("urllib3").setLevel(logging.DEBUG if verbose > 1 else logging.WARNING)


def _replay(replay: Replay, sink: Sink | None, applications: Applications) -> int:
    """The whole file, on this thread; encoding is done on another. ExportError, InputError, ConfigError."""
    interrupted = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        replay.cut_short()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if sink is None:
        replay.drain()
    else:
        _export(replay, sink, applications, lambda: interrupted)
    problem = replay.problem()
    stats = replay.stats()
    replay.close()
    LOG.info(
        "%d packets, %d bytes in %d records; %d packets were not IP, %d unreadable, %d filtered out, "
        "%d fragments incomplete, %d sampled out",
        *(stats[name] for name in ("out_packets", "out_bytes", "records", "not_ip", "unreadable")),
        *(stats[name] for name in ("filtered_out", "fragments_lost", "ignored")),
    )
    if problem is not None and not interrupted:
        return _failed(f"{problem}; what came before was exported")
    return EXIT_OK


def _export(replay: Replay, sink: Sink, applications: Applications, stopping: Callable[[], bool]) -> None:
    from netprobe.export import Exporter

    exporter = Exporter(sink, prepare=applications.fill, stopping=stopping)
    try:
        for batch in replay.batches():
            exporter.put(batch)
        exporter.finish()
    except BaseException:
        exporter.abort()
        raise


if __name__ == "__main__":
    sys.exit(main())
