"""The running agent: what is opened in which order, what a signal does, how it ends (agent spec 1.8).

The order is chosen so that nothing is half started: whatever can be refused (files, certificates, the port)
is tried before the first interface is opened, privileges go before the first thread starts.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__
from netprobe.agent.credentials import checked_pair, read_token
from netprobe.agent.daemon import Launch, PidFile, daemonize
from netprobe.agent.logs import FileLog, clean_line, open_log, set_level
from netprobe.agent.notify import Notifier
from netprobe.agent.options import Options, absolute_paths, changed, read_config, section
from netprobe.agent.threads import beginning
from netprobe.errors import ConfigError, NetprobeError

if TYPE_CHECKING:
    from netprobe.agent.listening import Listener
    from netprobe.agent.otlp import OtlpPusher
    from netprobe.agent.web import Server
    from netprobe.geo import GeoNames
    from netprobe.policy.config import Document
    from netprobe.policy.manager import Manager

__all__ = ["Service", "run", "something_to_do"]

LOG = logging.getLogger("netprobe.agent")

#: what the main thread waits for; blocked everywhere else
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: how long an unwilling client may hold up the end
STOP_SECONDS = 5.0


def something_to_do(options: Options, document: Document | None) -> bool:
    """Is there an interface, a policy, or a way to make one?"""
    if options.iface or options.admin_api:
        return True
    visor = document.root.get("visor") if document is not None and document.root is not None else None
    policies = visor.get("policies") if visor is not None else None
    return policies is not None and policies.is_map and bool(policies.entries)


def run(arguments: Mapping[str, Any], options: Options, document: Document | None, notes: list[str]) -> int:
    """Start, serve until told to stop, end; the exit code. ConfigError only before anything has happened.

    `arguments`: the command line, which a reload needs again; `notes`: what to say first, as warnings.
    """
    base = Path.cwd()
    if document is not None:
        absolute_paths(document, base)
    if options.module_list:
        open_log(options.log_file, syslog=options.syslog, debug=options.verbose)
        return _list_modules()
    launch = Launch()
    if options.daemon:
        if options.log_file is not None:
            FileLog.open(options.log_file).close()
        launch = daemonize()
    try:
        log = open_log(options.log_file, syslog=options.syslog, debug=options.verbose)
    except ConfigError as problem:
        if not options.daemon:
            raise
        launch.failed(1, str(problem))
        return 1
    for note in (*notes, *options.warnings()):
        LOG.warning(note)
    service = Service(arguments, options, document, log, base)
    try:
        # a reload, or the end of the terminal, waits until everything runs
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
        signal.signal(signal.SIGTERM, service.interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, service.interrupt)
        # what loads stays, and need not be looked through for garbage again and again, now or later
        gc.disable()
        service.start()
        gc.freeze()
        gc.enable()
    except (KeyboardInterrupt, Exception) as problem:
        # import may make another error of an interrupt, or none at all
        if service.interrupted or isinstance(problem, KeyboardInterrupt):
            service.stop()
            LOG.info("exit with success")
            return 0
        text = _reason(problem)
        service.stop()
        service.notifier.failed(text)
        launch.failed(1, text)
        return _failed(text, options)
    code = service.serve() if launch.ready() else 1
    service.stop()
    if code:
        LOG.info("exit with failure")
    else:
        LOG.info("exit with success")
    return code


def _reason(problem: Exception) -> str:
    """One line. What is not raised on purpose is a defect, whose place goes to the debug log."""
    if isinstance(problem, NetprobeError):
        return str(problem)
    LOG.debug("traceback", exc_info=problem)
    if isinstance(problem, MemoryError):
        return "out of memory"
    return f"internal error: {type(problem).__name__}: {problem} (-v shows where)"


def _failed(text: str, options: Options) -> int:
    LOG.error(text)
    LOG.info("exit with failure")
    if (options.log_file or options.syslog) and not options.daemon:
        # a log elsewhere is no reason to leave a terminal without a word
        with contextlib.suppress(OSError):
            print(f"pktvisord: {clean_line(text)}", file=sys.stderr, flush=True)
    return 1


def _list_modules() -> int:
    from netprobe.handlers.registry import HANDLERS
    from netprobe.policy.inputs import INPUT_TYPES, input_type, same_type

    for name in INPUT_TYPES:
        if input_type(same_type(name)).built:
            LOG.info("input module: %s 1.0", name)
    for table in HANDLERS:
        LOG.info("handler module: %s %s", table.type, table.version)
    LOG.info("exit with success")
    return 0


class Service:
    """One agent, assembled from its options."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        options: Options,
        document: Document | None,
        log: logging.Handler,
        base: Path,
    ) -> None:
        self.options = options
        self.notifier = Notifier()
        self._document = document
        self._arguments = arguments
        self._log = log
        self._base = base
        self._failure: str | None = None
        self.interrupted = False
        self._asked_to_stop = False
        self._pid_file: PidFile | None = None
        self._manager: Manager | None = None
        self._server: Server | None = None
        self._pusher: OtlpPusher | None = None
        self._web: threading.Thread | None = None

    # --- start ---

    def start(self) -> None:
        """Everything runs when this returns. NetprobeError says in one line why it does not."""
        from netprobe.agent.preload import Trial, check_installed, load_everything
        from netprobe.agent.privileges import drop, find_user

        options = self.options
        LOG.debug("netprobe %s starts as process %d", __version__, os.getpid())
        check_installed()
        user = find_user(options.user) if options.user else None
        with _held_back():
            # in what Python does around a fork an interrupt would end as a traceback
            trial = Trial(user)
        from netprobe.agent.listening import Listener
        from netprobe.policy.manager import Manager

        if options.pid_file:
            with _held_back():
                # who interrupts must find it written down, or it would stay
                self._pid_file = PidFile(options.pid_file)
        token = read_token(options.admin_token_file) if options.admin_token_file else None
        self._manager = manager = Manager(
            geo=self._geo(),
            periods=options.periods,
            max_deep_sample=options.max_deep_sample,
            services=self._services(),
        )
        tls = None
        if options.tls and options.tls_cert and options.tls_key:
            tls = checked_pair("--tls", options.tls_cert, options.tls_key)
        if options.otel:
            self._pusher = _pusher(manager, options)
        listener = Listener(options.host, options.port, tls)
        listener.open()
        if not trial.succeeded():
            load_everything()
        # from here on there are threads, and all but the main one must never see these; up to here whoever is
        # tired of waiting for a name server may interrupt
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if self.interrupted:
            raise KeyboardInterrupt
        kept = drop(user)
        LOG.debug("capabilities left: %s", ", ".join(map(str, kept)) or "none")
        if self._document is not None and options.config is not None:
            manager.load_file(self._document, options.config)
        if options.iface:
            manager.add_default(options.iface, options.bpf, options.host_spec, options.ring_mb)
        if self._pusher is not None:
            self._pusher.start()
        self._start_web(listener, token)

    def interrupt(self, number: int, frame: object) -> None:
        """SIGINT or SIGTERM during the start. What happens to import just then may swallow the exception."""
        self.interrupted = True
        raise KeyboardInterrupt

    def _start_web(self, listener: Listener, token: str | None) -> None:
        """Last, because packets are counted while this loads; who connects meanwhile is answered then."""
        from netprobe.agent.web import Server, create_app

        assert self._manager is not None
        app = create_app(
            self._manager,
            admin=self.options.admin_api,
            admin_token=token,
            prom_instance=self.options.prom_instance,
            prom_style=self.options.prom_style,
            stop=self._stop_by_request,
            version=__version__,
        )
        app.start()
        if self._pusher is not None:
            app.health.extra.append(self._pusher)
        self._server = Server(app, listener=listener)
        web = threading.Thread(target=self._serve_web, name="web", daemon=True)
        with beginning("web server"):
            web.start()
        self._web = web

    def _geo(self) -> GeoNames | None:
        city, asn = self.options.city_database, self.options.asn_database
        if not (city or asn):
            return None
        from netprobe.geo import GeoAsn, GeoCity, GeoNames

        return GeoNames(GeoCity(city) if city else None, GeoAsn(asn) if asn else None)

    def _services(self) -> dict[tuple[str, int], str] | None:
        path = self.options.service_registry
        if path is None:
            return None
        from netprobe.agent.services import read_services

        return read_services(path)

    # --- while it runs ---

    def serve(self) -> int:
        """Wait for signals; the exit code when one, or a client, says stop."""
        from netprobe.agent.preload import load_late

        # a signal that the parent ignores (nohup) would never reach us
        hangup_ignored = signal.signal(signal.SIGHUP, lambda number, frame: None) == signal.SIG_IGN
        self.notifier.ready()
        load_late()
        while True:
            number = signal.sigwait(SIGNALS)
            ending = self._asked_to_stop or self._failure is not None
            if number == signal.SIGHUP and not ending and self._has_something_to_reload():
                self._reload()
                continue
            if number == signal.SIGHUP and not ending and hangup_ignored:
                continue
            self.notifier.stopping()
            if self._failure is not None:
                LOG.error(self._failure)
                return 1
            LOG.info(
                "stopping: %s",
                "DELETE /api/v1/server" if self._asked_to_stop else signal.Signals(number).name,
            )
            return 0

    def _has_something_to_reload(self) -> bool:
        """Without a file to read again or a log to open anew, SIGHUP means what it always does: the end."""
        options = self.options
        return bool(options.config or options.log_file or options.daemon)

    def _reload(self) -> None:
        self.notifier.reloading()
        try:
            if isinstance(self._log, FileLog):
                self._log.reopen()
        except ConfigError as problem:
            LOG.warning("%s; logging goes on in the old file", problem)
        try:
            self._reload_config()
        except NetprobeError as problem:
            LOG.error("reload failed, the old configuration stays: %s", problem)
        except Exception as problem:
            LOG.error("reload failed, the old configuration stays: %s", _reason(problem))
        self.notifier.ready()

    def _reload_config(self) -> None:
        path = self.options.config
        if path is None or self._manager is None:
            return
        if Path(path).exists() and not Path(path).is_file():
            # a FIFO would hold up this thread, the one that hears SIGTERM, until somebody writes
            raise ConfigError(f"{path}: is no plain file, expected one that can be read again")
        document = read_config(path)
        config, notes = section(document)
        options = Options.merge(self._arguments, config, self._base)
        absolute_paths(document, self._base)
        for note in notes:
            LOG.warning(note)
        self._manager.reload(document, path)
        set_level(options.verbose)
        later = [name for name in changed(self.options, options) if name != "verbose"]
        if later:
            LOG.warning("%s: %s: changes take effect at the next start", path, ", ".join(later))
        LOG.info("configuration reloaded from %s", path)

    def _serve_web(self) -> None:
        assert self._server is not None
        try:
            self._server.run()
            return
        except Exception as problem:
            self._failure = f"web server: {_reason(problem)}"
        self._wake()

    def _stop_by_request(self) -> None:
        """DELETE /api/v1/server: the same way out as SIGTERM, but asking again ends nothing at once."""
        self._asked_to_stop = True
        self._wake()

    def _wake(self) -> None:
        """Have the main thread look. This signal stays blocked to the end: one too many does no harm."""
        os.kill(os.getpid(), signal.SIGHUP)

    # --- end ---

    def stop(self) -> None:
        """End what runs, in reverse order; also after a start that failed half-way."""
        # whoever asks again means it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        if self._server is not None:
            with _logged("web server"):
                self._server.stop()
            if self._web is not None:
                self._web.join(STOP_SECONDS)
        if self._pusher is not None:
            with _logged("OTLP"):
                self._pusher.stop()
        if self._manager is not None:
            with _logged("policies"):
                self._manager.close()
        if self._pid_file is not None:
            self._pid_file.remove()


def _pusher(manager: Manager, options: Options) -> OtlpPusher:
    from netprobe.agent.otlp import OtlpPusher

    tls = None
    if options.otel_tls and options.otel_tls_cert and options.otel_tls_key:
        tls = checked_pair("--otel-tls", options.otel_tls_cert, options.otel_tls_key)
    return OtlpPusher(
        manager, options.otel_host, options.otel_port, options.otel_path, options.otel_interval, tls=tls
    )


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Signals that interrupt the start come when this is over."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


@contextlib.contextmanager
def _logged(part: str) -> Iterator[None]:
    """What goes wrong at the end is said, and does not keep the rest from ending."""
    try:
        yield
    except Exception as problem:
        LOG.error("%s: %s", part, _reason(problem))
