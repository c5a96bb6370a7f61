"""pktvisor-pcap as its users meet it: flags, streams, exit codes. Figures are other tests' business."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netprobe.cli import _docopt, _log, pktvisor_pcap

from netprobe._version import __version__
from netprobe.errors import InputError

SCRIPTS = Path(sys.executable).parent
LOG_LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[pktvisor\] \[(debug|info|warning|error)\] (.*)\n"
)


# --- the argument list, without running anything -----------------------------------------------------------

USAGE = pktvisor_pcap.USAGE.replace("{prog}", "prog")
DEFAULTS = {
    "handlers": ["net", "dns", "dhcp"],
    "hosts": None,
    "filter": None,
    "geo_city": None,
    "geo_asn": None,
    "workers": 1,
    "periods": 5,
    "deep_sample_rate": 100,
}


def settings(*argv: str) -> tuple[dict[str, Any], list[str]]:
    arguments = _docopt.parse(USAGE, list(argv), "v")
    return pktvisor_pcap._settings(arguments), arguments["FILE"]


@pytest.mark.parametrize(
    ("argv", "changed", "files"),
    [
        ("f", {}, ["f"]),
        ("f g h", {}, ["f", "g", "h"]),
        ("-", {}, ["-"]),
        ("-- -f --help", {}, ["-f", "--help"]),
        ("f -- g", {}, ["f", "g"]),
        ("-i pcap f", {}, ["f"]),
        ("-i=PCAP f", {}, ["f"]),
        ("-ipcap f", {}, ["f"]),
        ("f --periods 1", {"periods": 1}, ["f"]),
        ("--periods=10 f", {"periods": 10}, ["f"]),
        ("--per 007 f", {"periods": 7}, ["f"]),
        ("--max-deep-sample=50 f", {"deep_sample_rate": 50}, ["f"]),
        ("--max-deep-sample 0 f", {"deep_sample_rate": 1}, ["f"]),
        ("--max-deep-sample -7 f", {"deep_sample_rate": 1}, ["f"]),
        ("--max-deep-sample=101 f", {"deep_sample_rate": 100}, ["f"]),
        ("-v -v f", {}, ["f"]),
        ("-vb tcp f", {"filter": "tcp"}, ["f"]),
        ("-b udp f", {"filter": "udp"}, ["f"]),
        ("-b=udp f", {"filter": "udp"}, ["f"]),
        ("-budp f", {"filter": "udp"}, ["f"]),
        ("-b -v f", {"filter": "-v"}, ["f"]),
        ("-H 10.0.0.0/8,::/0 f", {"hosts": "10.0.0.0/8,::/0"}, ["f"]),
        ("-H=10.0.0.0/8 f", {"hosts": "10.0.0.0/8"}, ["f"]),
        ("--geo-city a --geo-asn=b f", {"geo_city": "a", "geo_asn": "b"}, ["f"]),
        ("--handlers net:2.0,bgp f", {"handlers": ["net:2.0", "bgp"]}, ["f"]),
        ("--workers 4 f", {"workers": 4}, ["f"]),
        ("--prometheus f", {}, ["f"]),
    ],
)
def test_flags(argv: str, changed: dict[str, Any], files: list[str]) -> None:
    assert settings(*argv.split()) == (DEFAULTS | changed, files)


@pytest.mark.parametrize(("flag", "key"), [("-b", "filter"), ("-H", "hosts")])
def test_empty_value_means_none(flag: str, key: str) -> None:
    assert settings(flag, "", "f")[0][key] is None


def test_values_with_spaces() -> None:
    expression = "udp port 53 and not host 10.0.0.1 -- or tcp[tcpflags] & tcp-syn != 0"
    assert settings("-b", expression, "a file")[0]["filter"] == expression
    assert settings("-b", expression, "a file")[1] == ["a file"]


def test_switches() -> None:
    arguments = _docopt.parse(USAGE, ["-v", "--prometheus", "f"], "v")
    assert arguments["-v"] is True
    assert arguments["--prometheus"] is True
    arguments = _docopt.parse(USAGE, ["f"], "v")
    assert arguments["-v"] is False
    assert arguments["--prometheus"] is False


WRONG = [
    ("", "no FILE given"),
    ("-v", "no FILE given"),
    ("-b", "-b needs a value"),
    ("--periods", "--periods needs a value"),
    ("--periods -- f", "--periods needs a value"),
    ("--period 1 --periods 2 f", "--periods is given twice"),
    ("--periods 0 f", "--periods 0: out of range, expected 1 to 10"),
    ("--periods 11 f", "--periods 11: out of range, expected 1 to 10"),
    ("--periods -1 f", "--periods -1: out of range, expected 1 to 10"),
    ("--periods=x f", "--periods 'x': not a whole number, expected 1 to 10"),
    ("--periods= f", "--periods '': not a whole number"),
    ("--periods 1.5 f", "--periods '1.5': not a whole number"),
    ("--periods 1_0 f", "--periods '1_0': not a whole number"),
    ("--periods 9999999999999999999999 f", "not a whole number"),
    ("--max-deep-sample many f", "--max-deep-sample 'many': not a whole number, expected 1 to 100"),
    ("--workers 0 f", "--workers 0: out of range, expected 1 to 16"),
    ("--workers 17 f", "--workers 17: out of range"),
    ("--workers two f", "--workers 'two': not a whole number"),
    ("--prometheus=1 f", "--prometheus takes no value, got '1'"),
    ("-v=1 f", "-v takes no value, got '1'"),
    ("--perods 1 f", "unknown flag --perods, did you mean --periods?"),
    ("--tls f", "unknown flag --tls"),
    ("-tls f", "unknown flag -tls"),
    ("-p=12 f", "unknown flag -p=12"),
    ("-5 f", "unknown flag -5"),
    ("--geo a f", "--geo could be --geo-asn or --geo-city"),
    ("-i dnstap f", "-i dnstap: not built yet"),
    ("-i sFlow f", "-i sflow: not built yet"),
    ("-i NETFLOW f", "-i netflow: not built yet"),
    ("-i tap f", "-i 'tap': unknown input, expected pcap, dnstap, sflow, netflow"),
    ("-H 10.0.0.1 f", "-H '10.0.0.1': invalid CIDR: 10.0.0.1"),
    ("-H 10.0.0/8 f", "invalid IPv4 address: 10.0.0,"),
    ("-H ::g/8 f", "invalid IPv6 address: ::g,"),
    ("--handlers net,,dns f", "--handlers 'net,,dns': a name is empty"),
]


@pytest.mark.parametrize(("argv", "text"), WRONG)
def test_usage_error(argv: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert pktvisor_pcap.main(argv.split()) == 255
    out, err = capfd.readouterr()
    assert out == ""
    assert text in err
    assert err.startswith("pktvisor-pcap: ")
    assert err.count("\n") == 1
    assert "--help" in err


@pytest.mark.parametrize("flag", ["-h", "--help", "--he"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        pktvisor_pcap.main([flag])
    assert not left.value.code
    out, err = capsys.readouterr()
    assert out.strip() == pktvisor_pcap.USAGE.replace("{prog}", "pktvisor-pcap").strip()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 110


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        pktvisor_pcap.main(["--version"])
    assert not left.value.code
    assert capsys.readouterr() == (f"pktvisor-pcap {__version__}\n", "")


def test_every_flag_of_upstream_is_there() -> None:
    words = set(re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", USAGE))
    assert words >= {"-i", "-h", "--help", "--version", "-v", "-b", "-H"}
    assert words >= {"--max-deep-sample", "--periods", "--geo-city", "--geo-asn"}


def test_limits_are_the_library_s() -> None:
    from netprobe import summary

    assert pktvisor_pcap.MAX_WORKERS == summary.MAX_WORKERS


# --- the rest of the program, over a stand-in for the library --------------------------------------------


class FakeSummary:
    warnings: list[str] = []  # noqa: RUF012
    packets = 7
    interrupted = False

    def to_json(self) -> str:
        return '{"5m":{}}'

    def to_prometheus(self) -> str:
        return "metric 1\n"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    module = types.ModuleType("netprobe.summary")
    monkeypatch.setitem(sys.modules, "netprobe.summary", module)
    old = signal.getsignal(signal.SIGINT)
    yield module
    signal.signal(signal.SIGINT, old)


def fake(module: types.ModuleType, outcome: Any) -> list[tuple[Any, dict[str, Any]]]:
    """summarize() that records its arguments and returns, raises or calls `outcome`."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def summarize(paths: Any, **keywords: Any) -> Any:
        calls.append((paths, keywords))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(**keywords) if callable(outcome) else outcome

    module.summarize = summarize  # type: ignore[attr-defined]
    return calls


def log_lines(text: str) -> list[tuple[str, str]]:
    """(level, text) of each line; every line must have the form of a log line."""
    lines = text.splitlines(keepends=True)
    found = [LOG_LINE.fullmatch(line) for line in lines]
    assert all(found), text
    return [(match[1], match[2]) for match in found if match]


def test_calls_the_library(library: types.ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    calls = fake(library, FakeSummary())
    assert pktvisor_pcap.main(["a", "-", "-b", "tcp", "--workers", "2"]) == 0
    ((paths, keywords),) = calls
    assert paths == ["a", "-"]
    assert callable(keywords.pop("progress"))
    assert not keywords.pop("stop").is_set()
    assert keywords == DEFAULTS | {"filter": "tcp", "workers": 2}
    out, err = capfd.readouterr()
    assert out == '{"5m":{}}\n'
    assert log_lines(err) == [("info", "processed 7 packets")]


def test_prometheus_and_warnings(library: types.ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    summary = FakeSummary()
    summary.warnings = ["the file is cut", "two\nlines"]
    fake(library, summary)
    assert pktvisor_pcap.main(["a", "--prometheus", "-v"]) == 0
    out, err = capfd.readouterr()
    assert out == "metric 1\n"
    first, *rest = log_lines(err)
    assert first[0] == "debug"
    assert rest == [
        ("warning", "the file is cut"),
        ("warning", "two lines"),
        ("info", "processed 7 packets"),
    ]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (InputError("x: is empty"), "x: is empty"),
        (MemoryError(), "out of memory"),
        (ZeroDivisionError("division by zero"), "internal error: ZeroDivisionError: division by zero"),
    ],
)
def test_failure(
    library: types.ModuleType, capfd: pytest.CaptureFixture[str], problem: BaseException, text: str
) -> None:
    fake(library, problem)
    assert pktvisor_pcap.main(["a"]) == 255
    out, err = capfd.readouterr()
    assert out == ""
    ((level, message),) = log_lines(err)
    assert level == "error"
    assert message.startswith(text)


def test_where_the_program_itself_failed(
    library: types.ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    fake(library, ZeroDivisionError("division by zero"))
    assert pktvisor_pcap.main(["-v", "a"]) == 255
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" in err


def test_interrupts(library: types.ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    def once(stop: Any, **_: Any) -> FakeSummary:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        summary = FakeSummary()
        summary.interrupted = True
        return summary

    def twice(stop: Any, **keywords: Any) -> FakeSummary:
        once(stop)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still here")

    fake(library, once)
    assert pktvisor_pcap.main(["a"]) == 130
    assert capfd.readouterr().out == '{"5m":{}}\n'
    fake(library, twice)
    assert pktvisor_pcap.main(["a"]) == 130
    fake(library, InterruptedError())
    assert pktvisor_pcap.main(["a"]) == 130
    assert capfd.readouterr() == ("", "")


class Clock:
    """time.monotonic() that stands until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(_log.time, "monotonic", lambda: self.now)


def test_progress_lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    report = _log.ProgressReport(_log.Log())
    for now, packets in [(100.5, 10), (101.0, 1000), (101.9, 1500), (103.0, 5000)]:
        clock.now = now
        report.update(packets, 0, None)
    report.clear()
    assert log_lines(capfd.readouterr().err) == [
        ("info", "processed 1000 packets (1000/s)"),
        ("info", "processed 5000 packets (2000/s)"),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, terminal = Clock(monkeypatch), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = _log.ProgressReport(_log.Log())
    clock.now += 0.9
    report.update(1000, 10, 100)
    report.clear()
    assert terminal.getvalue() == ""
    clock.now += 0.2
    report.update(2_200_000, 50, 100)
    report.update(2_300_000, 51, 100)
    assert terminal.getvalue() == ("\r\x1b[K[###############...............]  50%  2.2 M packets, 2.00 M/s")
    clock.now += 1.0
    report.update(2_200_000, 50_000_000, None)
    assert terminal.getvalue().endswith("\r\x1b[K50 MB  2.2 M packets, 1.05 M/s")
    report.clear()
    report.clear()
    assert terminal.getvalue().endswith("M/s\r\x1b[K")


def test_deaf_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    _log.Log().info("nobody hears this")
    _log.ProgressReport(_log.Log()).update(1, 1, 1)

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sys, "stderr", Full())
    _log.Log().info("nor this")


# --- the installed program ----------------------------------------------------------------------------------


def program(name: str = "pktvisor-pcap") -> str:
    path = SCRIPTS / name
    assert path.is_file(), f"{path}: the package is not installed"
    return str(path)


def run(*argv: str | Path, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(), *argv], **{"capture_output": True, "text": True, "timeout": 60} | keywords
    )


@pytest.fixture
def demo(captures: Path) -> Path:
    return captures / "demo.pcap"


def packets_of(capture: Path | bytes) -> int:
    """Records in a little-endian pcap file, counted from its headers alone."""
    data = capture if isinstance(capture, bytes) else capture.read_bytes()
    at, count = 24, 0
    while at < len(data):
        at += 16 + int.from_bytes(data[at + 8 : at + 12], "little")
        count += 1
    return count


def failed(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """Exit 255, nothing on standard output, one line that says everything."""
    assert done.returncode == 255, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for text in texts:
        assert text in done.stderr


def test_document(demo: Path) -> None:
    done = run(demo)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("}\n")
    assert done.stdout.count("\n") == 1
    document = json.loads(done.stdout)
    assert list(document) == ["5m"]
    assert list(document["5m"]) == ["dhcp", "dns", "packets"]
    assert (
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n" == done.stdout
    )
    assert log_lines(done.stderr)[-1] == ("info", f"processed {packets_of(demo)} packets")


def test_both_names_do_the_same(demo: Path) -> None:
    reader = subprocess.run([program("pktvisor-reader"), demo], capture_output=True, text=True)
    assert reader.stdout == run(demo).stdout
    usage = subprocess.run([program("pktvisor-reader"), "-h"], capture_output=True, text=True)
    assert "pktvisor-reader [options]" in usage.stdout
    assert "pktvisor-pcap" not in usage.stdout


def test_periods_name_the_window(demo: Path) -> None:
    for periods in ("1", "10"):
        done = run("--periods", periods, demo)
        assert list(json.loads(done.stdout)) == [f"{periods}m"]


def test_several_files_and_pipes(demo: Path, tmp_path: Path) -> None:
    count = packets_of(demo)
    done = run(demo, demo)
    assert f"processed {2 * count} packets" in done.stderr
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(demo.read_bytes()))
    alone = run(demo).stdout
    assert run(packed).stdout == alone
    with demo.open("rb") as file:
        assert run("-", stdin=file).stdout == alone
    piped = subprocess.run([program(), "-"], input=packed.read_bytes(), capture_output=True)
    assert piped.stdout.decode() == alone


@pytest.mark.tool("tcpdump")
def test_filter_counts_what_passes(demo: Path) -> None:
    done = run("-b", "udp port 53", demo)
    assert done.returncode == 0
    shown = subprocess.run(
        ["tcpdump", "-nr", demo, "-w", "-", "udp port 53"], capture_output=True, check=True
    ).stdout
    count = packets_of(shown)
    assert count > 0
    assert f"processed {count} packets" in done.stderr


def test_cut_file_is_one_warning(demo: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(demo.read_bytes()[:-5])
    done = run(cut)
    assert done.returncode == 0
    assert json.loads(done.stdout)
    lines = log_lines(done.stderr)
    assert [level for level, _ in lines].count("warning") == 1
    assert str(cut) in next(text for level, text in lines if level == "warning")
    assert lines[-1] == ("info", f"processed {packets_of(demo) - 1} packets")


def test_cut_gzip_is_one_warning(demo: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap.gz"
    cut.write_bytes(gzip.compress(demo.read_bytes())[:-2000])
    done = run(cut)
    assert done.returncode == 0
    assert [level for level, _ in log_lines(done.stderr)].count("warning") == 1


def test_header_only(demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "header.pcap"
    path.write_bytes(demo.read_bytes()[:24])
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert "5m" in json.loads(done.stdout)
    assert log_lines(done.stderr)[-1] == ("info", "processed 0 packets")


def test_bad_input(demo: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello, this is not a capture\n")
    empty = tmp_path / "empty"
    empty.touch()
    missing = tmp_path / "missing.pcap"
    failed(run(missing), str(missing), "no such file")
    failed(run(tmp_path), str(tmp_path), "is a directory")
    failed(run(text), str(text), "capture")
    failed(run(empty), str(empty), "is empty")
    failed(run(demo, missing), str(missing), "no such file")
    failed(run("-b", "port port", demo), "port port")
    failed(run("--geo-city", missing, demo), str(missing), "no such file")
    failed(run("--geo-asn", text, demo), str(text), "not a MaxMind database")
    failed(run("--handlers", "net,dsn", demo), "dsn")
    failed(run("--handlers", "net:9.9", demo), "9.9")
    failed(run("--periods", "0", demo), "--periods")


def test_closed_and_full_standard_output(demo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = run(demo, stdout=writer, capture_output=False, stderr=subprocess.PIPE)
    os.close(writer)
    # like any program whose reader has gone
    assert gone.returncode == -signal.SIGPIPE
    assert "Traceback" not in gone.stderr
    with Path("/dev/full").open("w") as full:
        done = run(demo, stdout=full, capture_output=False, stderr=subprocess.PIPE)
    assert done.returncode == 255
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    closed = subprocess.run(
        ["sh", "-c", f'exec "{program()}" "{demo}" >&-'], stderr=subprocess.PIPE, text=True
    )
    assert closed.returncode == 255
    assert "standard output is closed" in closed.stderr


def test_interrupt_gives_the_summary_so_far(demo: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = subprocess.Popen([program(), fifo], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with fifo.open("wb", buffering=0) as file:
        file.write(demo.read_bytes()[:-5])
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130, err
    assert json.loads(out)
    assert f"processed {packets_of(demo) - 1} packets" in err


def test_interrupt_while_nothing_comes(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = subprocess.Popen([program(), fifo], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.8)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in err


def test_bar_on_a_terminal_leaves_log_lines_alone(demo: Path) -> None:
    """Through a real terminal; a short run draws no bar, and standard output has only the document."""
    leader, follower = pty.openpty()
    done = run(demo, stdout=subprocess.PIPE, stderr=follower, capture_output=False)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last writer has gone
        while chunk := os.read(leader, 4096):
            shown += chunk
    os.close(leader)
    assert done.returncode == 0
    assert json.loads(done.stdout)
    assert "processed" in shown.decode()
    assert "\x1b" not in shown.decode()


HEAVY = (
    "numpy",
    "datasketches",
    "requests",
    "geoip2",
    "maxminddb",
    "zstandard",
    "logging",
    "asyncio",
    "pandas",
)


def test_start_up_imports_nothing_heavy(demo: Path) -> None:
    code = (
        "import sys; from netprobe.cli.pktvisor_pcap import main\n"
        "code = main(sys.argv[1:])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, demo], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_nothing_heavy_is_loaded(demo: Path) -> None:
    """What the bar of 0.30 s for the whole process rests on; benchmarks/run.py measures it (row start)."""
    done = run(demo, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "netprobe.summary" in loaded
    heavy = "numpy pandas pyarrow datasketches geoip2 maxminddb requests yaml ssl asyncio starlette textual"
    assert not loaded & set(heavy.split())
    assert len(loaded) < 250


def test_works_from_anywhere(demo: Path, tmp_path: Path) -> None:
    assert run(demo.resolve(), cwd=tmp_path).returncode == 0
    assert shutil.which("pktvisor-reader", path=str(SCRIPTS))
