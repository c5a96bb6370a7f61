"""The parts of pktvisord one by one: options, log, notifications, privileges, daemon, files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docopt
import pytest
from netprobe.cli import _docopt, pktvisord

from netprobe.agent import options as options_module
from netprobe.agent.credentials import checked_pair, read_token
from netprobe.agent.daemon import PidFile
from netprobe.agent.logs import FileLog, open_log
from netprobe.agent.notify import Notifier
from netprobe.agent.options import Options, changed, section, settings
from netprobe.agent.privileges import find_user
from netprobe.agent.services import read_services
from netprobe.errors import ConfigError
from netprobe.policy.config import Document, document_of

USAGE = pktvisord.USAGE.replace("{prog}", "pktvisord")
LOG_LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[visor\] \[(debug|info|warning|error)\] (.*)"
)


# --- options: flags, keys, precedence (spec 1.1, 1.6, 1.7, 2.2) --------------------------------------------


def configured(text: str) -> Document:
    return document_of("visor:\n  config:\n" + textwrap.indent(textwrap.dedent(text), "    "), "agent.yaml")


def merged(*argv: str, config: str = "") -> Options:
    arguments = _docopt.parse(USAGE, list(argv), "v")
    return Options.merge(arguments, section(configured(config))[0] if config else {}, Path("/base"))


def test_every_flag_is_a_setting_and_the_other_way_round() -> None:
    flags = {option.longer or option.short for option in docopt.parse_options(USAGE)}
    takes_value = {
        option.longer or option.short: bool(option.argcount) for option in docopt.parse_options(USAGE)
    }
    rows = {setting.flag: setting for _, setting in settings()}
    assert flags - {"--help", "--version"} == set(rows) - {"IFACE"}
    for flag, setting in rows.items():
        assert setting.switch == (flag != "IFACE" and not takes_value[flag]), flag


def test_keys_are_those_of_the_specification() -> None:
    theirs = """
        verbose daemon syslog no_track prometheus prom_instance log_file geo_cache_size geo_city
        geo_asn default_geo_city default_geo_asn max_deep_sample periods host port tls admin_api
        tls_cert tls_key otel
        otel_tls otel_host otel_path otel_port otel_interval otel_tls_cert otel_tls_key
        iana_service_port_registry default_service_registry module_list module_dir cp_disable cp_token cp_url
        cp_path cp_custom"""
    ours = ["pid_file", "user", "admin_token_file", "prom_style"]
    assert sorted(setting.key for _, setting in settings() if setting.key) == sorted(theirs.split() + ours)


def test_defaults() -> None:
    given = merged("eth0")
    expected: dict[str, Any] = {
        "iface": "eth0",
        "host": "localhost",
        "port": 10853,
        "max_deep_sample": 100,
        "periods": 5,
        "geo_cache_size": 10000,
        "otel_host": "localhost",
        "otel_port": 4318,
        "otel_path": "/v1/metrics",
        "otel_interval": 60,
        "prom_style": "classic",
        "bpf": "",
        "host_spec": "",
    }
    for name, setting in settings():
        assert getattr(given, name) == expected.get(name, False if setting.switch else None), name


def test_an_address_may_stand_in_brackets() -> None:
    given = merged("-l", "[::1]", "--otel-host=[fd00::1]")
    assert (given.host, given.otel_host) == ("::1", "fd00::1")
    assert merged("eth0", config="host: '[::]'").host == "::"


SWITCHES = [(name, setting.flag, setting.key) for name, setting in settings() if setting.switch]


@pytest.mark.parametrize(("name", "flag", "key"), SWITCHES)
def test_switch_is_on_by_flag_or_by_key(name: str, flag: str, key: str) -> None:
    files = "tls_cert: c\ntls_key: k\notel_tls_cert: c\notel_tls_key: k\n"
    for argv, text, wanted in (
        ([], "", False),
        ([flag], "", True),
        ([], f"{key}: yes", True),
        ([], f"{key}: 'ON'", True),
        ([], f"{key}: False", False),
        ([], f"{key}:", False),
        ([flag], f"{key}: no", True),
    ):
        assert getattr(merged(*argv, config=files + text), name) is wanted, (argv, text)


VALUES = [
    (name, setting.flag, setting.key) for name, setting in settings() if setting.key and not setting.switch
]


@pytest.mark.parametrize(("name", "flag", "key"), VALUES)
def test_command_line_before_file_before_default(name: str, flag: str, key: str) -> None:
    first, second = ("7", "8") if isinstance(getattr(Options(), name), int) else ("/a", "/b")
    if name == "prom_style":
        first, second = "modern", "classic"
    kind = type(getattr(Options(), name) or "")
    assert getattr(merged(config=f"{key}: {first}"), name) == kind(first)
    assert getattr(merged(flag, second, config=f"{key}: {first}"), name) == kind(second)
    assert getattr(merged(f"{flag}=", config=f"{key}: {first}"), name) == kind(first)
    assert getattr(merged(config=f"{key}: ''"), name) == getattr(Options(), name)


def test_command_line_only() -> None:
    for key in ("iface", "bpf", "b", "host_spec", "H", "config"):
        values, notes = section(configured(f"{key}: x"))
        assert values == {}
        assert len(notes) == 1
        assert f"agent.yaml:3: visor.config.{key}: unknown" in notes[0]


def test_unknown_key_gets_a_hint() -> None:
    _, notes = section(configured("prom_instanz: a"))
    assert notes == ["agent.yaml:3: visor.config.prom_instanz: unknown, did you mean prom_instance?"]


def test_databases_and_registry_fall_back() -> None:
    for method, flag, fallback in (
        ("city_database", "geo-city", "default-geo-city"),
        ("asn_database", "geo-asn", "default-geo-asn"),
        ("service_registry", "iana-service-port-registry", "default-service-registry"),
    ):
        key, fallback_key = flag.replace("-", "_"), fallback.replace("-", "_")
        chain = [[f"--{flag}", "/1"], f"{key}: /2\n", [f"--{fallback}", "/3"], f"{fallback_key}: /4\n"]
        for first in range(5):
            argv = [word for link in chain[first:] if isinstance(link, list) for word in link]
            text = "".join(link for link in chain[first:] if isinstance(link, str))
            wanted = None if first == 4 else f"/{first + 1}"
            assert getattr(merged(*argv, config=text), method) == wanted


def test_paths_are_absolute_before_the_directory_changes() -> None:
    assert merged("--log-file", "a/b.log").log_file == "/base/a/b.log"
    assert merged(config="tls_key: k.pem").tls_key == "/base/k.pem"
    assert merged("--otel-path", "x").otel_path == "x"


def test_paths_in_taps_and_policies_too() -> None:
    document = document_of(
        "visor:\n  taps:\n    a: {input_type: pcap, config: {pcap_file: x.pcap, iface: eth0}}\n    b: 3\n"
        "  policies:\n    p: {input: {tap: a, config: {pcap_file: /y.pcap}, filter: {pcap_file: z}}}\n"
        "    q: {input: [1]}\n"
    )
    options_module.absolute_paths(document, Path("/base"))
    root = document.root
    assert root is not None
    visor = root.entries["visor"].entries
    assert visor["taps"].entries["a"].entries["config"].entries["pcap_file"].text == "/base/x.pcap"
    assert visor["taps"].entries["a"].entries["config"].entries["iface"].text == "eth0"
    policy = visor["policies"].entries["p"].entries["input"].entries
    assert policy["config"].entries["pcap_file"].text == "/y.pcap"
    assert policy["filter"].entries["pcap_file"].text == "/base/z"


BAD_VALUES = [
    (["-p", "abc"], "", "-p 'abc': not a whole number, expected "),
    (["-p", "1.5"], "", "-p '1.5': not a whole number, expected "),
    (["--periods", "x"], "", "--periods 'x': not a whole number, expected 1 to 10"),
    (["--max-deep-sample", "½"], "", "--max-deep-sample '½': not a whole number, expected 1 to 100"),
    (["--geo-cache-size", "-1"], "", "--geo-cache-size '-1': out of range, expected 0 or more"),
    (["--otel-port", "0"], "", "--otel-port '0': out of range, expected 1 to 65535"),
    (["--otel-interval", "0"], "", "--otel-interval '0': out of range, expected 1 to 31536000"),
    (["--periods=-+5"], "", "--periods '-+5': not a whole number, expected 1 to 10"),
    (["-H", "10.0.0.1"], "", "-H '10.0.0.1': invalid CIDR: 10.0.0.1"),
    (["--ring-mb", "0"], "", "--ring-mb '0': out of range, expected 1 to 2048"),
    (["--prom-style", "new"], "", "--prom-style 'new': expected classic or modern"),
    ([], "port: abc", "agent.yaml:3: visor.config.port: 'abc': not a whole number, expected "),
    ([], "port: [1]", "agent.yaml:3: visor.config.port: a list is given, expected one value"),
    ([], 'log_file: "a\\0b"', "agent.yaml:3: visor.config.log_file: 'a\\x00b': a zero byte, expected text"),
    ([], "tls: maybe", "agent.yaml:3: visor.config.tls: 'maybe': not a boolean, expected true or false"),
    (["--tls"], "", "--tls: needs --tls-cert and --tls-key"),
    (["--tls", "--tls-key", "k"], "", "--tls: needs --tls-cert"),
    ([], "otel_tls: true\notel_tls_cert: c", "--otel-tls: needs --otel-tls-key"),
]


@pytest.mark.parametrize(("argv", "config", "message"), BAD_VALUES)
def test_bad_values(argv: list[str], config: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        merged(*argv, config=config)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--max-deep-sample", "0"], "max_deep_sample", 1),
        (["--max-deep-sample", "102"], "max_deep_sample", 100),
        (["--periods", "0"], "periods", 1),
        (["--periods", "-3"], "periods", 1),
        (["--periods", "99"], "periods", 10),
        (["-p", "70000"], "port", 70000),
    ],
)
def test_numbers_moved_to_the_nearest_end(argv: list[str], name: str, value: int) -> None:
    assert getattr(merged(*argv), name) == value


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lo"], None),
        (["--admin-api"], None),
        (["--admin-api", "-l", "127.0.0.1"], None),
        (["--admin-api", "-l", "::1"], None),
        (["--admin-api", "-l", "0.0.0.0", "--admin-token-file", "t"], None),
        (["-l", "0.0.0.0", "lo"], None),
        (["--tls-cert", "c", "--tls-key", "k", "lo"], "plain HTTP"),
        (["--otel", "--otel-tls-cert", "c", "lo"], "no effect without --otel-tls"),
        (["--admin-token-file", "t", "lo"], "no effect without --admin-api"),
        (["--admin-api", "-b", "udp"], "without IFACE"),
        (["--admin-api", "-H", "10.0.0.0/8"], "without IFACE"),
        (["--admin-api", "-l", "0.0.0.0"], "whoever reaches 0.0.0.0"),
        (["--admin-api", "-l", "agent.example"], "whoever reaches agent.example"),
    ],
)
def test_what_was_probably_not_meant(argv: list[str], words: str | None) -> None:
    found = list(merged(*argv).warnings())
    assert len(found) == (words is not None)
    assert all(words in text for text in found if words)


def test_changed_names_what_a_reload_cannot_apply() -> None:
    assert changed(merged("-p", "1"), merged("-p", "2", "-v")) == ["verbose", "port"]


# --- the log (spec 1.5) ------------------------------------------------------------------------------------


@pytest.fixture
def clean_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises


@pytest.mark.usefixtures("clean_logging")
def test_log_lines(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_text("before\n")
    open_log(str(path))
    log = logging.getLogger("netprobe.anything")
    log.debug("unseen")
    log.info("plain %d", 1)
    log.warning("a\nb\tc \x1b[31m ü")
    log.critical("worst")
    try:
        raise ValueError("inner")
    except ValueError:
        log.exception("with a reason")
    logging.getLogger("uvicorn.error").info("chatter")
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    found = [(m[1], m[2]) for m in map(LOG_LINE.fullmatch, lines[1:]) if m]
    assert len(found) == len(lines) - 1
    assert found[:3] == [("info", "plain 1"), ("warning", "a b c \\x1b[31m ü"), ("error", "worst")]
    assert found[3][0] == "error"
    assert re.match(r"with a reason \| Traceback .* \| ValueError: inner$", found[3][1])
    assert len(found) == 4
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0o004  # as it was made by this test


@pytest.mark.usefixtures("clean_logging")
def test_new_log_files_are_not_for_everybody(tmp_path: Path) -> None:
    open_log(str(tmp_path / "new.log"))
    assert stat.S_IMODE((tmp_path / "new.log").stat().st_mode) & 0o027 == 0


def test_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^log file {tmp_path}: is a directory$"):
        FileLog.open(str(tmp_path))


@pytest.mark.usefixtures("clean_logging")
def test_log_that_was_not_moved_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user that the agent has become may not be allowed to open what root has made."""
    path = tmp_path / "agent.log"
    log = open_log(str(path))
    assert isinstance(log, FileLog)
    monkeypatch.setattr("netprobe.agent.logs._open_file", lambda path: pytest.fail("opened again"))
    log.reopen()
    logging.info("still here")
    assert path.read_text().endswith("still here\n")


@pytest.mark.usefixtures("clean_logging")
def test_log_is_reopened_after_it_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    log = open_log(str(path))
    assert isinstance(log, FileLog)
    logging.info("one")
    path.rename(tmp_path / "agent.log.1")
    logging.info("two")
    log.reopen()
    logging.info("three")
    assert [line.split()[-1] for line in (tmp_path / "agent.log.1").read_text().splitlines()] == [
        "one",
        "two",
    ]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["three"]
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        log.reopen()
    logging.info("four")  # into the file that is still open


@pytest.mark.usefixtures("clean_logging")
def test_full_disk_is_said_once_and_lost_lines_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.log"
    open_log(str(path))
    room = [10_000]
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if fd == 2:
            return real(fd, data)
        part = data[: room[0]]
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(part)
        return real(fd, part)

    monkeypatch.setattr(os, "write", write)
    logging.info("one")
    room[0] = 20
    for _ in range(3):
        logging.info("lost")
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"pktvisord: log file {path}: no ")
    room[0] = 10_000
    logging.info("two")
    logging.info("three")
    assert capfd.readouterr().err == ""
    found = [m[2] for m in map(LOG_LINE.fullmatch, path.read_text().splitlines()) if m]
    assert found == ["one", "3 log lines were lost", "two", "three"]


def test_dev_full_really_behaves_so(tmp_path: Path) -> None:
    code = "import logging\nfrom netprobe.agent.logs import open_log\nopen_log('/dev/full')\n"
    code += "[logging.info('x') for _ in range(5)]\nprint('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"
    assert done.stderr == (
        "pktvisord: log file /dev/full: no space left on device, log lines are lost until this is better\n"
    )


@pytest.mark.root
@pytest.mark.tool("unshare")
def test_syslog(tmp_path: Path) -> None:
    """What a syslog daemon receives: facility DAEMON (3), ident and process id."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(20)
        code = (
            "import logging, os\nfrom netprobe.agent.logs import open_log\nopen_log(None, syslog=True)\n"
            "logging.info('hello\\nthere')\nlogging.error('bad')\nprint(os.getpid())"
        )
        # /dev as an overlay of ours, in a mount namespace of its own
        script = (
            'mkdir "$1/dev" && cp -a /dev/null /dev/urandom "$1/dev/" && ln -s "$1/log" "$1/dev/log" && '
            'mount --bind "$1/dev" /dev && exec "$2" -c "$3"'
        )
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        pid = done.stdout.strip()
        got = [server.recv(4096).decode().rstrip("\0\n") for _ in range(2)]
    assert re.fullmatch(rf"<30>.* pktvisord\[{pid}\]: hello there", got[0])
    assert re.fullmatch(rf"<27>.* pktvisord\[{pid}\]: bad", got[1])


# --- sd_notify ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        name = f"@netprobe-{os.getpid()}" if abstract else str(tmp_path / "notify")
        server.bind("\0" + name[1:] if abstract else name)
        server.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notifier = Notifier()
        assert "NOTIFY_SOCKET" not in os.environ
        notifier.ready("two\nlines")
        assert server.recv(4096).decode().split("\n") == [
            "READY=1",
            f"MAINPID={os.getpid()}",
            "STATUS=two lines",
        ]
        notifier.reloading()
        first, second = server.recv(4096).decode().split("\n")
        assert first == "RELOADING=1"
        assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
        notifier.stopping()
        assert server.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:1"])
def test_nobody_to_notify(address: str) -> None:
    notifier = Notifier(address)
    notifier.ready()
    notifier.stopping()


# --- privileges --------------------------------------------------------------------------------------------


def after_drop(call: str, *, before: str = "") -> dict[str, str]:
    """Lines of /proc/self/status of a process that has dropped its privileges, and of a child of it."""
    code = (
        "import subprocess, threading\nfrom netprobe.agent.privileges import *\n"
        f"{before}\nkept = {call}\nprint('kept:', *kept)\n"
        "t = []\n"
        "thread = threading.Thread(target=lambda: t.append(open('/proc/thread-self/status').read()))\n"
        "thread.start(); thread.join()\nprint(t[0])\n"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True)"
        ".stdout.replace('\\nCap', '\\nChildCap'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    found: dict[str, str] = {}
    for name, value in lines:
        found.setdefault(name, " ".join(value.split()))
    return found


CAPTURE_ONLY = f"{1 << 12 | 1 << 13:016x}"
NONE = "0" * 16


@pytest.mark.root
def test_default_keeps_the_user_and_two_capabilities() -> None:
    found = after_drop("drop()")
    assert found["kept"] == "13 12"
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == CAPTURE_ONLY
    assert found["CapInh"] == found["CapAmb"] == NONE
    assert found["NoNewPrivs"] == "1"
    assert found["Uid"].split() == ["0"] * 4
    # a child of root gets what the bounding set leaves
    assert found["ChildCapBnd"] == CAPTURE_ONLY


@pytest.mark.root
def test_another_user_keeps_them_too() -> None:
    found = after_drop("drop(find_user('nobody'))")
    user = find_user("nobody")
    assert found["Uid"].split() == [str(user.uid)] * 4
    assert found["Gid"].split() == [str(user.gid)] * 4
    assert set(found["Groups"].split()) <= {str(user.gid)}
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == CAPTURE_ONLY
    assert found["CapInh"] == found["CapAmb"] == NONE
    assert found["ChildCapEff"] == found["ChildCapPrm"] == NONE
    assert found["NoNewPrivs"] == "1"


@pytest.mark.root
def test_without_any_capability() -> None:
    found = after_drop("drop()", before="import ctypes, os; os.setresuid(65534, 65534, 65534)")
    assert found["kept"] == ""
    assert found["CapPrm"] == found["CapEff"] == NONE
    assert found["NoNewPrivs"] == "1"


@pytest.mark.root
def test_a_socket_can_still_be_opened_but_nothing_else() -> None:
    found = after_drop(
        "drop(find_user('nobody'))",
        before="import atexit, socket, os\n"
        "def check():\n"
        "    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(); print('raw: yes')\n"
        "    try: os.setuid(0); print('root: yes')\n"
        "    except OSError: print('root: no')\n"
        "    try: open('/etc/shadow').close(); print('shadow: yes')\n"
        "    except OSError: print('shadow: no')\n"
        "atexit.register(check)",
    )
    assert (found["raw"], found["root"], found["shadow"]) == ("yes", "no", "no")


def test_not_after_a_thread_has_started() -> None:
    code = (
        "import threading\nfrom netprobe.agent.privileges import drop\ne = threading.Event()\n"
        "threading.Thread(target=e.wait).start()\n"
        "try: drop()\nexcept RuntimeError as problem: print(problem)\nfinally: e.set()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "privileges must be dropped before any thread starts\n"


@pytest.mark.root
def test_only_root_becomes_another_user() -> None:
    code = (
        "import ctypes, os\nfrom netprobe.agent.privileges import *\nuser = find_user('daemon')\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "try: drop(user)\nexcept ValueError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "--user daemon: operation not permitted; only root can become another user\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-user", "--user 'no-such-user': there is no user 'no-such-user'"),
        ("99999999999", "--user '99999999999': there is no user '99999999999'"),
        ("root:no-such-group", "--user 'root:no-such-group': there is no group 'no-such-group'"),
        (":root", "--user ':root': there is no user ''"),
    ],
)
def test_no_such_user(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_user(text)
    assert str(raised.value) == message


def test_user_by_number_and_with_group() -> None:
    assert (find_user("0").name, find_user("0").gid) == ("root", 0)
    assert find_user("nobody:root").gid == 0


# --- daemon, pid file --------------------------------------------------------------------------------------


def daemon(body: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A program that becomes a daemon; its child runs `body` with `launch` at hand."""
    code = (
        "import os, signal, sys, time, threading\nfrom netprobe.agent.daemon import daemonize\n"
        "launch = daemonize()\n" + textwrap.dedent(body)
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
    )


def wait_gone(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.waitpid(pid, 0)


def test_parent_waits_until_the_child_is_ready(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    done = daemon(
        f"""
        time.sleep(0.3)
        lines = [os.getcwd(), str(os.getsid(0) == os.getpid()), str(os.umask(0o777))]
        lines += [os.readlink(f"/proc/self/fd/{{n}}") for n in range(3)]
        open({str(seen)!r}, "w").write("\\n".join(lines))
        launch.ready()
        launch.failed(3, "too late to count")
        print("nobody reads this")
        """,
        tmp_path,
    )
    assert done.returncode == 0
    assert re.fullmatch(r"pktvisord runs in the background, process \d+\n", done.stderr)
    assert done.stdout == ""
    assert seen.read_text().split("\n") == ["/", "True", str(0o027), *["/dev/null"] * 3]
    wait_gone(int(done.stderr.split()[-1]))


def test_child_keeps_nothing_of_who_started_it(tmp_path: Path) -> None:
    """A lock or a pipe of a script would be held for as long as the agent runs."""
    held = tmp_path / "held"
    held.touch()
    go = tmp_path / "go"
    os.mkfifo(go)
    code = (
        "from netprobe.agent.daemon import daemonize\nlaunch = daemonize()\nlaunch.ready()\n"
        f"open({str(go)!r}).read()"
    )
    with held.open() as script:
        fcntl.flock(script, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, pass_fds=[script.fileno()])
    try:
        with held.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        go.open("w").close()


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("launch.failed(1, 'no such interface: eth7')", 1, "no such interface: eth7"),
        ("sys.exit(7)", 7, "ended with exit code 7 before it was ready"),
        ("sys.exit(0)", 1, "ended with exit code 0 before it was ready"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "ended by SIGKILL before it was ready"),
        ("launch.failed(1, 'x' * 1000000)", 1, "x" * 8192),
    ],
)
def test_parent_tells_what_became_of_the_child(body: str, code: int, message: str, tmp_path: Path) -> None:
    done = daemon(body, tmp_path)
    assert (done.returncode, done.stderr) == (code, f"pktvisord: {message}\n")


def test_child_of_an_interrupted_parent_is_told(tmp_path: Path) -> None:
    go, seen = tmp_path / "go", tmp_path / "seen"
    os.mkfifo(go)
    os.mkfifo(seen)
    code = (
        "from netprobe.agent.daemon import daemonize\nlaunch = daemonize()\n"
        f"open({str(go)!r}).read()\nopen({str(seen)!r}, 'w').write(str(launch.ready()))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as parent:
        with go.open("w"):  # the child waits at the other end
            parent.send_signal(signal.SIGINT)
            _, err = parent.communicate(timeout=30)
        assert seen.read_text() == "False"
    assert (parent.returncode, err) == (-signal.SIGINT, "")


def test_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.pid"
    path.write_text("123456789012 stale")
    held = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(ConfigError) as raised:
        PidFile(str(path))
    assert str(raised.value) == f"pid file {path}: process {os.getpid()} holds it, is an agent running?"
    assert path.read_text() == f"{os.getpid()}\n"
    held.remove()
    assert not path.exists()
    PidFile(str(path)).remove()


def test_pid_file_that_its_last_holder_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening it and our locking it."""
    path = tmp_path / "agent.pid"
    before = [PidFile(str(path))]
    lock = fcntl.flock

    def late(fd: int, how: int) -> None:
        if before:
            before.pop().remove()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    held = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(ConfigError, match="holds it"):
        PidFile(str(path))
    held.remove()


def test_pid_file_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^pid file .*/no/where: no such file or directory$"):
        PidFile(str(tmp_path / "no" / "where"))
    (tmp_path / "link").symlink_to("/tmp/elsewhere")
    with pytest.raises(ConfigError, match=r"^pid file .*/link: too many levels of symbolic links$"):
        PidFile(str(tmp_path / "link"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"^pid file .*/folder: is a directory$"):
        PidFile(str(tmp_path / "folder"))


# --- registry of services ----------------------------------------------------------------------------------


def test_services(tmp_path: Path) -> None:
    path = tmp_path / "services.csv"
    path.write_bytes(
        b"\xef\xbb\xbfService Name,Port Number,Transport Protocol,Description\r\n"
        b'domain,53,tcp,Domain Name Server\r\ndomain,53,udp,"a, b\nc"\r\n'
        b"x11,6000-6002,TCP,range\r\nsecond,53,udp,not this\r\n"
        b",99,tcp,no name\r\nnoport,,tcp,\r\nsctp-only,9,sctp,\r\nbig,70000,tcp,\r\nback,9-5,udp,\r\n"
        b"odd,12a,udp,\r\nminus,-5,udp,\r\nshort\r\nzero,0,udp,\r\nlatin\xe9,7,udp,\r\n"
    )
    assert read_services(str(path)) == {
        ("tcp", 53): "domain",
        ("udp", 53): "domain",
        ("tcp", 6000): "x11",
        ("tcp", 6001): "x11",
        ("tcp", 6002): "x11",
        ("udp", 0): "zero",
        ("udp", 7): "latin�",
    }


def test_services_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^service registry .*/none: no such file or directory$"):
        read_services(str(tmp_path / "none"))
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(
        ConfigError, match=r"^service registry .*: no column 'Service Name', expected IANA's CSV$"
    ):
        read_services(str(path))
    path.write_text("")
    with pytest.raises(ConfigError, match="no column"):
        read_services(str(path))
    path.write_text('Service Name,Port Number,Transport Protocol\n"' + "x" * 200_000 + '",1,tcp\n')
    with pytest.raises(ConfigError, match=r"^service registry .*: line \d+: field larger"):
        read_services(str(path))


# --- tokens, certificates ----------------------------------------------------------------------------------


def test_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text("  s3cret \nsecond line\n")
    path.chmod(0o600)
    assert read_token(str(path)) == "s3cret"
    assert caplog.text == ""
    path.chmod(0o604)
    assert read_token(str(path)) == "s3cret"
    assert "can be read by every user" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("content", ["", "\n", "ümlaut", "a\x00b", "x" * 5000])
def test_unfit_token(content: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^--admin-token-file .*/token: expected one line"):
        read_token(str(path))
    with pytest.raises(ConfigError, match=r"^--admin-token-file .*/none: no such file"):
        read_token(str(tmp_path / "none"))


@pytest.mark.tool("openssl")
def test_certificates(tmp_path: Path) -> None:
    def make(name: str, *more: str) -> tuple[str, str]:
        cert, key = str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-subj", "/CN=localhost", "-keyout", key, "-out", cert, *(more or ("-nodes",))]
        subprocess.run(command, check=True, capture_output=True)
        return cert, key

    cert, key = make("a")
    _, other_key = make("b")
    _, locked = make("c", "-passout", "pass:secret")
    assert checked_pair("--tls", cert, key) == (cert, key)
    for pair, message in (
        ((cert, other_key), f"--tls-key {other_key}: it does not belong to the certificate {cert}"),
        ((str(tmp_path / "none"), key), f"--tls-cert {tmp_path}/none: no such file or directory"),
        ((cert, str(tmp_path)), f"--tls-key {tmp_path}: is a directory"),
        ((key, key), f"--tls-cert {key}, --tls-key {key}: not a PEM certificate and its key"),
        ((cert, locked), f"--tls-key {locked}: it has a password, expected a key without one"),
    ):
        with pytest.raises(ConfigError) as raised:
            checked_pair("--tls", *pair)
        assert str(raised.value) == message
