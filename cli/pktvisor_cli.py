"""pktvisor-cli: what an agent measures, live, in a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from netprobe._version import __version__

from ._docopt import UsageError, called_name, integer, parse

if TYPE_CHECKING:
    from netprobe.ui.client import Address

USAGE = """\
Show what a pktvisord agent measures, live, in the terminal.

Usage:
  {prog} [options]

Options:
  -H HOST           The agent's host, a name or an address [default: localhost]
  -p PORT           Its port [default: 10853]
  -P POLICY         The policy that is shown first [default: default]
  --tls             Use HTTPS
  --tls-noverify    Use HTTPS and do not check the agent's certificate
  -h --help         Show this text
  --version         Show the version, the number alone

Long flags may have one dash or two. Keys: q or Ctrl-C quits, p lists the policies to choose from, arrow and
page keys and the mouse wheel scroll, space holds the picture.
"""

EXIT_OK = 0
EXIT_FAILURE = 2

#: what may be written with one dash (agent spec 1.3)
LONG_FLAGS = ("tls", "tls-noverify", "help", "version")
HIGHEST_PORT = 65535


def main(argv: list[str] | None = None) -> int:
    """Run the program; the result is its exit code."""
    program = called_name("pktvisor-cli")
    usage = USAGE.replace("{prog}", program)
    try:
        arguments = parse(usage, _two_dashes(sys.argv[1:] if argv is None else argv), __version__)
        address = _address(arguments)
        policy = _policy(arguments["-P"])
    except UsageError as problem:
        print(f"{program}: {problem}\n\n{usage}", end="", file=sys.stderr)
        return EXIT_FAILURE
    return _run(program, address, policy)


def _two_dashes(argv: list[str]) -> list[str]:
    """`-tls` as `--tls`."""
    words: list[str] = []
    for i, word in enumerate(argv):
        if word == "--":
            return words + argv[i:]
        long = word.startswith("-") and not word.startswith("--") and word[1:] in LONG_FLAGS
        words.append(f"-{word}" if long else word)
    return words


def _address(arguments: dict[str, Any]) -> Address:
    host = arguments["-H"].removeprefix("[").removesuffix("]")
    if not host or not host.isprintable() or any(char in " /@?#[]" for char in host):
        raise UsageError(f"-H {arguments['-H']!r}: expected the name or address of a host")
    if host.count(":") == 1:
        raise UsageError(f"-H {arguments['-H']!r}: expected a host alone, its port goes to -p")
    port = integer("-p", arguments["-p"], 1, HIGHEST_PORT)
    from netprobe.ui.client import Address

    tls = arguments["--tls"] or arguments["--tls-noverify"]
    return Address(host, port, tls, not arguments["--tls-noverify"])


def _policy(name: str) -> str:
    from netprobe.errors import NetprobeError
    from netprobe.ui.poller import check_policy

    try:
        check_policy(name)
    except NetprobeError as problem:
        raise UsageError(f"-P {problem}") from None
    return name


def _run(program: str, address: Address, policy: str) -> int:
    try:
        from netprobe.ui.terminal import StdoutDriver, terminal_problem
    except ModuleNotFoundError as missing:
        return _failed(f"{program}: needs {missing.name}: pip install 'netprobe-suite[ui]'")
    problem = terminal_problem(os.environ)
    if problem:
        return _failed(f"{program}: {problem}")
    from netprobe.ui.app import AgentApp

    app = AgentApp(address, policy)
    app.driver_class = StdoutDriver
    result = app.run()
    return EXIT_FAILURE if result is None else result


def _failed(text: str) -> int:
    print(text, file=sys.stderr)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
