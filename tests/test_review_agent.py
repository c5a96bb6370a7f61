"""What a reader of the agent's specification finds beyond what the other tests ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import netns
import policy_fakes
import pytest
import requests
from agent_fakes import running
from agentkit import CAPTURES

import netprobe
from netprobe.errors import ConfigError, ExistsError, InputError
from netprobe.policy.manager import Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    found = Manager(runtime=policy_fakes)
    found.add_default("eth0")
    yield found
    found.close()


def policy(modules: str = "{n: {type: net}}", bpf: str = "") -> str:
    return (
        "visor: {policies: {p: {kind: collection, input: {tap: default, input_type: pcap, "
        f"config: {{bpf: '{bpf}'}}}}, handlers: {{modules: {modules}}}}}}}}}"
    )


def test_a_name_twice_in_a_chain_is_taken(manager: Manager) -> None:
    """Agent spec 2.4.3: a collision of handler names is a conflict (409)."""
    with pytest.raises(ExistsError, match="'n' is taken already"):
        manager.add_policy(policy("[{n: {type: net}}, {n: {type: dns}}]"))
    assert "p" not in manager.policies


@pytest.mark.parametrize(
    "expression",
    [
        " or ".join(f"host 10.{n // 250}.{n % 250}.1" for n in range(5000)),
        " or ".join(f"portrange {n}-{n + 5}" for n in range(0, 1800, 10)),
        "not " * 60000 + "tcp",
    ],
    ids=["hosts", "ports", "nots"],
)
def test_a_filter_that_would_take_minutes_is_refused(expression: str, manager: Manager) -> None:
    """libpcap needs 30 s for 600 hosts and holds the interpreter all the while."""
    with pytest.raises(ConfigError, match=r"bpf: tap 'default': a filter of \d+ (characters|instructions), "):
        manager.add_policy(policy(bpf=expression))
    assert "p" not in manager.policies


def test_a_filter_of_many_hosts_is_taken(manager: Manager) -> None:
    manager.add_policy(policy(bpf=" or ".join(f"host 10.0.{n}.1" for n in range(200))))
    assert "p" in manager.policies


@pytest.mark.parametrize("length", [200, 201])
def test_names_are_not_endless(length: int, manager: Manager) -> None:
    """They stand in every sample, and in paths, whose length the web server limits."""
    name = "a" * length
    documents = {
        "tap": f"visor: {{taps: {{? {name} : {{input_type: pcap}}}}}}",
        "policy": policy().replace("{p:", f"{{? {name} :"),
        "handler": policy(f"{{? {name} : {{type: net}}}}").replace("{p:", "{q:"),
    }
    for what, document in documents.items():
        add = manager.add_tap if what == "tap" else manager.add_policy
        if length > 200:
            with pytest.raises(ConfigError, match=f"a name of 201 characters for a {what}, expected at most"):
                add(document)
        else:
            add(document)


def test_an_agent_whose_files_are_read_is_ready() -> None:
    """An input that has read its file to the end has not failed."""
    manager = Manager()
    try:
        manager.load_file(
            f"visor: {{taps: {{f: {{input_type: pcap, config: {{pcap_file: '{CAPTURES / 'demo.pcap'}'}}}}}}, "
            "policies: {p: {kind: collection, input: {tap: f, input_type: pcap}, "
            "handlers: {modules: {n: {type: net}}}}}}"
        )
        (source,) = manager.inputs.values()
        netns.until(lambda: not source.running)
        with running(manager) as server:
            answer = requests.get(server.url + "/readyz", timeout=20)
        assert (answer.status_code, answer.text) == (200, "ready\n")
    finally:
        manager.close()


def test_settings_of_the_resources_handler_are_not_checked(manager: Manager) -> None:
    """Agent spec, appendix B; 2.5: an unknown key of window_config is for validating handlers to refuse."""
    modules = "{r: {type: input_resources, config: {x: 1, num_periods: 3}, filter: {y: z}}}"
    manager.add_policy(policy(modules).replace("{modules:", "{window_config: {z: 1}, modules:"))
    shown = manager.policies["p"].to_dict()["modules"]["p-default-r"]["module"]["config"]
    assert shown == {"x": 1, "y": "z", "z": 1, "num_periods": 3}
    with pytest.raises(ConfigError, match=r"window_config\.z: unknown key"):
        manager.add_policy(
            policy("{n: {type: net}}")
            .replace("{modules:", "{window_config: {z: 1}, modules:")
            .replace("{p:", "{q:")
        )


def test_an_empty_path_says_so() -> None:
    with pytest.raises(ConfigError, match="path of the configuration is empty"):
        netprobe.Agent("")


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "stdin"])
def test_an_input_waits_for_no_file(kind: str, tmp_path: Path) -> None:
    """A FIFO that nobody writes would hold up every other change, and the end of the agent."""
    path = {"device": "/dev/zero", "stdin": "-"}.get(kind, str(tmp_path / kind))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        Path(path).mkdir()
    manager = Manager()
    try:
        with pytest.raises(InputError, match=r"policy \[p\] failed to start: .*expected .* capture"):
            manager.load_file(
                f"visor: {{taps: {{f: {{input_type: pcap, config: {{pcap_file: '{path}'}}}}}}, "
                "policies: {p: {kind: collection, input: {tap: f, input_type: pcap}, "
                "handlers: {modules: {n: {type: net}}}}}}"
            )
        assert not manager.policies
    finally:
        manager.close()
