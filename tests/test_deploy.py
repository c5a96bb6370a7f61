"""What docs/deploy ships works: the unit, the dashboard, telegraf's input, the remote-write bundle."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmdb_writer
import netns
import pytest
import yaml
from agentkit import CAPTURES, PKTVISORD, PORT, ROOT, Agent
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

DEPLOY = ROOT / "docs" / "deploy"
DEMO = CAPTURES / "demo.pcap"


# --- systemd -----------------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "pktvisord.service").read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_unit_gives_what_the_agent_needs_and_no_more() -> None:
    found = unit()
    assert found["Type"] == ["notify"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ["CAP_NET_RAW CAP_NET_ADMIN"]
    assert set(found["RestrictAddressFamilies"][0].split()) >= {"AF_PACKET", "AF_INET", "AF_INET6", "AF_UNIX"}
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    # two threads and five descriptors for each input: a thousand policies may have as many
    assert int(found["TasksMax"][0]) > 2 * 1000
    assert int(found["LimitNOFILE"][0]) > 5 * 1000


@pytest.mark.tool("systemd-analyze")
def test_unit_is_one(tmp_path: Path) -> None:
    """systemd reads every line of it, and calls it well protected."""
    text = (DEPLOY / "pktvisord.service").read_text()
    path = tmp_path / "pktvisord.service"
    path.write_text(text.replace("/usr/local/bin/pktvisord", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "pktvisord" in line] == []
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
    )
    exposure = re.search(r"Overall exposure level for pktvisord\.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) <= 2.5


@pytest.mark.root
@pytest.mark.tool("setpriv", "tcpreplay", "ethtool")
def test_agent_runs_as_the_unit_runs_it() -> None:
    """Another user from the start, with two ambient capabilities and no_new_privs."""
    given = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]
    given += ["--inh-caps=+net_raw,+net_admin", "--ambient-caps=+net_raw,+net_admin"]
    given += ["--bounding-set=-all,+net_raw,+net_admin"]
    if not readable_by_all():
        pytest.skip("missing: a Python that other users may read")
    with netns.pair() as (sender, receiver):
        agent = Agent(receiver, receiver.iface, program=[*given, *PKTVISORD])
        sender.replay(DEMO)
        assert agent.wait_total(408) == 408
        assert agent.status()["CapAmb"] == "0" * 16
        assert agent.stop() == 0


def syscalls(names: str) -> set[str]:
    """System calls by name or systemd's groups."""
    found = set()
    for name in names.split():
        if not name.startswith("@"):
            found.add(name)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
        ).stdout
        for line in listed.splitlines()[1:]:
            if line.strip() and not line.strip().startswith("#"):
                found |= syscalls(line.strip())
    return found


@pytest.mark.root
@pytest.mark.tool("strace", "systemd-analyze", "tcpreplay", "ethtool")
def test_agent_asks_the_kernel_for_nothing_that_the_unit_forbids(tmp_path: Path) -> None:
    """Its system calls, address families and mappings from start to end, as strace sees them."""
    rules = unit()
    allowed: set[str] = set()
    for line in rules["SystemCallFilter"]:
        allowed = allowed - syscalls(line[1:]) if line.startswith("~") else allowed | syscalls(line)
    seen = tmp_path / "calls"
    with netns.pair() as (sender, receiver):
        trace = ["strace", "-f", "-qq", "-o", str(seen), *PKTVISORD]
        agent = Agent(receiver, "--admin-api", receiver.iface, program=trace, start=False)
        agent.wait_log("listening")
        sender.replay(DEMO)
        agent.wait_total(408)
        assert agent.request("policies/__all/metrics/prometheus").status == 200
        assert agent.request("server", "DELETE").status == 200
        assert agent.program.wait() == 0
    text = seen.read_text()
    used = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))
    assert {"capset", "prctl", "socket", "mmap"} <= used
    assert used - allowed == set()
    families = set(re.findall(r"\bsocket\((AF_\w+)", text))
    assert families <= set(rules["RestrictAddressFamilies"][0].split())
    assert rules["MemoryDenyWriteExecute"] == ["yes"]
    assert not re.search(r"PROT_WRITE\|PROT_EXEC", text)


def readable_by_all() -> bool:
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *PKTVISORD, "--version"]
    return subprocess.run(command, capture_output=True).returncode == 0


# --- Prometheus and Grafana --------------------------------------------------------------------------------


def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_dashboard", DEPLOY / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return found


def test_dashboard_is_what_its_source_makes() -> None:
    assert (DEPLOY / "grafana-dashboard.json").read_text() == maker().text()


#: agent spec 6.2: row -> (title, kind of panel, metrics)
PANELS = """
Network | L3 Protocols | piechart | packets_ipv4 packets_ipv6
Network | L4 Protocols | piechart | packets_tcp packets_udp packets_other_l4
Network | Deep Inspection | gauge | packets_deep_samples packets_total
Network | Avg Rate p95 | gauge | packets_rates_pps_total
Network | Packet In/Out | timeseries | packets_rates_pps_in packets_rates_pps_out
Network | L3/L4 Protocols | timeseries | packets_ipv4 packets_ipv6 packets_tcp packets_udp packets_other_l4
Network | Top Geo IP/ASN | timeseries | packets_top_geoLoc packets_top_ASN
Network | Top IPv4 | table | packets_top_ipv4
Network | Top Geo | table | packets_top_geoLoc
Network | Top IPs | timeseries | packets_top_ipv4 packets_top_ipv6
Network | Top IPv6 | table | packets_top_ipv6
Network | Top ASN | table | packets_top_ASN
DNS | Deep Inspection | gauge | dns_wire_packets_deep_samples dns_wire_packets_total
DNS | Avg Rate p95 | gauge | dns_rates_total
DNS | QTypes | piechart | dns_top_qtype
DNS | Result Codes | piechart | dns_top_rcode
DNS | DNS Packets (In+Out) | timeseries | dns_rates_total
DNS | DNS Protocols | timeseries | dns_wire_packets_{ipv4,ipv6,tcp,udp}
DNS | DNS Transactions | timeseries | dns_xact_in_total dns_xact_out_total
DNS | DNS Errors | timeseries | dns_wire_packets_{nxdomain,srvfail,refused}
DNS | Top DNS Names | timeseries | dns_top_qname2 dns_top_qname3
DNS | Top QName2 | table | dns_top_qname2
DNS | Top QName3 | table | dns_top_qname3
DNS | Top DNS RCodes | timeseries | dns_top_rcode
DNS | Top RCodes | table | dns_top_rcode
DNS | Top QTypes | table | dns_top_qtype
DNS | DNS Transaction | timeseries | dns_xact_in_quantiles_us dns_xact_out_quantiles_us
DNS | Top DNS QTypes | timeseries | dns_top_qtype
DNS | Top DNS Ports | timeseries | dns_top_udp_ports
"""


def test_dashboard_has_the_panels() -> None:
    found = []
    row = ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        expressions = [target["expr"] for target in panel["targets"]]
        assert all('instance=~"$instance"' in expression for expression in expressions)
        metrics = dict.fromkeys(
            name
            for expression in expressions
            for name in re.findall(r"\b((?:packets|dns)_\w+)\{", expression)
        )
        found.append(f"{row} | {panel['title']} | {panel['type']} | {' '.join(metrics)}")
    assert found == [spelled_out(line) for line in PANELS.strip().splitlines()]
    assert dashboard()["title"] == "pktvisor - Prometheus"
    assert dashboard()["refresh"] == "1m"


def spelled_out(line: str) -> str:
    """`a_{b,c}` as `a_b a_c`."""
    return re.sub(r"(\w+)\{([\w,]+)\}", lambda m: " ".join(f"{m[1]}{name}" for name in m[2].split(",")), line)


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def lookups(path: Path) -> Path:
    """A capture in which the host asks and is asked, and gets and gives answers."""
    frames = []
    for number in range(20):
        for client, server in (("192.0.2.1", "198.51.100.7"), ("203.0.113.5", "192.0.2.1")):
            port = 30000 + number
            question = DNSQR(qname=f"www{number}.example.test")
            query = DNS(id=number, qd=question)
            frames.append(Ether() / IP(src=client, dst=server) / UDP(sport=port, dport=53) / query)
            answer = DNS(
                id=number, qr=1, qd=question, an=DNSRR(rrname=question.qname, type="A", rdata="192.0.2.99")
            )
            frames.append(Ether() / IP(src=server, dst=client) / UDP(sport=53, dport=port) / answer)
    wrpcap(str(path), frames)
    return path


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[tuple[netns.End, Agent]]:
    """An agent that has seen some of everything."""
    place = {"continent": {"code": "EU"}, "city": {"names": {"en": "Linköping"}}}
    networks = ("10.77.0.0/24", "198.51.100.0/24", "fd77::/64")
    (tmp_path / "city.mmdb").write_bytes(mmdb_writer.build(dict.fromkeys(networks, place)))
    number = {"autonomous_system_number": 64500}
    (tmp_path / "asn.mmdb").write_bytes(mmdb_writer.build(dict.fromkeys(networks, number), kind="Test-ASN"))
    with netns.pair() as (sender, receiver):
        agent = Agent(
            receiver,
            *("--geo-city", "city.mmdb", "--geo-asn", "asn.mmdb", "--prom-instance", "edge7"),
            *("-H", "10.77.0.2/32,fd77::2/128,192.0.2.1/32", receiver.iface),
            cwd=tmp_path,
        )
        sent = sender.replay(DEMO) + sender.replay(lookups(tmp_path / "lookups.pcap"), "--pps=200")
        agent.wait_total(sent)
        yield receiver, agent


def prometheus(namespace: netns.Namespace, folder: Path, config: dict[str, Any], *flags: str) -> int:
    """Start one; its port."""
    port = 9090 + len(namespace.programs)
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    program = namespace.popen(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    )
    program.wait_for("Server is ready to receive web requests")
    return port


def ask(namespace: netns.Namespace, port: int, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    reply = json.loads(namespace.run("curl", "-s", f"http://127.0.0.1:{port}/api/v1/query?{query}").stdout)
    assert reply["status"] == "success", (expression, reply)
    found: list[dict[str, Any]] = reply["data"]["result"]
    return found


@pytest.mark.root
@pytest.mark.tool("prometheus", "curl", "tcpreplay", "ethtool")
def test_dashboard_over_a_real_prometheus(scraped: tuple[netns.End, Agent], tmp_path: Path) -> None:
    """Each expression of each panel gives something, for the chosen agent and for all."""
    namespace, agent = scraped
    # the quantiles of rates begin with the first whole second
    netns.until(lambda: 'packets_rates_pps_in{instance="edge7"' in agent.metrics())
    job = {
        "job_name": "pktvisor",
        "scrape_interval": "1s",
        "honor_labels": True,
        "static_configs": [{"targets": [f"localhost:{PORT}"]}],
    }
    port = prometheus(namespace, tmp_path / "prometheus", {"scrape_configs": [job]})
    netns.until(
        lambda: ask(namespace, port, 'packets_rates_pps_in{instance="edge7"}'), "Prometheus has scraped"
    )
    expressions = {target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])}
    assert len(expressions) > 40
    for expression in expressions:
        for instance in (".*", "edge7"):
            found = ask(namespace, port, expression.replace("$instance", instance))
            assert found, expression
            assert all(float(one["value"][1]) >= 0 for one in found), (expression, found)
        assert ask(namespace, port, expression.replace("$instance", "other")) == []
    # and what is shown is what was sent: 408 frames of the demo, 80 of the look-ups
    (total,) = ask(namespace, port, 'sum(packets_total{instance=~"edge7"})')
    assert total["value"][1] == "488"
    legends = ask(namespace, port, 'topk(10, sum by (ipv4) (packets_top_ipv4{instance=~".*"}))')
    assert {"10.77.0.1", "198.51.100.7"} <= {one["metric"]["ipv4"] for one in legends}


# --- telegraf ----------------------------------------------------------------------------------------------


def flattened(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """As telegraf's JSON parser does it: keys and indexes joined by _."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flattened(inner, f"{path}_{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from flattened(inner, f"{path}_{index}")
    else:
        yield path, value


@pytest.mark.root
@pytest.mark.tool("faketime", "tcpreplay", "ethtool")
def test_telegraf_input() -> None:
    """What telegraf would read once a minute: the last complete one, stamped with its beginning."""
    (config,) = tomllib.loads((DEPLOY / "telegraf.conf").read_text())["inputs"]["http"]
    (url,) = config["urls"]
    assert url == f"http://127.0.0.1:{PORT}/api/v1/metrics/bucket/1"
    assert (config["data_format"], config["json_time_format"]) == ("json", "unix")
    assert config["tags"] == {"t": "pktvisor", "interval": "60"}
    with netns.pair() as (sender, receiver):
        fast = ["faketime", "-f", "+0 x30", *PKTVISORD]
        agent = Agent(receiver, "-l", "127.0.0.1", receiver.iface, program=fast)
        sender.replay(DEMO)
        path = urllib.parse.urlsplit(url).path
        netns.until(lambda: agent.request(path).status == 200)
        document = agent.request(path).json
        began = agent.json("policies/default")["default"]["modules"]["default-default-net"]["metrics"][
            "periods"
        ]
    fields = dict(flattened(document[config["json_query"]]))
    stamp = fields[config["json_time_key"]]
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(stamp)) in [one["start_tstamp"] for one in began]
    assert fields["packets_total"] == 408
    assert fields["dns_top_qname2_0_name"] == ".example.test"
    kept = [prefix.removesuffix("*") for prefix in config["json_string_fields"]]
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    assert texts
    assert all(name.startswith(tuple(kept)) for name in texts)


# --- remote write ------------------------------------------------------------------------------------------

#: bcrypt of `s3cret: 'quoted'`
HASH = "$2b$05$abcdefghijklmnopqrstuuNBfrlmzCz6i0t7BnNvIeEVWACdQZyE."


def bundle(namespace: netns.Namespace, folder: Path, **variables: str) -> netns.Program:
    """The start script; `pktvisord` and `prometheus` are stand-ins that call the real ones.

    The scraper's minute becomes a second here, all else is as the script says.
    """
    tools = folder / "bin"
    tools.mkdir()
    (tools / "pktvisord").write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >"$STATE/arguments"\nexec '
        + " ".join(map(quoted, PKTVISORD))
        + ' "$@"\n'
    )
    (tools / "prometheus").write_text(
        '#!/bin/sh\ncp "$STATE/agent.yaml" "$STATE/as-written.yaml"\n'
        "sed -i 's/: 1m$/: 1s/; s/scrape_timeout: 5s/scrape_timeout: 1s/' \"$STATE/agent.yaml\"\n"
        f'exec {shutil.which("prometheus")} "$@"\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("USERNAME", "PASSWORD")},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "STATE": str(folder / "state"),
        **variables,
    }
    return namespace.popen(str(DEPLOY / "remote-write" / "start.sh"), env=environment)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.mark.root
@pytest.mark.tool("prometheus", "curl", "tcpreplay", "ethtool")
def test_remote_write_bundle(tmp_path: Path) -> None:
    password = "s3cret: 'quoted'"
    with netns.pair() as (sender, receiver):
        (tmp_path / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"me": HASH}}))
        port = prometheus(
            receiver,
            tmp_path / "receiver",
            {},
            "--web.enable-remote-write-receiver",
            f"--web.config.file={tmp_path / 'web.yml'}",
        )

        def ask_receiver(expression: str) -> list[Any]:
            query = urllib.parse.urlencode({"query": expression})
            url = f"http://127.0.0.1:{port}/api/v1/query?{query}"
            reply = receiver.run("curl", "-s", "-u", f"me:{password}", url).stdout
            result: list[Any] = json.loads(reply)["data"]["result"]
            return result

        started = bundle(
            receiver,
            tmp_path,
            PKTVISORD_ARGS=f"-b; udp port 53; --prom-instance;edge7; {receiver.iface}",
            REMOTE_URL=f"http://127.0.0.1:{port}/api/v1/write",
            USERNAME="me",
            PASSWORD=password,
        )
        started.wait_for("web server listening")
        assert (tmp_path / "state" / "arguments").read_text().splitlines() == [
            *("--prometheus", "-b", "udp port 53", "--prom-instance", "edge7", receiver.iface)
        ]
        sender.replay(DEMO)
        wanted = 'dns_wire_packets_udp{instance="edge7",policy="default"} > 0'
        try:
            (found,) = netns.until(lambda: ask_receiver(wanted), "pushed metrics arrive")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{started.stdout}\n{started.stderr}") from None
        assert found["metric"]["job"] == "pktvisor"
        netns.until(lambda: ask_receiver('up{job="prometheus_agent"} == 1'))
        assert started.stop() == 0
    written = yaml.safe_load((tmp_path / "state" / "as-written.yaml").read_text())
    assert written["global"] == {"scrape_interval": "1m"}
    own, agent = written["scrape_configs"]
    assert own["static_configs"] == [{"targets": ["127.0.0.1:20853"]}]
    assert agent == {
        "job_name": "pktvisor",
        "metrics_path": "/metrics",
        "scheme": "http",
        "scrape_interval": "1m",
        "scrape_timeout": "5s",
        "honor_timestamps": True,
        "honor_labels": True,
        "static_configs": [{"targets": ["localhost:10853"]}],
    }
    (target,) = written["remote_write"]
    assert target["basic_auth"] == {"username": "me", "password": password}
    assert (tmp_path / "state" / "agent.yaml").stat().st_mode & 0o077 == 0


@pytest.mark.root
@pytest.mark.tool("prometheus")
def test_remote_write_bundle_that_cannot_start(tmp_path: Path) -> None:
    with netns.Namespace("bundle") as namespace:
        started = bundle(namespace, tmp_path)
        assert started.wait() == 1
        assert started.stderr == (
            "start.sh: REMOTE_URL: not set, expected the URL of a remote-write receiver\n"
        )
        shutil.rmtree(tmp_path / "bin")
        started = bundle(namespace, tmp_path, REMOTE_URL="http://127.0.0.1:1/", PKTVISORD_ARGS="-v nope0")
        assert started.wait() == 1
        assert "nope0" in started.stdout
        assert "one of the two has ended" in started.stderr
        written = yaml.safe_load((tmp_path / "state" / "as-written.yaml").read_text())
        assert written["remote_write"][0]["basic_auth"] == {"username": "", "password": ""}


# --- containers --------------------------------------------------------------------------------------------


def test_entry_of_the_container(tmp_path: Path) -> None:
    for name in ("pktvisord", "pktvisor-cli", "pktvisor-reader", "pktvisor-pcap", "kprobe"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)

    def entry(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        environment |= {"GEO": str(tmp_path), "IANA": str(tmp_path)}
        return subprocess.run(
            [str(DEPLOY / "entry.sh"), *argv], capture_output=True, text=True, env=environment
        )

    assert entry("pktvisord", "-v", "eth0").stdout == "pktvisord -v eth0\n"
    (tmp_path / "city.mmdb").touch()
    (tmp_path / "custom-iana.csv").touch()
    shown = f"--default-service-registry {tmp_path}/custom-iana.csv --default-geo-city {tmp_path}/city.mmdb"
    assert entry("pktvisord", "eth0").stdout == f"pktvisord {shown} eth0\n"
    # one that the caller names stands alone: the agent refuses a flag that is given twice
    own = ["--default-geo-city", "/my own.mmdb", "--default-service-registry=/mine.csv", "eth0"]
    assert entry("pktvisord", *own).stdout == f"pktvisord {' '.join(own)}\n"
    assert entry("pktvisor", "-p", "1").stdout == "pktvisor-cli -p 1\n"
    assert entry("pktvisor-pcap", "a b").stdout == "pktvisor-pcap a b\n"
    for argv in ((), ("sh", "-c", "true")):
        done = entry(*argv)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("usage: pktvisord | ")


@pytest.mark.parametrize("path", ["Dockerfile", "remote-write/Dockerfile"])
def test_container_files_copy_what_is_there(path: str) -> None:
    text = (DEPLOY / path).read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source).exists(), source
