"""docs/configuration.md: its tables are those of the code, its examples load, and what they say happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import policy_fakes
import pytest

from netprobe.errors import ConfigError
from netprobe.handlers.config import WINDOW_KEYS
from netprobe.policy.config import TOP_KEYS, VISOR_KEYS
from netprobe.policy.doc import TABLES, render
from netprobe.policy.inputs import INPUT_TYPES, PCAP
from netprobe.policy.manager import Manager
from netprobe.policy.modules import HANDLERS_KEYS, MODULE_KEYS
from netprobe.policy.specs import CONFIG_KEYS, INPUT_KEYS, POLICY_KEYS
from netprobe.policy.taps import TAP_KEYS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
TEXT = PAGE.read_text()
YAML = [match[1] for match in re.finditer(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]

# agent spec 2.7, whose other inputs are not in this version
WORKED = {
    "resolver_clients": """
      kind: collection
      input: {tap: resolver, input_type: dnstap, filter: {only_hosts: [192.0.2.0/24]}}
      handlers:
        modules:
          asked: {type: dns, filter: {dnstap_msg_type: client}}
          load: {type: net}
""",
    "exporters": """
      kind: collection
      input: {tap: border, input_type: flow}
      handlers:
        modules:
          seen: {type: net, config: {}}
""",
    "latency": """
      kind: collection
      input:
        tap: reach
        input_type: netprobe
        config:
          targets:
            gateway: {target: 192.0.2.1}
            portal: {target: www.example.net}
      handlers:
        modules:
          probes: {type: net}
""",
}


@pytest.fixture
def manager() -> Iterator[Manager]:
    found = Manager(runtime=policy_fakes)
    yield found
    found.close()


def test_tables_are_up_to_date() -> None:
    hint = "run: python -m netprobe.policy.doc docs/configuration.md"
    assert render(TEXT) == TEXT, hint
    assert set(re.findall(r"<!-- table: (\w+) -->", TEXT)) == set(TABLES)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="'nothing'"):
        render("<!-- table: nothing -->\n<!-- end -->")


def test_every_key_is_explained() -> None:
    for key in (
        *TOP_KEYS,
        *VISOR_KEYS,
        *TAP_KEYS,
        *INPUT_TYPES,
        *(PCAP.config or {}),
        *POLICY_KEYS,
        *CONFIG_KEYS,
        *INPUT_KEYS,
        *HANDLERS_KEYS,
        *MODULE_KEYS,
        *WINDOW_KEYS,
    ):
        assert re.search(rf"`(?:\w+\.)*{key}(?:\.\w+)*`", TEXT), key


@pytest.mark.parametrize("number", range(len(YAML)))
def test_examples_load(manager: Manager, number: int, caplog: pytest.LogCaptureFixture) -> None:
    manager.load_file(YAML[number], "agent.yaml")
    # nothing in them is passed over
    assert not caplog.records


def test_first_example(manager: Manager) -> None:
    manager.load_file(YAML[0])
    assert list(manager.policies["traffic"].window_json(5)) == [
        "traffic-uplink-volume",
        "traffic-uplink-names",
    ]


def test_larger_example(manager: Manager) -> None:
    (text,) = [text for text in YAML if "edge_traffic" in text]
    manager.load_file(text)
    one = manager.policies["edge_traffic"]
    assert list(one.to_dict()["taps"]) == ["edge_a", "edge_b"]
    assert list(one.to_dict()["modules"]) == [
        "edge_traffic-edge_a-volume",
        "edge_traffic-edge_a-failures",
        "edge_traffic-edge_b-volume",
        "edge_traffic-edge_b-failures",
    ]
    assert set(one.window_json(5)) == {"packets_merged", "dns_merged"}
    (first, _) = one.to_dict()["input"].values()
    assert first["module"]["config"] == {
        "iface": "auto",
        "pcap_source": "libpcap",
        "host_spec": "198.51.100.0/24,2001:db8:10::/48",
        "bpf": "not arp",
        "tcp_packet_reassembly_cache_limit": 50000,
    }
    config = one.parts[0].configs[1]
    assert config.options["public_suffix_list"] is True
    assert config.options["only_rcode"] == (3,)
    assert config.topn_count == 25
    assert config.groups == config.table.default_groups - {"top_ports"} | {"top_ecs"}
    assert manager.policies["leases"].periods == 10
    # the settings of edge_b's input differ: three inputs
    assert len(manager.inputs) == 3


def test_the_error_that_is_shown(manager: Manager) -> None:
    text = YAML[0].replace("type: dns", "type: dns\n            filter: {only_rcode: 99}")
    (shown,) = re.findall(r"^    agent\.yaml:\d+: (.*) …$", TEXT, re.MULTILINE)
    with pytest.raises(ConfigError) as found:
        manager.load_file(text, "agent.yaml")
    assert shown in str(found.value)
    line = text.splitlines().index("            filter: {only_rcode: 99}") + 1
    assert f"agent.yaml:{line}: " in str(found.value)


@pytest.mark.parametrize("name", WORKED)
def test_inputs_of_later_versions(manager: Manager, name: str) -> None:
    """Agent spec 2.7: their taps can be made, their policies say what is missing."""
    taps = """
visor:
  taps:
    resolver: {input_type: dnstap, config: {socket: /run/resolver/tap.sock}}
    border: {input_type: flow, config: {flow_type: ipfix, bind: 0.0.0.0, port: 4739}}
    reach: {input_type: netprobe, config: {test_type: ping, interval_msec: 5000, timeout_msec: 1500}}
"""
    manager.load_file(taps)
    assert len(manager.taps) == 3
    assert manager.taps["border"].to_dict()["config"]["port"] == 4739
    with pytest.raises(
        ConfigError, match=rf"^policy \[{name}\] failed to start: .*not available in this version"
    ):
        manager.load_file(f"{taps}  policies:\n    {name}:{WORKED[name]}")
    assert not manager.policies
