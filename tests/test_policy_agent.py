"""`netprobe.Agent`: policies inside a program."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import policy_fakes
import pytest
from netns import until

import netprobe
from netprobe.errors import ConfigError, ExistsError, InputError, NotFoundError, PeriodError
from netprobe.policy import running

TEXT = """
version: "1.0"
visor:
  config: {periods: 4, max_deep_sample: 70}
  taps:
    demo: {input_type: pcap, config: {pcap_source: mock, host_spec: 192.168.0.0/24}}
  policies:
    names:
      kind: collection
      input: {tap: demo, input_type: pcap}
      handlers:
        modules:
          volume: {type: net}
          asked: {type: dns}
"""


def seen(agent: netprobe.Agent) -> int:
    found: int = agent.window().to_dict()["4m"]["packets"]["total"]
    return found


def test_windows() -> None:
    with netprobe.Agent(TEXT) as agent:
        until(lambda: seen(agent) >= 5, "five packets")
        for period in ("4m", "4", 4, 0):
            whole = agent.window(period)
            assert whole.periods == 4
            assert whole.packets >= 5
            assert set(whole.to_dict()["4m"]) == {"packets", "dns"}
        assert set(agent.window("2m", policy="names").to_dict()) == {"2m"}
        one = agent.bucket(0)
        assert one.to_dict()["1m"]["dns"]["wire_packets"]["udp"] >= 5
        assert set(agent.window("1m").to_dict()) == {"1m"}
        assert 'policy="names"' in agent.prometheus()
        assert "5 packets" in repr(one) or "packets" in repr(one)
        assert "<details" in agent._repr_html_()
        assert "names" in repr(agent)
        deep = agent.policies["names"].to_dict()["modules"]["names-demo-volume"]["metrics"]
        assert (deep["deep_sample_rate"], deep["periods_configured"]) == (70, 4)
    # what was taken stays
    assert whole.to_dict()["4m"]["packets"]["total"] >= 5
    assert not agent.policies


def test_before_anything_has_come(captures: Path) -> None:
    """The thread that reads a file may start long after somebody has asked."""

    class Late(running.InputStream):
        def start(self) -> None:
            pass

    text = TEXT.replace("{pcap_source: mock,", f"{{pcap_file: {captures}/demo.pcap,")
    runtime = SimpleNamespace(InputStream=Late, HandlerSet=running.HandlerSet)
    with netprobe.Agent(text, runtime=runtime) as agent:
        for summary in (agent.bucket(0), agent.window()):
            assert summary.packets == 0
            assert list(summary.to_dict().values()) == [{}]


def test_a_summary_is_one_like_any_other() -> None:
    with netprobe.Agent(TEXT) as agent:
        until(lambda: seen(agent) >= 3, "three packets")
        first = agent.bucket(0)
    import pickle

    assert pickle.loads(pickle.dumps(first)).to_json() == first.to_json()
    twice = first.merge(first)
    assert twice.to_dict()["1m"]["packets"]["total"] == 2 * first.to_dict()["1m"]["packets"]["total"]
    assert "packets_total" in first.to_prometheus(job="x")


@pytest.mark.parametrize("period", [5, "5m", 11, "0x5", "m", "five", "-1", -1, "²m", ""])
def test_periods_that_do_not_exist(period: Any) -> None:
    with netprobe.Agent(TEXT, runtime=policy_fakes) as agent, pytest.raises(PeriodError, match=r"\w"):
        agent.window(period)


def test_buckets_that_do_not_exist() -> None:
    with netprobe.Agent(TEXT, runtime=policy_fakes) as agent:
        for number in (1, 4, -1):
            with pytest.raises(PeriodError):
                agent.bucket(number)


def test_policies_by_name() -> None:
    with netprobe.Agent(TEXT, iface="eth0", runtime=policy_fakes) as agent:
        assert agent.policy().name == "default"
        assert agent.policy("names").name == "names"
        with pytest.raises(NotFoundError, match=r"no policy 'other'; there is names, demo-.*, default"):
            agent.policy("other")
        agent.remove_policy("default")
        assert agent.policy().name == "names"
        agent.remove_policy("names")
        with pytest.raises(NotFoundError, match="there is none"):
            agent.window()
        assert "no policy" in repr(agent)
        assert "no policy" in agent._repr_html_()


def test_ways_to_give_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(TEXT)
    import yaml

    loaded = yaml.safe_load(TEXT)
    for config in (TEXT, path, str(path), loaded, json.dumps(loaded), "{visor: {}}"):
        with netprobe.Agent(config, runtime=policy_fakes) as agent:
            assert ("names" in agent.policies) == (config != "{visor: {}}")


def test_bad_configurations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither config nor iface"):
        netprobe.Agent()
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        netprobe.Agent(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        netprobe.Agent("visor: {}")
    path = tmp_path / "agent.yaml"
    path.write_text(TEXT.replace("type: net", "type: nets"))
    with pytest.raises(
        ConfigError, match=r"agent\.yaml:13: visor\.policies\.names\.handlers\.modules\.volume\.type"
    ):
        netprobe.Agent(path)
    with pytest.raises(ConfigError, match="periods"):
        netprobe.Agent(TEXT.replace("periods: 4", "periods: few"))
    with pytest.raises(InputError, match=r"no interface bad0"):
        netprobe.Agent(TEXT, iface="bad0", runtime=policy_fakes)
    assert not policy_fakes.InputStream.alive
    with pytest.raises(ConfigError, match=r"invalid CIDR: 10\.0\.0\.1"):
        netprobe.Agent(iface="eth0", hosts="10.0.0.1", runtime=policy_fakes)


def test_changes() -> None:
    with netprobe.Agent(TEXT, runtime=policy_fakes) as agent:
        assert agent.add_tap("visor: {taps: {t: {input_type: pcap, config: {iface: eth0}}}}") == "t"
        with pytest.raises(ExistsError):
            agent.add_tap({"visor": {"taps": {"t": {"input_type": "pcap"}}}})
        one = {
            "kind": "collection",
            "input": {"tap": "t", "input_type": "pcap"},
            "handlers": {"modules": {"m": {"type": "net"}}},
        }
        assert agent.add_policy({"visor": {"policies": {"p": one}}}) == "p"
        agent.remove_tap("t")
        before = agent.policies["names"]
        agent.reload(TEXT.replace("names:", "others:"))
        assert "others" in agent.policies
        assert "names" not in agent.policies
        assert "p" in agent.policies
        agent.reload(TEXT.replace("names:", "others:"))
        assert agent.policies["others"] is not before


def test_periods_and_sampling_of_the_call() -> None:
    with netprobe.Agent(TEXT, periods=2, max_deep_sample=10, runtime=policy_fakes) as agent:
        assert agent.policy().periods == 2
        assert agent.policy().parts[0].configs[0].deep_sample_rate == 10


def test_served() -> None:
    with netprobe.Agent(TEXT) as agent:
        url = agent.serve()
        assert agent.serve() == url
        until(lambda: seen(agent) >= 1, "a packet")
        with urllib.request.urlopen(f"{url}/api/v1/policies/names/metrics/window/2", timeout=20) as answer:
            body = json.load(answer)
        assert body["names"]["names-demo-volume"]["packets"]["total"] >= 1
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_a_port_that_is_taken() -> None:
    with (
        netprobe.Agent(TEXT, runtime=policy_fakes) as one,
        netprobe.Agent(TEXT, runtime=policy_fakes) as other,
    ):
        port = int(one.serve("127.0.0.1").rpartition(":")[2])
        with pytest.raises(netprobe.NetprobeError, match=f"unable to bind to 127.0.0.1:{port}"):
            other.serve("127.0.0.1", port)
        assert other.serve("127.0.0.1")


def test_what_others_do_not_load() -> None:
    """The library, and a summary, know nothing of the agent: its libraries are an extra."""
    code = (
        "import sys, netprobe; from netprobe.cli import pktvisor_pcap; netprobe.summarize;"
        "print([m for m in ('yaml', 'netprobe.policy', 'netprobe.agent', 'starlette') if m in sys.modules]);"
        "netprobe.Agent; print([m for m in ('starlette', 'uvicorn', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n[]\n"


def test_serving_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netprobe.agent.preload.EXTRA", ("no_such_package",))
    with (
        netprobe.Agent(iface="eth0", runtime=policy_fakes) as agent,
        pytest.raises(ConfigError, match=r"no_such_package is missing: pip install .netprobe-suite\[agent\]"),
    ):
        agent.serve()
