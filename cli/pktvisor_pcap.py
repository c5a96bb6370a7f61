"""pktvisor-pcap (also called pktvisor-reader): summarise capture files as one JSON document."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

from ._docopt import UsageError, called_name, integer, parse
from ._log import Log, ProgressReport
from ._pipe import drop_output, end_by_sigpipe

if TYPE_CHECKING:
    from threading import Event
    from types import FrameType

    from netprobe.summary import Progress, Summary

USAGE = """\
Summarise packet captures: one JSON document on standard output, log lines on standard error.

Usage:
  {prog} [options] [--] FILE...
  {prog} (-h | --help)
  {prog} --version

FILE is a pcap or pcapng capture, plain or compressed with gzip, zstd or xz; - is standard input. Several
files are summarised together, in the order given.

Options:
  -i INPUT              Kind of input: pcap (dnstap, sflow and netflow are not built yet) [default: pcap]
  --max-deep-sample N   Per cent of packets that are looked into deeply, 1 to 100 [default: 100]
  --periods P           Periods of 60 seconds that are kept and merged, 1 to 10; 1 keeps the whole file in one
                        [default: 5]
  -h --help             Show this text
  --version             Show the version
  -v                    Debug logging
  -b BPF                Only packets that this filter (tcpdump's language) selects
  --geo-city FILE       MaxMind database of cities, for the geo metrics
  --geo-asn FILE        MaxMind database of autonomous systems
  -H HOSTSPEC           Networks of the host, ADDRESS/LENGTH[,ADDRESS/LENGTH...]: what goes to them counts as
                        inbound, what comes from them as outbound; without it no packet has a direction
  --handlers LIST       Handlers to run, comma-separated, each as type[:version][+group...]; dns:2.0 is
                        version 2.0, dns+top_ecs switches a metric group on, dns+all every group
                        [default: net,dns,dhcp]
  --workers N           Threads that share the work [default: 1]
  --prometheus          Print Prometheus text instead of JSON
"""

EXIT_OK = 0
EXIT_INTERRUPTED = 130
EXIT_FAILURE = 255

# netprobe.summary's; importing that for a number would slow every usage error
MAX_WORKERS = 16
INPUTS_PLANNED = ("dnstap", "sflow", "netflow")


def main(argv: list[str] | None = None) -> int:
    """Run the program; the result is its exit code."""
    program = called_name("pktvisor-pcap")
    log = Log()
    try:
        try:
            arguments = parse(
                USAGE.replace("{prog}", program),
                sys.argv[1:] if argv is None else argv,
                f"{program} {__version__}",
            )
            settings = _settings(arguments)
        except UsageError as problem:
            log.raw(f"{program}: {problem} ({program} --help shows the usage)\n")
            return EXIT_FAILURE
        log = Log(debug=arguments["-v"])
        return _run(arguments, settings, log)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as problem:
        log.error(f"internal error: {type(problem).__name__}: {problem} (-v shows where)")
        if log.verbose:
            import traceback

            log.raw(traceback.format_exc())
        return EXIT_FAILURE


def _settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of netprobe.summarize; UsageError names the flag."""
    kind = arguments["-i"].lower()
    if kind in INPUTS_PLANNED:
        raise UsageError(f"-i {kind}: not built yet, only pcap is")
    if kind != "pcap":
        raise UsageError(f"-i {arguments['-i']!r}: unknown input, expected pcap, {', '.join(INPUTS_PLANNED)}")
    handlers = arguments["--handlers"].split(",")
    if not all(handlers):
        raise UsageError(f"--handlers {arguments['--handlers']!r}: a name is empty")
    return {
        "handlers": handlers,
        "hosts": _hosts(arguments["-H"]),
        "filter": arguments["-b"] or None,
        "geo_city": arguments["--geo-city"],
        "geo_asn": arguments["--geo-asn"],
        "workers": integer("--workers", arguments["--workers"], 1, MAX_WORKERS),
        "periods": integer("--periods", arguments["--periods"], 1, 10),
        "deep_sample_rate": integer("--max-deep-sample", arguments["--max-deep-sample"], 1, 100, clamp=True),
    }


def _hosts(spec: str | None) -> str | None:
    if not spec:
        return None
    from netprobe.errors import ConfigError
    from netprobe.hosts import parse_hosts

    try:
        parse_hosts(spec)
    except ConfigError as problem:
        raise UsageError(f"-H {spec!r}: {problem}, expected ADDRESS/LENGTH such as 10.0.0.0/8") from None
    return spec


def _run(arguments: dict[str, Any], settings: dict[str, Any], log: Log) -> int:
    from netprobe.errors import NetprobeError
    from netprobe.summary import summarize

    report = ProgressReport(log)
    log.debug(f"netprobe {__version__} reads {', '.join(arguments['FILE'])} with {settings}")

    def progress(state: Progress) -> None:
        report.update(state.packets, state.bytes, state.total_bytes)

    try:
        summary = summarize(arguments["FILE"], progress=progress, stop=_stop_on_interrupt(), **settings)
    except NetprobeError as problem:
        report.clear()
        log.error(str(problem))
        return EXIT_FAILURE
    except InterruptedError:
        return EXIT_INTERRUPTED
    except MemoryError:
        report.clear()
        log.error("out of memory")
        return EXIT_FAILURE
    report.clear()
    for warning in summary.warnings:
        log.warning(warning)
    log.info(f"processed {summary.packets} packets")
    return _print(summary, prometheus=arguments["--prometheus"], log=log)


def _stop_on_interrupt() -> Event:
    """An event that the first Ctrl-C sets; the second one ends the program at once."""
    from threading import Event

    stop = Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_interrupt)
    return stop


def _print(summary: Summary, *, prometheus: bool, log: Log) -> int:
    """Everything in one go, so that nobody gets half a document."""
    text = summary.to_prometheus() if prometheus else summary.to_json()
    if not text.endswith("\n"):
        text += "\n"
    if sys.stdout is None:
        log.error("standard output is closed")
        return EXIT_FAILURE
    try:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except BrokenPipeError:
        end_by_sigpipe()
    except OSError as problem:
        log.error(f"standard output: {os.strerror(problem.errno or 0).lower()}")
        drop_output()
        return EXIT_FAILURE
    return EXIT_INTERRUPTED if summary.interrupted else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
