"""kprobe: packets to flow records, to Kentik or to whoever reads JSON lines, Parquet or IPFIX."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

from ._argv import hide
from ._docopt import UsageError, called_name
from ._kprobe_flags import USAGE, Options, read_flags
from ._kprobe_log import start_log
from ._pipe import drop_output, end_by_sigpipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from netprobe.export import Sink
    from netprobe.export.inputs import Input
    from netprobe.export.runs import Run
    from netprobe.kentik import Client, Settings
    from netprobe.kentik.errors import KentikError

__all__ = ["USAGE", "main"]

EXIT_OK = 0
EXIT_FAILURE = 1

LOG = logging.getLogger("kprobe")


def main(argv: list[str] | None = None) -> int:
    """Run the program; the result is its exit code."""
    program = called_name("kprobe")
    from netprobe.errors import NetprobeError
    from netprobe.kentik.errors import KentikError

    verbose = 0
    try:
        options = read_flags(program, f"Version: {__version__}", sys.argv[1:] if argv is None else argv)
        verbose = options.verbose
        return _run(options)
    except UsageError as problem:
        return _failed(f"{problem} ({program} --help shows the usage)")
    except KentikError as problem:
        return _refused(problem)
    except BrokenPipeError:
        end_by_sigpipe()
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
    finally:
        # Kentik's errors are shown there as they come, listened to or not
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                drop_output()


def _refused(problem: KentikError) -> int:
    """What Kentik says goes to standard output."""
    try:
        for line in problem.lines():
            print(line, flush=True)
    except BrokenPipeError:
        end_by_sigpipe()
    except OSError:
        pass
    return EXIT_FAILURE


def _failed(text: str) -> int:
    with contextlib.suppress(OSError):
        print("Error: " + " ".join(text.splitlines()), file=sys.stderr, flush=True)
    return EXIT_FAILURE


def _run(options: Options) -> int:
    """In the order of kprobe.md 1.6."""
    hide(options.secrets())
    settings = None if options.export != "kentik" else _settings(options)
    start_log(options.verbose, os.environ.get("RUST_LOG", ""))
    if options.interface is not None:
        from netprobe.export.inputs import check_interface

        check_interface(options.interface, _expression(options), source=options.pcap_source)
    # one version for both: the client is our own
    LOG.debug(
        "kprobe %s, libkflow %s (netprobe.kentik), Python %s", *(__version__,) * 2, sys.version.split()[0]
    )
    LOG.debug("configuration: %s", _describe(options, settings))
    for flag in options.idle_flags:
        LOG.warning("%s has no effect", flag)
    signals = Signals()
    source = None if options.read is None else _open(options)
    client = None
    try:
        if settings is not None:
            from netprobe.kentik import connect

            with signals.raised():
                client = connect(settings)
        if source is None:
            source = _open(options)
        run = _make_run(options, source, client)
        sink = _make_sink(options, client)
    except BaseException:
        if client is not None:
            client.stop(0.0)
        if source is not None:
            source.close()
        raise
    return _work(run, sink, signals)


class Signals:
    """SIGINT and SIGTERM: the first ends the input, the second the program, with KeyboardInterrupt."""

    def __init__(self) -> None:
        self.came = False
        self._raise = False
        self._run: Run | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """While there is nothing yet that could be flushed, the first one too."""
        self._raise = True
        if self.came:
            raise KeyboardInterrupt
        yield
        self._raise = False

    def end(self, run: Run) -> None:
        """From now on a signal, also an earlier one, ends this run's input."""
        self._run = run
        if self.came:
            run.stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.came or self._raise:
            raise KeyboardInterrupt
        self.came = True
        if self._run is not None:
            self._run.stop()


def _settings(options: Options) -> Settings:
    from netprobe.kentik import Credentials, Endpoints, Settings

    from ._kprobe_flags import U32
    from ._kprobe_flags import number as of

    flags = options.kentik
    urls = {name: flags[f"--{name}-url"] for name in ("api", "flow", "metrics", "dns")}
    return Settings(
        Credentials.choose(flags["--email"], flags["--token"], os.environ),
        Endpoints.of(flags["--region"], **urls),
        proxy=flags["--proxy-url"],
        interface=options.interface,
        device_id=of(flags, "--device-id", U32) or 0,
        device_if=flags["--device-if"],
        device_ip=flags["--device-ip"],
        device_name=flags["--device-name"],
        plan=of(flags, "--device-plan", U32) or 0,
        site=of(flags, "--device-site", U32) or 0,
        sample=options.sample if options.mode == "flow" else 1,
        status_host=flags["--status-host"],
        status_port=flags["--status-port"],
    )


def _describe(options: Options, settings: Settings | None) -> dict[str, Any]:
    """The whole configuration, without secrets (kprobe.md 1.3)."""
    shown = {name: getattr(options, name) for name in options.__dataclass_fields__ if name != "kentik"}
    if settings is None:
        return shown
    from netprobe.kentik.dns import TICK_S
    from netprobe.kentik.interfaces import Interface

    more: dict[str, Any] = {"dns_enable": options.mode == "dns", "dns_interval_s": TICK_S, "ip": None}
    if options.interface is not None:
        more["ip"] = Interface.of_system(options.interface).first_ipv4()
    return {**shown, **more, **settings.describe()}


def _expression(options: Options) -> str | None:
    """What passes; live, the kernel does a mode's first choice."""
    if options.mode == "flow" or options.mode_filter:
        return options.filter if options.mode == "flow" else options.mode_filter
    if options.read is not None or options.mirrored:
        return None
    from netprobe.export.inputs import has_tags
    from netprobe.export.modes import DNS_PORTS, TAGS, live_filter

    assert options.interface is not None
    ports = DNS_PORTS if options.mode == "dns" else options.mode_ports
    return live_filter(options.mode, ports, TAGS if has_tags(options.interface) else 0)


def _open(options: Options) -> Input:
    from netprobe.export.inputs import FileInput, LiveInput

    expression = _expression(options)
    if options.read is not None:
        return FileInput(options.read, expression, snaplen=options.snaplen)
    assert options.interface is not None
    group = options.fanout_group
    return LiveInput(
        options.interface,
        expression,
        promisc=options.promisc,
        snaplen=options.snaplen,
        fanout=None if group is None else (group, options.fanout_mode),
        pcap_source=options.pcap_source,
    )


def _make_run(options: Options, source: Input, client: Client | None) -> Run:
    if options.mode != "flow":
        from netprobe.export.modes import DNS_PORTS, ModeRun

        ports = DNS_PORTS if options.mode == "dns" else options.mode_ports
        chosen = None if options.mode_filter else ports
        return ModeRun(source, options.mode, ports=chosen, mirrored=options.mirrored)
    from netprobe.export.runs import FlowRun

    sample = options.sample
    if sample is None:
        sample = 1 if client is None else client.sample_rate
    decoders = None if client is None else client.columns.decoders
    return FlowRun(
        source,
        sample=sample,
        seed=options.seed,
        decoders=() if not options.decode else decoders,
        dns_port=options.dns_port,
        http_ports=options.http_ports,
        radius_ports=options.radius_ports,
        translations=[
            (one.source.packed, one.source_port, one.target.packed, one.target_port)
            for one in options.translations
        ],
    )


def _make_sink(options: Options, client: Client | None) -> Sink[Any] | None:
    """None: forget the records."""
    live = options.interface is not None
    if client is not None:
        if options.mode == "flow":
            from netprobe.export.kentik import KentikSink

            return KentikSink(client, live=live)
        from netprobe.export.kentik_modes import DnsSink, TagSink

        return (DnsSink if options.mode == "dns" else TagSink)(client, live=live)
    place = options.output or "-"
    match options.export, options.mode:
        case "jsonl", "flow":
            from netprobe.export.jsonl import JsonlSink

            return JsonlSink(place)
        case "jsonl", _:
            from netprobe.export.modes import JsonLines

            return JsonLines(place)
        case "parquet", "flow":
            from netprobe.export.parquet import ParquetSink

            return ParquetSink(place, decoded=options.decode)
        case "parquet", mode:
            from netprobe.export.modes import ParquetRows

            return ParquetRows(place, mode)  # type: ignore[arg-type]
        case "ipfix", _:
            from netprobe.export.ipfix import IpfixSink

            assert options.collector is not None
            return IpfixSink(*options.collector)
    return None


def _work(run: Run, sink: Sink[Any] | None, signals: Signals) -> int:
    """Until the input ends or a signal comes: capture on this thread, encoding on another.

    ExportError, InputError, ConfigError. BrokenPipeError: nobody reads standard output any more.
    """
    from netprobe.export.runs import carry

    try:
        signals.end(run)
        try:
            carry(run, sink, lambda: signals.came)
        except BaseException as ended:
            if not isinstance(ended, BrokenPipeError):
                LOG.info("%s", run.summary())
            raise
        LOG.info("%s", run.summary())
        problem = run.input.problem()
    finally:
        run.close()
    if problem is not None and not signals.came:
        return _failed(f"{problem}; what came before was exported")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
