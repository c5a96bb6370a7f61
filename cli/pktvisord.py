"""pktvisord: watch interfaces, keep sliding windows, serve them over REST, Prometheus and OTLP."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

# the rest is imported below, where Ctrl-C leaves no traceback

if TYPE_CHECKING:
    from netprobe.agent.options import Options
    from netprobe.policy.config import Document

USAGE = """\
Watch network interfaces and serve summaries of the last minutes over REST, Prometheus and OTLP.

Usage:
  {prog} [options] [--] [IFACE]
  {prog} (-h | --help)
  {prog} --version

IFACE is an interface, an address that one has, or auto (the busiest). It gets the tap and the policy called
default, with the handlers net, dhcp, dns and pcap. Without it, --config or --admin-api says what to watch.

Options:
  --config FILE         YAML file: options (visor.config), taps, policies. SIGHUP reads it again
  -b BPF                Only packets that this filter (tcpdump's language) selects; default policy only
  -H HOSTSPEC           Networks that count as this host, ADDRESS/LENGTH[,ADDRESS/LENGTH...], beside those of
                        the interface; default policy only
  --ring-mb N           MiB of the kernel's buffer for IFACE, 1 to 2048 (default 32)
  --periods P           Periods of 60 seconds that are kept, 1 to 10 (default 5)
  --max-deep-sample N   Per cent of packets that are looked into deeply, 1 to 100 (default 100)

Web server:
  -l HOST               Name or address to listen on (default localhost)
  -p PORT               Port to listen on (default 10853)
  --tls                 HTTPS instead of HTTP; needs --tls-cert and --tls-key
  --tls-cert FILE       Certificate, PEM
  --tls-key FILE        Private key, PEM
  --admin-api           Allow taps and policies to be made and deleted over REST, and the agent to be stopped
  --admin-token-file FILE  Requests that change something must bear the token in this file

Prometheus:
  --prometheus          Nothing: /metrics is always there
  --prom-instance ID    Label instance="ID" on every sample
  --prom-style STYLE    classic: pktvisor's names and types; modern: counters and histograms that
                        aggregate (default classic)

OTLP:
  --otel                Push metrics by OTLP/HTTP
  --otel-host HOST      Receiver (default localhost)
  --otel-port PORT      Its port (default 4318)
  --otel-path PATH      URL path (default /v1/metrics)
  --otel-interval N     Seconds between pushes (default 60)
  --otel-tls            HTTPS; needs --otel-tls-cert and --otel-tls-key
  --otel-tls-cert FILE  Client certificate, PEM
  --otel-tls-key FILE   Client key, PEM

Names:
  --geo-city FILE       MaxMind database of cities
  --geo-asn FILE        MaxMind database of autonomous systems
  --default-geo-city FILE  Used when no other city database is named
  --default-geo-asn FILE   Used when no other one of autonomous systems is named
  --geo-cache-size N    Nothing: look-ups need no cache
  --iana-service-port-registry FILE  Names of services, IANA's CSV: checked, not shown by any handler yet
  --default-service-registry FILE    Used when no other registry is named

Process:
  -d                    Go to the background once everything runs
  --pid-file FILE       Write the process id there; one agent per file
  --user USER           Become USER[:GROUP]. With or without: only the capabilities to capture are kept
  --log-file FILE       Log there, not to standard output. SIGHUP opens it anew
  --syslog              Log to syslog
  -v                    Debug logging
  --module-list         Log the inputs and handlers that there are, and end

Understood for pktvisor's sake, without effect:
  --module-dir DIR      There are no loadable modules
  --no-track            Nothing is ever reported to anybody
  --cp-disable          There is no crash reporter
  --cp-token TOKEN      The same
  --cp-url URL          The same
  --cp-custom USERDEF   The same
  --cp-path PATH        The same

  -h --help             Show this text
  --version             Show the version
"""

EXIT_FAILURE = 1
EXIT_USAGE = 255


def main(argv: list[str] | None = None) -> int:
    """Run the program; the result is its exit code."""
    try:
        from netprobe.agent.daemon import keep_standard_streams

        keep_standard_streams()
        return _main(argv)
    except KeyboardInterrupt:
        return 0


def _main(argv: list[str] | None) -> int:
    from netprobe.errors import NetprobeError

    from ._docopt import UsageError, called_name, parse

    program = called_name("pktvisord")
    usage = USAGE.replace("{prog}", program)

    try:
        arguments = parse(usage, sys.argv[1:] if argv is None else argv, f"pktvisor {__version__}")
    except UsageError as problem:
        print(f"{program}: {problem}", file=sys.stderr)
        return _show(usage, EXIT_USAGE)
    try:
        options, document, notes = _settings(arguments)
        from netprobe.agent import service

        if not (options.module_list or service.something_to_do(options, document)):
            print(
                f"{program}: nothing to do: no IFACE, no policy in a --config file, no --admin-api",
                file=sys.stderr,
            )
            print(usage, file=sys.stderr, end="")
            return EXIT_FAILURE
        return service.run(arguments, options, document, notes)
    except NetprobeError as problem:
        print(f"{program}: {problem}", file=sys.stderr)
        return EXIT_FAILURE
    except ModuleNotFoundError as problem:
        # yaml, for one: what only an agent needs is an extra of the package
        print(f"{program}: {problem}: pip install 'netprobe-suite[agent]'", file=sys.stderr)
        return EXIT_FAILURE


def _settings(arguments: dict[str, Any]) -> tuple[Options, Document | None, list[str]]:
    """Options, the configuration file, and what about it is worth a log line."""
    from pathlib import Path

    from netprobe.agent.options import Options, read_config, section

    base = Path.cwd()
    if not arguments["--config"]:
        return Options.merge(arguments, {}, base), None, []
    document = read_config(arguments["--config"])
    config, notes = section(document)
    return Options.merge(arguments, config, base), document, notes


def _show(text: str, code: int) -> int:
    try:
        print(text, end="", flush=True)
    except OSError:
        # whoever reads has gone
        from ._pipe import drop_output

        drop_output()
    return code


if __name__ == "__main__":
    sys.exit(main())
