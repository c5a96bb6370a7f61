"""A real pktvisord on a real interface: start, stop, signals, daemon, privileges, what can go wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest
from agentkit import CAPTURE_ONLY, CAPTURES, PKTVISORD, ROOT, Agent
from netprobe.cli import pktvisord

from netprobe._version import __version__

root = pytest.mark.root
replay = pytest.mark.tool("tcpreplay", "ethtool")
DEMO = CAPTURES / "demo.pcap"
DEMO_PACKETS = 408


@pytest.fixture
def ends() -> Iterator[tuple[netns.End, netns.End]]:
    with netns.pair() as (sender, receiver):
        yield sender, receiver


@pytest.fixture
def alone() -> Iterator[netns.Namespace]:
    with netns.Namespace("alone") as namespace:
        yield namespace


def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PKTVISORD, *argv], capture_output=True, text=True, timeout=60, **more)


def mock_config(tmp_path: Path, *policies: str, config: str = "", **inputs: Any) -> Path:
    """A configuration whose packets are made up: no interface is needed."""
    document = {
        "version": "1.0",
        "visor": {
            "taps": {"made_up": {"input_type": "pcap", "config": {"pcap_source": "mock", "iface": "mock0"}}},
            "policies": {
                name: {
                    "kind": "collection",
                    "input": {"tap": "made_up", "input_type": "pcap", **inputs},
                    "handlers": {"modules": {"net": {"type": "net"}}},
                }
                for name in policies
            },
        },
    }
    path = tmp_path / "agent.yaml"
    text = json.dumps(document)
    if config:
        text = text.replace('"visor": {', '"visor": {"config": {' + config + "}, ", 1)
    path.write_text(text)
    return path


# --- without anything running ------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert run("--version").stdout == f"pktvisor {__version__}\n"
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Watch network interfaces")
    assert "pktvisord [options] [--] [IFACE]" in done.stdout


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--nonsense"], "unknown flag --nonsense"),
        (["-p"], "-p needs a value"),
        (["eth0", "eth1"], "unexpected argument 'eth1'"),
        (["--tls=yes", "eth0"], "--tls takes no value, got 'yes'"),
        (["--config", "a", "--config", "b"], "--config is given twice"),
    ],
)
def test_usage_errors(argv: list[str], reason: str) -> None:
    done = run(*argv)
    assert done.returncode == 255
    assert done.stderr == f"pktvisord: {reason}\n"
    assert done.stdout == pktvisord.USAGE.replace("{prog}", "pktvisord")


@pytest.mark.parametrize("argv", [[], ["-b", "udp"], ["--prometheus", "--no-track"]])
def test_nothing_to_do(argv: list[str]) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout) == (1, "")
    first, _, rest = done.stderr.partition("\n")
    assert first == "pktvisord: nothing to do: no IFACE, no policy in a --config file, no --admin-api"
    assert rest == pktvisord.USAGE.replace("{prog}", "pktvisord")


def test_a_file_without_policies_is_nothing_to_do(tmp_path: Path) -> None:
    done = run("--config", str(mock_config(tmp_path)))
    assert done.returncode == 1
    assert "nothing to do" in done.stderr


def test_module_list(tmp_path: Path) -> None:
    done = run("--module-dir", str(tmp_path), "--module-list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("] ")[-1] for line in done.stdout.splitlines()]
    assert "input module: pcap 1.0" in lines
    assert {
        f"handler module: {name}" for name in ("net 1.0", "net 2.0", "dns 1.0", "dns 2.0", "dhcp 1.0")
    } <= set(lines)
    log = tmp_path / "log"
    assert run("--module-list", "--log-file", str(log)).stdout == ""
    assert log.read_text().count("module: ") == len(lines) - 1


BROKEN = [
    ("", "agent.yaml: empty, expected a map with the keys version and visor"),
    ("visor: [", "agent.yaml:2: no valid YAML: "),
    ("- a", "agent.yaml"),
    ("version: '2.0'\nvisor: {}", "agent.yaml:1: version: "),
    ("version: '1.0'\n", "agent.yaml"),
    (
        "visor:\n  config: {port: abc}\n",
        "agent.yaml:2: visor.config.port: 'abc': not a whole number, expected 0",
    ),
    ("visor:\n  config: {tls: true}\n", "--tls: needs --tls-cert and --tls-key"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_configuration(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    done = run("--config", "agent.yaml", "--admin-api", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"pktvisord: {message}")
    assert done.stderr.count("\n") == 1


def test_configuration_that_is_not_there(tmp_path: Path) -> None:
    done = run("--config", "/no/such.yaml")
    assert (done.returncode, done.stderr) == (1, "pktvisord: /no/such.yaml: no such file or directory\n")


# --- what is refused at the start: one line, exit 1, nothing left behind ---


def refused(namespace: netns.Namespace, *argv: str, **popen: Any) -> str:
    """The one error line of an agent that does not start."""
    agent = Agent(namespace, *argv, start=False, **popen)
    assert agent.program.wait() == 1
    assert agent.log[-1] == ("info", "exit with failure")
    assert not any("listening" in text for _, text in agent.log)
    (error,) = agent.texts("error")
    assert agent.program.stderr == ""
    return error


@root
def test_no_such_interface(alone: netns.Namespace) -> None:
    error = refused(alone, "nope0")
    assert "nope0" in error
    assert re.search(r"\blo\b", error), "it lists what there is"


@root
def test_bad_filter_and_hosts(alone: netns.Namespace) -> None:
    assert "udp and and" in refused(alone, "-b", "udp and and", "lo")
    done = run("-H", "10.0.0.0/99", "lo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pktvisord: -H '10.0.0.0/99': invalid CIDR: 10.0.0.0/99\n"


@root
def test_policy_in_the_file_that_names_no_tap(alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "first", "second")
    path.write_text(path.read_text().replace('"tap": "made_up"', '"tap": "missing"', 1))
    assert "missing" in refused(alone, "--config", str(path))


@root
def test_default_twice(alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "default")
    assert "already" in refused(alone, "--config", str(path), "lo")


@root
def test_port_in_use(alone: netns.Namespace) -> None:
    first = Agent(alone, "lo")
    error = refused(alone, "lo")
    assert error.startswith("unable to bind to localhost:10853")
    assert first.request("metrics/app").status == 200
    assert first.stop() == 0


@root
@pytest.mark.parametrize("port", ["70000", "-1"])
def test_port_out_of_range(port: str, alone: netns.Namespace) -> None:
    assert refused(alone, "-p", port, "lo").startswith(f"unable to bind to localhost:{port}")


@root
def test_host_that_is_not_ours(alone: netns.Namespace) -> None:
    assert refused(alone, "-l", "192.0.2.1", "lo").startswith("unable to bind to 192.0.2.1:10853")


@root
def test_files_that_do_not_do(alone: netns.Namespace, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk\n")
    for argv, named in (
        (["--geo-city", str(junk)], str(junk)),
        (["--geo-asn", "/no/such.mmdb"], "/no/such.mmdb"),
        (["--iana-service-port-registry", str(junk)], str(junk)),
        (["--tls", "--tls-cert", str(junk), "--tls-key", str(junk)], str(junk)),
        (["--tls", "--tls-cert", "/no/cert", "--tls-key", str(junk)], "/no/cert"),
        (["--admin-token-file", "/no/token"], "/no/token"),
        (["--pid-file", "/no/where.pid"], "/no/where.pid"),
        (["--user", "nobody-at-all"], "nobody-at-all"),
    ):
        assert named in refused(alone, *argv, "lo")


@root
def test_no_permission(alone: netns.Namespace) -> None:
    """Without CAP_NET_RAW: says so, and what is needed."""
    program = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *PKTVISORD]
    if shutil.which("setpriv") is None:
        pytest.skip("missing: the program setpriv")
    agent = Agent(alone, "lo", start=False, program=program)
    assert agent.program.wait() == 1
    (error,) = agent.texts("error")
    assert "lo" in error
    assert re.search(r"CAP_NET_RAW|root", error)


def test_log_file_that_cannot_be_opened() -> None:
    for more in ([], ["-d"]):
        done = run("--log-file", "/no/where.log", "--admin-api", *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "pktvisord: log file /no/where.log: no such file or directory\n"


@root
def test_reason_on_standard_error_when_the_log_goes_elsewhere(alone: netns.Namespace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = alone.run(*PKTVISORD, "--log-file", str(log), "nope0", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"pktvisord: .*nope0.*\n", done.stderr)
    assert "nope0" in log.read_text()
    assert log.read_text().endswith("[info] exit with failure\n")


# --- it runs -----------------------------------------------------------------------------------------------


@root
@replay
@pytest.mark.tool("curl", "jq")
def test_what_the_readme_says(ends: tuple[netns.End, netns.End]) -> None:
    """`pktvisord eth0`, then curl and jq."""
    sender, receiver = ends
    agent = Agent(receiver, receiver.iface)
    assert sender.replay(DEMO) == DEMO_PACKETS
    agent.wait_total(DEMO_PACKETS)
    (command,) = re.findall(r"^(curl .*\| jq)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    shown = json.loads(receiver.run("sh", "-c", command).stdout)
    assert list(shown) == ["5m"]
    assert sorted(shown["5m"]) == ["dhcp", "dns", "packets", "pcap"]
    assert shown["5m"]["packets"]["total"] == DEMO_PACKETS
    assert agent.stop() == 0
    assert agent.log[-1] == ("info", "exit with success")
    assert agent.texts("error") == agent.texts("warning") == []
    assert any(
        re.fullmatch(r"REQUEST: GET /api/v1/metrics/window/5 200", text) for text in agent.texts("info")
    )


#: what depends on when packets come, not on which
TIMED = {"period", "rates", "quantiles_us", "top_slow", "ratio", "live"}


def untimed(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: untimed(value) for key, value in document.items() if key not in TIMED}
    return document


@root
@replay
def test_live_counts_what_the_file_holds() -> None:
    """The same capture by wire and by pktvisor-pcap: every counter, cardinality and list is equal."""
    hosts = "10.77.0.2/32,fd77::2/128"
    for name in ("demo", "dns-udp", "dns-tcp", "dhcp", "http", "icmp", "dns-fragments"):
        path = CAPTURES / f"{name}.pcap"
        command = [sys.executable, "-m", "netprobe.cli.pktvisor_pcap", "-H", hosts]
        out = subprocess.run(
            [*command, "--handlers", "net,dns,dhcp", str(path)], capture_output=True, check=True
        ).stdout
        wanted = json.loads(out)["5m"]
        with netns.pair() as (sender, receiver):
            agent = Agent(receiver, "-H", hosts, receiver.iface)
            agent_total = sender.replay(path)
            agent.wait_total(agent_total)
            found = agent.json("metrics/window/5")["5m"]
            assert found.pop("pcap")["os_drops"] == 0
            assert agent.stop() == 0
        assert untimed(found) == untimed(wanted), name


@root
@replay
@pytest.mark.parametrize("iface", ["auto", "10.99.0.2", "fd99::2"])
def test_interface_by_address_or_the_busiest(iface: str) -> None:
    with netns.pair(addresses=True) as (sender, receiver):
        sender.replay(DEMO)  # what makes it the busiest
        agent = Agent(receiver, "-b", "net 10.77.0.0/24", iface)
        sender.replay(DEMO)
        assert agent.wait_total(1) > 100
        (found,) = agent.json("policies/default")["default"]["input"].values()
        hosts = found["pcap"]["host_ips"]
        assert "10.99.0.2/24" in hosts["ipv4"]
        assert "fd99::2/64" in hosts["ipv6"]
        if iface == "auto":
            assert found["module"]["config"]["iface"] == receiver.iface
        assert agent.stop() == 0


@root
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stops_on_signals(how: int, alone: netns.Namespace) -> None:
    agent = Agent(alone, "lo")
    assert agent.stop(how) == 0
    assert agent.log[-1] == ("info", "exit with success")


@root
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_start_can_be_interrupted(how: int, alone: netns.Namespace, tmp_path: Path) -> None:
    """A name server that does not answer must not make Ctrl-C useless."""
    code = (
        "import socket, sys, time\n"
        "socket.getaddrinfo = lambda *a, **k: print('asking', flush=True) or time.sleep(600)\n"
        "from netprobe.cli.pktvisord import main\nsys.exit(main())"
    )
    pid_file = tmp_path / "pid"
    agent = Agent(alone, "--pid-file", str(pid_file), "lo", program=[sys.executable, "-c", code], start=False)
    agent.wait_log("asking")
    assert pid_file.exists()
    # whoever reloads too soon, and a terminal that closes, do no harm
    agent.send(signal.SIGHUP)
    assert agent.stop(how) == 0
    assert agent.program.stdout.endswith("exit with success\n")
    assert not pid_file.exists()


def test_interrupted_while_the_command_line_is_read() -> None:
    code = (
        "import os, signal, sys\n"
        "from netprobe.cli import _docopt, pktvisord\n"
        "_docopt.parse = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(pktvisord.main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "lo"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@root
def test_interrupted_while_it_forks(alone: netns.Namespace) -> None:
    """Python calls functions of its own around a fork, and prints what they raise."""
    code = (
        "import os, signal, sys\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "from netprobe.cli.pktvisord import main\nsys.exit(main())"
    )
    agent = Agent(alone, "lo", program=[sys.executable, "-c", code], start=False)
    assert agent.program.wait() == 0
    assert agent.log == [("info", "exit with success")]
    assert agent.program.stderr == ""


@root
@pytest.mark.parametrize("then", ["return real(*a, **k)", "raise ImportError('half of a module')"])
def test_an_interrupt_that_is_swallowed_is_remembered(then: str, alone: netns.Namespace) -> None:
    """What happens to import when Ctrl-C comes may go on as if nothing had been, or fail in its own words."""
    code = (
        "import os, signal, socket, sys\n"
        "real = socket.getaddrinfo\n"
        "def swallow(*a, **k):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n        print('swallowed', flush=True)\n"
        f"    {then}\n"
        "socket.getaddrinfo = swallow\n"
        "from netprobe.cli.pktvisord import main\nsys.exit(main())"
    )
    agent = Agent(alone, "lo", program=[sys.executable, "-c", code], start=False)
    assert agent.program.wait() == 0
    assert "swallowed" in agent.program.stdout
    assert agent.program.stdout.endswith("exit with success\n")


@root
def test_stops_on_request(alone: netns.Namespace) -> None:
    agent = Agent(alone, "--admin-api", "lo")
    answer = agent.request("server", "DELETE")
    assert (answer.status, answer.body) == (200, b"")
    assert agent.program.wait() == 0
    assert agent.log[-1] == ("info", "exit with success")


@root
@pytest.mark.parametrize("log_file", [False, True])
def test_asked_to_stop_more_than_once(alone: netns.Namespace, tmp_path: Path, log_file: bool) -> None:
    """Clients try again, and not all are alone. With a log file SIGHUP has another meaning."""
    beside = ["--log-file", str(tmp_path / "log")] if log_file else []
    pid_file = tmp_path / "pid"
    agent = Agent(alone, "--admin-api", "--pid-file", str(pid_file), "lo", *beside, start=not log_file)
    log = tmp_path / "log"
    if log_file:
        netns.until(lambda: log.exists() and "web server listening" in log.read_text())
    with alone.inside():
        clients = [socket.create_connection(("localhost", agent.port)) for _ in range(8)]
    for client in clients:
        client.sendall(b"DELETE /api/v1/server HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    assert agent.program.wait() == 0
    for client in clients:
        client.close()
    text = log.read_text() if log_file else agent.program.stdout
    assert "stopping: DELETE /api/v1/server" in text
    assert text.endswith("exit with success\n")
    assert not pid_file.exists()


@root
def test_a_slow_client_does_not_hold_up_the_end(alone: netns.Namespace) -> None:
    agent = Agent(alone, "lo")
    with alone.inside():
        client = socket.create_connection(("localhost", agent.port))
    with client:
        client.sendall(b"GET /api/v1/metrics/app HTTP/1.1\r\nHost: x\r\n")
        assert agent.stop() == 0


@root
@replay
def test_killed_and_started_again(ends: tuple[netns.End, netns.End]) -> None:
    """kill -9 leaves nothing behind that a new agent stumbles over."""
    sender, receiver = ends
    pid_file = receiver.folder / "agent.pid"
    for _ in range(2):
        agent = Agent(receiver, "--pid-file", str(pid_file), receiver.iface)
        assert int(pid_file.read_text()) == agent.pid
        sender.replay(DEMO)
        assert agent.wait_total(DEMO_PACKETS) == DEMO_PACKETS
        assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
    agent = Agent(receiver, "--pid-file", str(pid_file), receiver.iface)
    assert "holds it, is an agent running?" in refused(
        receiver, "--pid-file", str(pid_file), "-p", "0", receiver.iface
    )
    assert agent.stop() == 0
    assert not pid_file.exists()


@root
def test_other_port_and_host(alone: netns.Namespace) -> None:
    agent = Agent(alone, "-l", "127.0.0.1", "-p", "0", "lo")
    assert agent.port > 0
    assert f"web server listening on 127.0.0.1:{agent.port}" in agent.texts("info")
    assert agent.json("metrics/app")["app"]["version"] == __version__
    assert agent.stop() == 0


@root
@pytest.mark.tool("openssl")
def test_tls_with_a_key_that_only_root_may_read(alone: netns.Namespace, tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", "k", "-out", "c"], cwd=tmp_path, check=True, capture_output=True
    )
    (tmp_path / "k").chmod(0o600)
    agent = Agent(
        alone, "--user", "nobody", "--tls", "--tls-cert", "c", "--tls-key", "k", "lo", tls=True, cwd=tmp_path
    )
    assert agent.request("metrics/app").status == 200
    assert agent.stop() == 0


@root
def test_admin_token(alone: netns.Namespace, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "token").chmod(0o600)
    agent = Agent(alone, "--admin-api", "--admin-token-file", "token", "lo", cwd=tmp_path)
    assert agent.request("policies/default", "DELETE").status == 401
    assert agent.request("policies/default", "DELETE", Authorization="Bearer s3cret").status == 200
    assert agent.request("policies").status == 200
    assert "s3cret" not in agent.program.stdout
    assert agent.stop() == 0


@root
@replay
def test_names_from_databases(ends: tuple[netns.End, netns.End], tmp_path: Path) -> None:
    """The databases are opened before the privileges go, and used afterwards."""
    import mmdb_writer

    place = {"continent": {"code": "EU"}, "city": {"names": {"en": "Linköping"}}}
    (tmp_path / "city.mmdb").write_bytes(mmdb_writer.build({"10.77.0.0/24": place}))
    (tmp_path / "asn.mmdb").write_bytes(
        mmdb_writer.build({"10.77.0.0/24": {"autonomous_system_number": 64500}}, kind="Test-ASN")
    )
    sender, receiver = ends
    agent = Agent(
        receiver,
        *("--geo-city", "city.mmdb", "--default-geo-asn", "asn.mmdb", "--user", "nobody"),
        *("-H", "10.77.0.2/32", "--prom-instance", "edge7", receiver.iface),
        cwd=tmp_path,
    )
    sender.replay(DEMO)
    agent.wait_total(DEMO_PACKETS)
    packets = agent.json("metrics/window/5")["5m"]["packets"]
    assert packets["top_ASN"][0]["name"] == "64500"
    assert packets["top_geoLoc"][0]["name"] == "EU/Linköping"
    assert 'instance="edge7"' in agent.metrics()
    assert agent.stop() == 0


@root
def test_flags_without_effect(alone: netns.Namespace) -> None:
    flags = """--prometheus --no-track --geo-cache-size 0 --module-dir /no/where --cp-disable --cp-token t
        --cp-url u --cp-custom c --cp-path /p -b udp --admin-api"""
    agent = Agent(alone, *flags.split())
    assert [text for text in agent.texts("warning") if "-b and -H" in text]
    assert agent.json("policies") == {}
    assert agent.stop() == 0


@root
def test_receiver_of_otlp_that_is_not_there(alone: netns.Namespace, tmp_path: Path) -> None:
    """Said in a warning; the rest goes on."""
    agent = Agent(alone, "--otel", "--otel-port", "9", "--otel-interval", "1", "lo")
    agent.wait_log(r"\[warning\] .*localhost:9/v1/metrics")
    assert agent.request("metrics/window/5").status == 200
    assert agent.stop() == 0


@root
def test_agents_own_numbers_are_those_of_the_page(alone: netns.Namespace) -> None:
    """Each metric that docs/prometheus.md has a row for, with its type, and no other."""
    page = (ROOT / "docs" / "prometheus.md").read_text()
    written = dict(re.findall(r"^\| `(netprobe_\w+)` \| (\w+) \|", page, re.MULTILINE))
    agent = Agent(alone, "--otel", "--otel-port", "9", "--otel-interval", "1", "lo")
    agent.wait_log(r"\[warning\] .*localhost:9/v1/metrics")
    netns.until(lambda: agent.total() > 0)
    text = agent.metrics("/metrics/agent")
    assert dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)) == written
    assert int(re.findall(r"^netprobe_otlp_failed_attempts_total\S* (\d+)$", text, re.MULTILINE)[0]) >= 1
    assert agent.stop() == 0


def test_intervals_of_otlp_that_no_clock_can_wait_for() -> None:
    for interval in ("0", "31536001", "1" + 20 * "0"):
        done = subprocess.run(
            [*PKTVISORD, "--otel", "--otel-interval", interval, "--admin-api"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"pktvisord: --otel-interval '{interval}': ")
        assert done.stderr.endswith("expected 1 to 31536000\n")


@pytest.mark.parametrize("package", ["uvicorn", "yaml"])
def test_without_the_extra(package: str) -> None:
    """A plain `pip install` lacks what only the agent needs: the message says what to install."""
    hide = (
        "import sys\nclass Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    )
    done = run_code(f"{hide}sys.meta_path.insert(0, Hide())\n", "--admin-api", "-p", "0")
    assert done.returncode == 1
    assert "pip install 'netprobe-suite[agent]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "internal error" not in done.stdout + done.stderr


def run_code(before: str, *argv: str) -> subprocess.CompletedProcess[str]:
    code = before + "import sys\nfrom netprobe.cli.pktvisord import main\nsys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60)


# --- privileges --------------------------------------------------------------------------------------------


@root
@pytest.mark.parametrize("user", [None, "nobody"])
def test_every_thread_has_lost_its_privileges(user: str | None, alone: netns.Namespace) -> None:
    import pwd

    agent = Agent(alone, *(["--user", user] if user else []), "lo")
    agent.json("metrics/window/5")
    threads = agent.threads()
    assert len(threads) >= 3
    uid = str(pwd.getpwnam(user).pw_uid if user else 0)
    for thread in threads:
        assert thread["CapPrm"] == thread["CapEff"] == thread["CapBnd"] == CAPTURE_ONLY, thread["Name"]
        assert thread["CapInh"] == thread["CapAmb"] == "0" * 16
        assert thread["NoNewPrivs"] == "1"
        assert set(thread["Uid"].split()) == {uid}
    assert agent.stop() == 0


@root
def test_interfaces_can_still_be_opened(alone: netns.Namespace) -> None:
    """As another user, long after the start: a policy on an interface that was not there before."""
    agent = Agent(alone, "--user", "nobody", "--admin-api")
    alone.ip("link", "add", "late0", "type", "veth", "peer", "name", "late1")
    alone.ip("link", "set", "late0", "up")
    alone.ip("link", "set", "late1", "up")
    tap = {"input_type": "pcap", "config": {"iface": "late0"}}
    assert agent.request("taps", "POST", {"visor": {"taps": {"late": tap}}}).status == 201
    policy = {
        "kind": "collection",
        "input": {"tap": "late", "input_type": "pcap"},
        "handlers": {"modules": {"net": {"type": "net"}}},
    }
    answer = agent.request("policies", "POST", {"visor": {"policies": {"late": policy}}})
    assert answer.status == 201, answer
    assert "late" in agent.running()
    assert agent.stop() == 0


@root
@replay
def test_an_interface_that_returns_is_opened_again(alone: netns.Namespace) -> None:
    """The socket for the new one is made by another user, with what is left of the privileges."""

    def wire() -> None:
        alone.ip("link", "add", "back0", "type", "veth", "peer", "name", "back1")
        for name in ("back0", "back1"):
            alone.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
            alone.ip("link", "set", name, "up")

    wire()
    agent = Agent(alone, "--user", "nobody", "back0")
    alone.replay(DEMO, iface="back1")
    agent.wait_total(DEMO_PACKETS)
    alone.ip("link", "del", "back0")
    agent.wait_log(r"\[warning\] .*interface back0 is gone")
    # it waits for a cable, and says so
    (name,) = agent.json("policies/default")["default"]["input"]
    ready = agent.request("/readyz")
    assert (ready.status, ready.text) == (200, f"ready\ninterface down or gone: {name}\n")
    wire()
    agent.wait_log(r"interface back0 is up")
    alone.replay(DEMO, iface="back1")
    assert agent.wait_total(2 * DEMO_PACKETS) == 2 * DEMO_PACKETS
    assert agent.stop() == 0


#: pktvisord that says on standard error what is imported once it has loaded everything
WATCHED = """
import sys
from netprobe.agent import preload
class Watch:
    def find_spec(self, name, path=None, target=None):
        print("imported:", name, file=sys.stderr, flush=True)
real = preload.load_late
def load_late():
    real()
    sys.meta_path.insert(0, Watch())
    print("all is loaded", file=sys.stderr, flush=True)
preload.load_late = load_late
from netprobe.cli.pktvisord import main
sys.exit(main())
"""


def filtered(name: str, tap: str, modules: dict[str, Any] | None = None) -> dict[str, Any]:
    """A policy with a capture filter."""
    policy = {
        "kind": "collection",
        "input": {"tap": tap, "input_type": "pcap", "filter": {"bpf": "udp"}},
        "handlers": {"modules": modules or {"net": {"type": "net"}}},
    }
    return {"visor": {"policies": {name: policy}}}


@root
@pytest.mark.parametrize("interface", [(), ("lo",)])
def test_nothing_is_imported_once_the_agent_runs(alone: netns.Namespace, interface: tuple[str, ...]) -> None:
    agent = Agent(alone, "--admin-api", *interface, program=[sys.executable, "-c", WATCHED])
    agent.program.wait_for("all is loaded")
    modules: dict[str, Any] = {name: {"type": name} for name in ("net", "dns", "dhcp", "bgp", "pcap")}
    modules["net2"] = {"type": "net", "require_version": "2.0"}
    modules["dns2"] = {"type": "dns", "require_version": "2.0", "config": {"public_suffix_list": True}}
    modules["few"] = {"type": "dns", "filter": {"only_qname_suffix": [".test"]}}
    sources: dict[str, dict[str, Any]] = {
        "by_ring": {"iface": "lo"},
        "by_libpcap": {"iface": "lo", "pcap_source": "libpcap"},
        "made_up": {"iface": "mock0", "pcap_source": "mock"},
        "file": {"pcap_file": str(DEMO)},
    }
    for tap, config in sources.items():
        body: Any = {"visor": {"taps": {tap: {"input_type": "pcap", "config": config}}}}
        assert agent.request("taps", "POST", body).status == 201
        answer = agent.request("policies", "POST", filtered(f"of_{tap}", tap, modules))
        assert answer.status == 201, answer
    body = json.dumps(filtered("of_yaml", "by_ring")).encode()
    assert agent.request("policies", "POST", body, "application/x-yaml").status == 201
    for body in (b"visor: [", b"\xff\xfeb\0", b"\xff"):
        assert agent.request("policies", "POST", body, "application/x-yaml").status >= 400
    for path in ("/", "/readyz", "openapi.json", "metrics/app", "policies"):
        assert agent.request(path).status == 200, path
    for path in ("/metrics", "metrics/window/5", "policies/__all/metrics/prometheus"):
        # not found where there is no default policy
        assert agent.request(path).status in (200, 404), path
    assert agent.request("policies/of_by_ring", "DELETE").status == 200
    assert "imported:" not in agent.program.stderr
    assert agent.stop() == 0


#: pktvisord where no thread of the name in `{}` can be started
THREADLESS = """
import sys, threading
start = threading.Thread.start
def refuse(thread):
    if thread.name.startswith({!r}):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
from netprobe.cli.pktvisord import main
sys.exit(main())
"""


@root
@pytest.mark.parametrize(
    ("thread", "part"), [("web", "web server"), ("web-admin", "web server"), ("otlp", "OTLP")]
)
def test_no_thread_to_be_had(alone: netns.Namespace, thread: str, part: str) -> None:
    program = [sys.executable, "-c", THREADLESS.format(thread)]
    agent = Agent(alone, "--otel", "lo", program=program, start=False)
    assert agent.program.process.wait(30) == 1
    said = "can't start new thread: raise the limit on threads (TasksMax of a unit, ulimit -u)"
    assert agent.texts("error") == [f"{part}: {said}"]
    assert agent.program.stderr == ""


@root
def test_no_descriptor_is_left_for_code(alone: netns.Namespace) -> None:
    """Connections hold them all: what a policy needs is there, or the answer says what is not."""
    agent = Agent(alone, "--admin-api", program=[sys.executable, "-c", WATCHED])
    agent.program.wait_for("all is loaded")
    made_up = {"input_type": "pcap", "config": {"iface": "mock0", "pcap_source": "mock"}}
    real = {"input_type": "pcap", "config": {"iface": "lo"}}
    for tap, config in {"made_up": made_up, "real": real}.items():
        assert agent.request("taps", "POST", {"visor": {"taps": {tap: config}}}).status == 201
    suffixes = {
        "dns": {"type": "dns", "require_version": "2.0", "config": {"public_suffix_list": True}},
    }
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (40, 40))
    said = []
    with contextlib.ExitStack() as stack, alone.inside():
        first = http.client.HTTPConnection("localhost", agent.port, timeout=30)
        stack.callback(first.close)
        first.connect()
        for _ in range(60):
            stack.callback(socket.create_connection(("localhost", agent.port)).close)
        agent.wait_log("no connection can be accepted: too many open files")
        for policy in (
            filtered("one", "made_up"),
            filtered("two", "real"),
            filtered("three", "made_up", suffixes),
        ):
            first.request(
                "POST", "/api/v1/policies", json.dumps(policy), {"Content-Type": "application/json"}
            )
            reply = first.getresponse()
            said.append(reply.read().decode())
    assert "imported:" not in agent.program.stderr
    for answer, reason in zip(said, ("eventfd", "raise the limit on files", "suffix_list.dat"), strict=True):
        assert reason in answer
        assert "ImportError" not in answer
    # with room again all is well
    netns.until(lambda: answers(agent))
    assert agent.request("policies", "POST", filtered("one", "made_up")).status == 201
    assert agent.stop() == 0


def test_where_code_can_be_read_it_is_loaded_late() -> None:
    code = "from netprobe.agent.preload import Trial; print(Trial(None).succeeded())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "True\n"


@root
def test_code_below_a_home_that_root_may_not_enter(alone: netns.Namespace) -> None:
    """`sudo .venv/bin/pktvisord` below a home directory of mode 0700: all code is loaded in time."""
    home = alone.folder / "home"
    shutil.copytree(
        ROOT / "netprobe", home / "netprobe", ignore=shutil.ignore_patterns("*.pyx", "*.c", "__pycache__")
    )
    shutil.copytree(ROOT / "cli", home / "netprobe" / "cli", ignore=shutil.ignore_patterns("__pycache__"))
    alone.folder.chmod(0o755)
    home.chmod(0o700)
    os.chown(home, 65534, 65534)
    code = (
        "import atexit, sys\nfrom netprobe.agent import privileges\nreal = privileges.drop\n"
        "def drop(*a, **k):\n"
        "    kept = real(*a, **k)\n"
        "    try: open(privileges.__file__).close()\n"
        "    except OSError: print('out of reach', file=sys.stderr)\n"
        "    return kept\n"
        "privileges.drop = drop\n"
        "from netprobe.cli.pktvisord import main\nsys.exit(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    agent = Agent(alone, "--admin-api", "lo", program=[sys.executable, "-c", code], env=environment, cwd=home)
    assert "out of reach" in agent.program.stderr
    modules: dict[str, Any] = {name: {"type": name} for name in ("net", "dns", "dhcp", "bgp", "pcap")}
    modules["net2"] = {"type": "net", "require_version": "2.0"}
    modules["dns2"] = {"type": "dns", "require_version": "2.0", "config": {"public_suffix_list": True}}
    modules["few"] = {"type": "dns", "filter": {"only_qname_suffix": [".test"]}}
    policy = {
        "kind": "collection",
        "input": {"tap": "default", "input_type": "pcap", "filter": {"bpf": "ip6"}},
        "handlers": {"modules": modules},
    }
    answer = agent.request("policies", "POST", {"visor": {"policies": {"all_of_them": policy}}})
    assert answer.status == 201, answer
    paths = ["/", "/healthz", "/readyz", "/metrics", "openapi.json", "metrics/app", "metrics/rates", "taps"]
    paths += ["policies", "policies/__all/metrics/window/5", "policies/__all/metrics/bucket/0"]
    for path in [*paths, "policies/__all/metrics/prometheus", "policies/all_of_them/metrics/window/5"]:
        assert agent.request(path).status == 200, path
    assert agent.request("policies/all_of_them", "DELETE").status == 200
    assert agent.request("policies", "POST", b"visor: [", type="application/x-yaml").status == 500
    agent.send(signal.SIGHUP)
    assert agent.program.wait() == 0
    assert not any("ModuleNotFound" in text or "internal" in text for _, text in agent.log)


# --- the configuration, read again -------------------------------------------------------------------------


@root
def test_reload_replaces_what_changed_and_nothing_else(alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "stays", "changes", "goes")
    agent = Agent(alone, "--config", str(path), "--admin-api")
    kept = json.loads(path.read_text())["visor"]["policies"]["stays"]
    answer = agent.request("policies", "POST", {"visor": {"policies": {"by_rest": kept}}})
    assert answer.status == 201, answer

    def events(policy: str) -> int:
        return int(
            agent.json(f"policies/{policy}/metrics/window/5")[policy][f"{policy}-made_up-net"]["packets"][
                "total"
            ]
        )

    netns.until(lambda: min(events("stays"), events("by_rest"), events("changes")) > 0)
    before = events("stays")
    document = json.loads(path.read_text())
    policies = document["visor"]["policies"]
    del policies["goes"]
    policies["comes"] = policies["stays"]
    policies["changes"] = {**policies["changes"], "handlers": {"modules": {"other": {"type": "dns"}}}}
    document["visor"]["config"] = {"verbose": True, "port": 1234, "prot": 1}
    path.write_text(json.dumps(document))
    agent.send(signal.SIGHUP)
    agent.wait_log(rf"configuration reloaded from {path}")
    names = [name for name in agent.json("policies") if not name.endswith("-resources")]
    assert sorted(names) == ["by_rest", "changes", "comes", "stays"]
    assert list(agent.json("policies/changes")["changes"]["modules"]) == ["changes-made_up-other"]
    assert events("stays") >= before
    assert f"{path}: port: changes take effect at the next start" in agent.texts("warning")
    assert any("visor.config.prot: unknown, did you mean port?" in text for text in agent.texts("warning"))
    # from now on at debug level
    agent.send(signal.SIGHUP)
    netns.until(lambda: agent.program.stdout.count("configuration reloaded") == 2)
    assert agent.stop() == 0


@root
@pytest.mark.parametrize(
    "text",
    ["visor: [", "version: 3.0\nvisor: {}", None, '{"visor": {"policies": {"new": {"kind": "collection"}}}}'],
)
def test_a_broken_file_changes_nothing(text: str | None, alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "one", "two")
    agent = Agent(alone, "--config", str(path))
    before = sorted(agent.json("policies"))
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    agent.send(signal.SIGHUP)
    agent.wait_log(r"\[error\] reload failed, the old configuration stays: .*agent\.yaml")
    assert sorted(agent.json("policies")) == before == sorted(agent.running())
    assert len(agent.texts("error")) == 1
    assert agent.stop() == 0


@root
def test_a_fifo_is_read_once(alone: netns.Namespace, tmp_path: Path) -> None:
    """Nobody writes it again, and the thread that would wait for that is the one that hears signals."""
    path, fifo = mock_config(tmp_path, "one"), tmp_path / "fifo"
    os.mkfifo(fifo)
    agent = Agent(alone, "--config", str(fifo), start=False)
    fifo.write_text(path.read_text())
    agent.wait_log("web server listening")
    agent.send(signal.SIGHUP)
    agent.wait_log(rf"the old configuration stays: {fifo}: is no plain file")
    assert agent.stop() == 0


@root
def test_sighup_without_anything_to_read_is_the_end(alone: netns.Namespace) -> None:
    assert Agent(alone, "lo").stop(signal.SIGHUP) == 0


@root
def test_sighup_under_nohup_is_nothing(alone: netns.Namespace) -> None:
    agent = Agent(alone, "-v", "lo", program=["nohup", *PKTVISORD])
    agent.send(signal.SIGHUP)
    assert agent.request("policies/default").status == 200
    assert agent.stop(signal.SIGTERM) == 0
    assert ("info", "stopping: SIGTERM") in agent.log


@root
def test_sighup_reopens_the_log(alone: netns.Namespace, tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    agent = Agent(alone, "--log-file", str(log), "lo", start=False)
    netns.until(lambda: log.exists() and "listening" in log.read_text())
    log.rename(tmp_path / "old.log")
    agent.send(signal.SIGHUP)
    netns.until(log.exists)
    agent.request("metrics/app")
    netns.until(lambda: "GET /api/v1/metrics/app" in log.read_text())
    assert agent.stop() == 0
    assert "exit with success" in log.read_text()
    assert (agent.program.stdout, agent.program.stderr) == ("", "")


# --- in the background, under a service manager ------------------------------------------------------------


@root
def test_daemon(alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "one")
    done = alone.run(
        *PKTVISORD,
        "-d",
        "--config",
        "agent.yaml",
        "--log-file",
        "agent.log",
        "--pid-file",
        "agent.pid",
        cwd=tmp_path,
    )
    assert done.stdout == ""
    pid = int((tmp_path / "agent.pid").read_text())
    assert done.stderr == f"pktvisord runs in the background, process {pid}\n"
    # it serves as soon as the command has returned
    shown = json.loads(alone.run("curl", "-s", "localhost:10853/api/v1/policies/one").stdout)
    assert list(shown) == ["one"]
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert [os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)] == ["/dev/null"] * 3  # noqa: PTH115
    path.write_text(path.read_text().replace('"one"', '"two"'))
    os.kill(pid, signal.SIGHUP)
    log = tmp_path / "agent.log"
    netns.until(lambda: "configuration reloaded" in log.read_text())
    assert "take effect at the next start" not in log.read_text()
    os.kill(pid, signal.SIGTERM)
    netns.until(
        lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    )
    assert log.read_text().endswith("[info] exit with success\n")
    assert not (tmp_path / "agent.pid").exists()


@root
def test_daemon_that_fails(alone: netns.Namespace, tmp_path: Path) -> None:
    """The parent says why, with the agent's exit code, and leaves nothing running."""
    for argv, named in (
        (["nope0"], "nope0"),
        (["-p", "70000", "lo"], "unable to bind to localhost:70000"),
        (["--tls", "--tls-cert", "/no/c", "--tls-key", "/no/k", "lo"], "/no/c"),
    ):
        done = alone.run(*PKTVISORD, "-d", "--pid-file", "agent.pid", *argv, check=False, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"pktvisord: .*{re.escape(named)}.*\n", done.stderr)
        assert not (tmp_path / "agent.pid").exists()
    pids = ["ip", "netns", "pids", alone.name]
    netns.until(lambda: subprocess.run(pids, capture_output=True, check=True).stdout == b"")


@root
def test_notifications(alone: netns.Namespace, tmp_path: Path) -> None:
    path = mock_config(tmp_path, "one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(netns.DEADLINE)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        agent = Agent(alone, "--config", str(path), "--user", "nobody", start=False, env=environment)
        assert server.recv(4096).decode().split("\n") == ["READY=1", f"MAINPID={agent.pid}"]
        assert agent.json("policies/one")
        agent.send(signal.SIGHUP)
        assert server.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert server.recv(4096).startswith(b"READY=1\n")
        agent.send(signal.SIGTERM)
        assert server.recv(4096) == b"STOPPING=1"
        assert agent.program.wait() == 0
        refused(alone, "nope0", env=environment)
        assert re.fullmatch(rb"STATUS=.*nope0.*", server.recv(4096))


@root
def test_full_disk_for_the_log(alone: netns.Namespace) -> None:
    agent = Agent(alone, "--log-file", "/dev/full", "lo", start=False)
    # the server is up although nothing can be logged
    netns.until(lambda: "log file /dev/full" in agent.program.stderr)
    netns.until(lambda: answers(agent))
    assert agent.stop() == 0
    assert agent.program.stderr == (
        "pktvisord: log file /dev/full: no space left on device, log lines are lost until this is better\n"
    )


def answers(agent: Agent) -> bool:
    try:
        return agent.request("metrics/app").status == 200
    except OSError:
        return False


@root
def test_standard_output_closed(alone: netns.Namespace) -> None:
    """Nobody reads the log any more: the agent goes on."""
    reader, writer = os.pipe()
    agent = Agent.__new__(Agent)
    process = subprocess.Popen(alone.command([*PKTVISORD, "lo"]), stdout=writer)
    try:
        os.close(writer)
        os.read(reader, 100)
        os.close(reader)
        agent.namespace, agent.port, agent.scheme = alone, 10853, "http"
        netns.until(lambda: answers(agent))
        assert answers(agent)
        process.terminate()
        assert process.wait(netns.DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


@root
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_closed_standard_streams(closed: str, alone: netns.Namespace, tmp_path: Path) -> None:
    """Their numbers must not become those of a file or a socket, into which log lines would then go."""
    script = f'exec "$@" {closed}'
    plain = [sys.executable, "-m", "netprobe.cli.pktvisord"]
    pid_file = tmp_path / "pid"
    agent = Agent(
        alone,
        *("--pid-file", str(pid_file), "lo"),
        program=["sh", "-c", script, "sh", *plain],
        start=False,
    )
    netns.until(lambda: answers(agent))
    assert pid_file.read_text() == f"{agent.pid}\n"
    missing = {"<&- >&- 2>&-": (0, 1, 2), ">&-": (1,), "2>&-": (2,)}[closed]
    for fd in missing:
        assert os.readlink(f"/proc/{agent.pid}/fd/{fd}") == "/dev/null"  # noqa: PTH115
    assert agent.stop() == 0
    done = alone.run("sh", "-c", script, "sh", *plain, "-d", "nope0", check=False)
    assert done.returncode == 1
    assert ("nope0" in done.stderr) == ("2>&-" not in closed)


@root
def test_pid_file_that_may_not_be_removed(alone: netns.Namespace, tmp_path: Path) -> None:
    """In a folder of root's, by another user: it is emptied."""
    tmp_path.chmod(0o755)
    pid_file = tmp_path / "pid"
    agent = Agent(alone, "--user", "nobody", "--pid-file", str(pid_file), "lo")
    assert pid_file.read_text() == f"{agent.pid}\n"
    assert agent.stop() == 0
    assert pid_file.read_text() == ""


@root
def test_several_agents(alone: netns.Namespace) -> None:
    agents = [Agent(alone, "-p", str(port), "lo", port=port) for port in (11001, 11002, 11003)]
    assert [agent.request("policies").status for agent in agents] == [200] * 3
    assert [agent.stop() for agent in agents] == [0] * 3


@root
@replay
def test_the_benchmark_runs(tmp_path: Path) -> None:
    """Every row, and what it counted adds up; nothing is judged by time here."""
    command = [sys.executable, str(ROOT / "benchmarks" / "agent.py"), "--smoke", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["ran"] * 5
    assert re.search(r"^drops while scraped +0 of 6,000 ", done.stdout, re.MULTILINE)


def test_program_text_is_thin() -> None:
    """cli/ only reads arguments: what runs is the library's business."""
    text = textwrap.dedent((ROOT / "cli" / "pktvisord.py").read_text().split('"""\n', 2)[2])
    assert len(text.splitlines()) < 90
