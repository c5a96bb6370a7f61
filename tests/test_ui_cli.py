"""The command pktvisor-cli as a process: flags, streams, exit codes, and a real terminal to draw on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_server
import pytest
from agent_server import per_policy, serve
from netprobe.cli import pktvisor_cli
from ptykit import PROGRAM, Patience, Terminal, terminal

import netprobe
from netprobe.ui.client import Address


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


def settings(*argv: str) -> tuple[Address, str]:
    """What the program would start with."""
    found: list[tuple[Address, str]] = []

    def start(program: str, address: Address, policy: str) -> int:
        found.append((address, policy))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pktvisor_cli, "_run", start)
        assert pktvisor_cli.main(list(argv)) == 0
    return found[0]


# --- flags (agent spec 1.3) ---


@pytest.mark.parametrize(
    ("argv", "address", "policy"),
    [
        ([], Address("localhost", 10853, False, True), "default"),
        (["-H", "192.0.2.1"], Address("192.0.2.1"), "default"),
        (["-H=agent.test"], Address("agent.test"), "default"),
        (["-Hagent.test"], Address("agent.test"), "default"),
        (["-H", "[2001:db8::1]"], Address("2001:db8::1"), "default"),
        (["-H", "2001:db8::1"], Address("2001:db8::1"), "default"),
        (["-p", "1234"], Address(port=1234), "default"),
        (["-p=1234"], Address(port=1234), "default"),
        (["-P", "my_policy-1"], Address(), "my_policy-1"),
        (["-P=eth0"], Address(), "eth0"),
        (["-tls"], Address(tls=True), "default"),
        (["--tls"], Address(tls=True), "default"),
        (["-tls-noverify"], Address(tls=True, verify=False), "default"),
        (["--tls-noverify"], Address(tls=True, verify=False), "default"),
        (["-tls", "-tls-noverify", "-p=1", "-P", "x"], Address("localhost", 1, True, False), "x"),
    ],
)
def test_flags(argv: list[str], address: Address, policy: str) -> None:
    assert settings(*argv) == (address, policy)


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_version_is_the_number_alone(flag: str) -> None:
    done = run(flag)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{netprobe.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help", "-help"])
def test_help(flag: str) -> None:
    done = run(flag)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "-H HOST",
        "-p PORT",
        "-P POLICY",
        "--tls ",
        "--tls-noverify",
        "--version",
        "localhost",
        "10853",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope"], "unknown flag --nope"),
        (["-x"], "unknown flag -x"),
        (["-tlsx"], "unknown flag -tlsx"),
        (["-p", "abc"], "-p 'abc': not a whole number"),
        (["-p", "1.5"], "-p '1.5': not a whole number"),
        (["-p", "0"], "-p 0: out of range, expected 1 to 65535"),
        (["-p", "65536"], "-p 65536: out of range"),
        (["-p"], "-p needs a value"),
        (["--tls=yes"], "--tls takes no value"),
        (["file"], "unexpected argument 'file'"),
        (["--", "-tls"], "unexpected argument '-tls'"),
        (["-P", "a b"], "-P 'a b': not a policy's name"),
        (["-P", ""], "-P '': not a policy's name"),
        (["-H", ""], "-H '': expected the name or address"),
        (["-H", "http://x"], "-H 'http://x': expected the name or address"),
        (["-H", "a\nb"], "-H 'a\\nb': expected the name or address"),
        (["-H", "agent.test:10853"], "-H 'agent.test:10853': expected a host alone, its port goes to -p"),
        (["-H", "a", "-H", "b"], "-H is given twice"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Message and usage on standard error, exit 2."""
    assert pktvisor_cli.main(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    first, _, rest = err.partition("\n")
    assert first.startswith(f"pktvisor-cli: {message}")
    assert "Usage:" in rest


def test_no_terminal() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pktvisor-cli: standard input is not a terminal\n"


def test_no_textual(tmp_path: Path) -> None:
    """Without the extra `ui`, one line says what to install."""
    (tmp_path / "textual.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'textual'\", name='textual')\n"
    )
    done = run(env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pktvisor-cli: needs textual: pip install 'netprobe-suite[ui]'\n"


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["-p", "x"]])
def test_nothing_heavy_is_imported(argv: list[str]) -> None:
    code = (
        "import sys\nfrom netprobe.cli.pktvisor_cli import main\n"
        f"try: main({argv!r})\nexcept SystemExit: pass\n"
        "print(sorted({'textual', 'rich', 'requests', 'asyncio', 'numpy', 'ssl', 'netprobe._core.engine'}"
        " & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


# --- on a terminal ---


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    summary = netprobe.summarize(agent_server.CAPTURES / "demo.pcap", handlers="net,dns,dhcp,pcap")
    routes: dict[str, Any] = {
        "/api/v1/metrics/app": (200, {"app": {"version": netprobe.__version__}}),
        "/api/v1/policies/default/metrics/window/5": (200, per_policy(summary, live=7)),
    }
    with serve(routes) as server:
        yield server.port


ALTERNATE, ORDINARY, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def interrupt(run: Terminal) -> None:
    run.type(b"\x03")


def quit_key(run: Terminal) -> None:
    run.type(b"q")


def sigterm(run: Terminal) -> None:
    run.process.send_signal(signal.SIGTERM)


def sigint(run: Terminal) -> None:
    run.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("leave", [interrupt, quit_key, sigint, sigterm])
def test_on_a_terminal(port: int, leave: Any) -> None:
    with terminal("-H", "127.0.0.1", "-p", str(port)) as run:
        run.until("Pkts 408")
        assert ALTERNATE in run.output
        leave(run)
        assert run.ended() == 0
        # the terminal is as it was: ordinary screen, cursor, line discipline
        assert ALTERNATE not in run.output[run.output.rindex(ORDINARY) :]
        assert CURSOR in run.output[run.output.rindex(ORDINARY) :]
        assert termios.tcgetattr(run.slave) == run.before
        assert b"Traceback" not in run.output


def test_sleeping(port: int) -> None:
    """Ctrl-Z, and back."""
    with terminal("-H", "127.0.0.1", "-p", str(port)) as run:
        run.until("Pkts 408")
        run.type(b"\x1a")
        run.until(ORDINARY.decode())
        stat = Path(f"/proc/{run.process.pid}/stat")
        patience = Patience()
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert patience.lasts
            time.sleep(0.01)
        run.output = b""
        run.process.send_signal(signal.SIGCONT)
        run.until(ALTERNATE.decode(), "Pkts 408")
        run.type(b"q")
        assert run.ended() == 0


def test_the_picture_is_standard_output(port: int, tmp_path: Path) -> None:
    """Log lines, here of an agent that fails, go to standard error."""
    errors = tmp_path / "errors"
    with terminal("-H", "127.0.0.1", "-p", str(port), "-P", "nope", errors=errors) as run:
        run.until("404 Not Found")
        run.type(b"q")
        assert run.ended() == 0
    (line,) = errors.read_text().splitlines()
    stamp, _, rest = line.partition("] ")
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", stamp)
    assert rest == f"[pktvisor-cli] [error] http://127.0.0.1:{port}: 404 Not Found"


def test_no_colour(port: int) -> None:
    colour = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
    with terminal("-H", "127.0.0.1", "-p", str(port), NO_COLOR="1") as run:
        run.until("Pkts 408", "window/5")
        assert not colour.search(run.output)
    with terminal("-H", "127.0.0.1", "-p", str(port)) as run:
        run.until("Pkts 408", "window/5")
        assert colour.search(run.output)


def test_an_encoding_without_lines(port: int) -> None:
    """What the terminal's character set lacks shows as a question mark."""
    with terminal("-H", "127.0.0.1", "-p", str(port), PYTHONIOENCODING="latin-1", PYTHONUTF8="0") as run:
        run.until("Pkts 408", "??")
        run.type(b"q")
        assert run.ended() == 0


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_terminals_that_cannot(kind: str) -> None:
    with terminal(TERM=kind) as run:
        assert run.ended() == 2
        assert f"pktvisor-cli: TERM={kind}: this terminal cannot draw a screen" in run.output.decode()
