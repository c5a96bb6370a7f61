"""Taps, policies and inputs at work, without packets: acceptance cases of agent spec 8 that concern them.

Inputs and handlers are fakes (policy_fakes); test_policy_running has the real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import policy_fakes
import pytest
import yaml

from netprobe.errors import ConfigError, ExistsError, NetprobeError, NotFoundError, PeriodError
from netprobe.metrics import render_prometheus
from netprobe.policy.manager import Manager
from netprobe.policy.policies import Policy

NET = {"type": "net"}


@pytest.fixture
def manager() -> Iterator[Manager]:
    policy_fakes.InputStream.alive.clear()
    found = Manager(runtime=policy_fakes)
    yield found
    found.close()
    assert not policy_fakes.InputStream.alive


@pytest.fixture
def agent(manager: Manager) -> Manager:
    """`pktvisord eth0`."""
    manager.add_default("eth0")
    return manager


def tap(name: str = "wired", input_type: str = "pcap", tags: Any = None, **config: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"input_type": input_type}
    if config:
        body["config"] = config
    if tags is not None:
        body["tags"] = tags
    return {"version": "1.0", "visor": {"taps": {name: body}}}


def policy(
    name: str = "p", modules: Any = None, window: Any = None, merge: bool = False, **input_: Any
) -> dict[str, Any]:
    """On the tap `default` unless something else is said."""
    if "tap_selector" not in input_:
        input_.setdefault("tap", "default")
    handlers: dict[str, Any] = {"modules": {"a": NET} if modules is None else modules}
    if window is not None:
        handlers["window_config"] = window
    body: dict[str, Any] = {
        "kind": "collection",
        "input": {"input_type": "pcap", **input_},
        "handlers": handlers,
    }
    if merge:
        body["config"] = {"merge_like_handlers": True}
    return {"version": "1.0", "visor": {"policies": {name: body}}}


def running(manager: Manager) -> list[str]:
    """Policies whose first input runs, as the behave steps ask."""
    found = []
    for name, one in manager.policies.items():
        first = next(iter(one.to_dict()["input"].values()))
        if first["input"]["running"]:
            found.append(name)
    return found


def resources(manager: Manager) -> list[str]:
    return [name for name in manager.policies if name.endswith("-resources")]


def stream(manager: Manager, start: str) -> policy_fakes.InputStream:
    """The one input whose name begins so."""
    found: list[Any] = [one for name, one in manager.inputs.items() if name.startswith(start)]
    assert len(found) == 1
    return found[0]


# --- the default policy ---


def test_default_policy(agent: Manager) -> None:
    """B-01 and agent spec 1.1.1."""
    assert len(running(agent)) == 2
    assert next(iter(agent.policies)) == "default"
    one = agent.policies["default"]
    assert one.origin == "cli"
    assert [window.table.key for window in one.bucket(0)] == ["packets", "dhcp", "dns", "pcap"]
    assert list(one.to_dict()["modules"]) == [
        "default-default-net",
        "default-default-dhcp",
        "default-default-dns",
        "default-default-pcap_stats",
    ]
    for n in (2, 3, 4, 5):
        assert set(one.window_json(n)) == set(one.to_dict()["modules"])
    (name,) = resources(agent)
    assert list(agent.policies[name].bucket_json(0)) == [name]
    assert list(agent.policies[name].bucket_json(0)[name]) == ["input_resources"]


def test_default_tap(agent: Manager) -> None:
    """B-15."""
    assert {name: one.to_dict() for name, one in agent.taps.items()} == {
        "default": {
            "input_type": "pcap",
            "interface": "visor.module.input/1.0",
            "config": {"iface": "eth0", "host_spec": ""},
            "tags": None,
        }
    }


def test_default_window(manager: Manager) -> None:
    """--periods and --max-deep-sample are the window configuration of the default policy, within limits."""
    for given, rate, periods, effective in ((3, 40, 3, 40), (0, 0, 1, 1), (99, 102, 10, 100)):
        found = Manager(runtime=policy_fakes, periods=given, max_deep_sample=rate)
        found.add_default("eth0")
        assert found.policies["default"].periods == periods
        shown = found.policies["default"].to_dict()["modules"]["default-default-net"]["metrics"]
        assert (shown["periods_configured"], shown["deep_sample_rate"]) == (periods, effective)
        found.close()


@pytest.mark.parametrize("text", ['a "quoted" thing', "port 53", "7", "true", "a: b", "# no comment", "{"])
def test_default_filter_is_taken_as_it_is(manager: Manager, text: str) -> None:
    """Upstream pastes it into YAML, where a quote breaks it."""
    manager.add_default("7", text, "10.0.0.0/8")
    config = stream(manager, "default-").config
    assert config == {"iface": "7", "host_spec": "10.0.0.0/8", "bpf": text}


def test_default_that_fails_leaves_nothing(manager: Manager) -> None:
    with pytest.raises(NetprobeError, match="bad0"):
        manager.add_default("bad0")
    with pytest.raises(ConfigError, match=r"invalid CIDR: 10\.0\.0\.0"):
        manager.add_default("eth0", "", "10.0.0.0")
    assert not manager.taps
    assert not manager.policies
    manager.add_default("eth0")


def test_default_twice(agent: Manager) -> None:
    """A configuration that has a `default` too cannot start."""
    with pytest.raises(
        ExistsError, match=r"visor\.taps\.default: the name exists already \(made by the command line\)"
    ):
        agent.load_file(tap("default"))
    with pytest.raises(ExistsError, match=r"visor\.policies\.default: the name exists already"):
        agent.load_file(policy("default"))
    with pytest.raises(ExistsError, match="'default' exists already"):
        agent.add_default("eth1")
    assert len(running(agent)) == 2


# --- inputs ---


def test_another_input_for_another_config(agent: Manager) -> None:
    """B-04: the default policy has an explicit empty filter, the other one none."""
    modules = {name: {"type": name} for name in ("net", "dhcp", "dns", "pcap")}
    assert agent.add_policy(policy("p", modules)) == "p"
    assert len(running(agent)) == 4
    assert len(resources(agent)) == 2


@pytest.mark.parametrize("type_", ["net", "dhcp", "dns", "pcap"])
def test_one_handler(agent: Manager, type_: str) -> None:
    """B-05."""
    agent.add_policy(policy("p", {"one": {"type": type_}}))
    assert len(running(agent)) == 4


def test_shared_input(agent: Manager) -> None:
    """U-16: same tap, same settings, in whatever order: one input."""
    agent.add_tap(tap(iface="eth1", bpf="udp"))
    agent.add_policy(policy("p1", tap="wired", config={"debug": True, "host_spec": "10.0.0.0/8"}))
    one = stream(agent, "wired-")
    agent.add_policy(policy("p2", tap="wired", config={"host_spec": "10.0.0.0/8", "debug": True}))
    assert stream(agent, "wired-") is one
    assert one.starts == 1
    assert one.consumers == 3
    for name in ("p1", "p2"):
        assert list(agent.policies[name].to_dict()["input"]) == [one.name]
    # the policy's settings win, key by key
    agent.add_policy(policy("p3", tap="wired", config={"bpf": "tcp"}))
    names = [name for name in agent.inputs if name.startswith("wired-")]
    assert len(names) == 2
    assert agent.policies["p3"].to_dict()["input"][names[1]]["module"]["config"] == {
        "iface": "eth1",
        "bpf": "tcp",
    }
    assert all(name.removeprefix("wired-").isalnum() for name in names)


def test_filter_is_part_of_the_identity(agent: Manager) -> None:
    agent.add_policy(policy("p1", filter={"bpf": "udp"}))
    agent.add_policy(policy("p2", filter={"bpf": "tcp"}))
    agent.add_policy(policy("p3", config={"bpf": "tcp"}, filter={"bpf": "udp"}))
    inputs = [list(agent.policies[name].inputs) for name in ("p1", "p2", "p3")]
    assert inputs[0] == inputs[2] != inputs[1]
    assert agent.policies["p1"].parts[0].input.config["bpf"] == "udp"


def test_names_do_not_depend_on_the_process() -> None:
    """An identity that changes from start to start would break dashboards."""
    names = []
    for _ in range(2):
        manager = Manager(runtime=policy_fakes)
        manager.add_default("eth0")
        names.append(list(manager.inputs))
        manager.close()
    assert names[0] == names[1]


def test_removal_of_the_last_user(agent: Manager) -> None:
    """B-07."""
    agent.remove_policy("default")
    assert not running(agent)
    assert not agent.policies
    assert not agent.inputs
    assert not policy_fakes.InputStream.alive
    with pytest.raises(NotFoundError, match=r"^policy does not exists$"):
        agent.remove_policy("default")


def test_removals(agent: Manager) -> None:
    """B-08 to B-11."""
    agent.add_policy(policy("p"))
    for name in ("default", "p"):
        agent.remove_policy(name)
    assert not agent.policies
    agent.add_policy(policy("p"))
    agent.add_policy(policy("q", config={"bpf": ""}))
    agent.remove_policy("p")
    assert len(running(agent)) == 2
    # resources policies go alone
    (name,) = resources(agent)
    agent.remove_policy(name)
    assert running(agent) == ["q"]
    assert stream(agent, "default-").consumers == 1
    agent.remove_policy("q")
    assert not agent.inputs


def test_resources_removals(agent: Manager) -> None:
    """B-11."""
    agent.add_policy(policy("p"))
    for left in (3, 2):
        agent.remove_policy(resources(agent)[0])
        assert len(running(agent)) == left


def test_the_name_of_a_resources_policy_may_be_taken_over(agent: Manager) -> None:
    agent.add_policy(policy("p"))
    (name,) = [name for name in resources(agent) if name != resources(agent)[0]]
    agent.remove_policy(name)
    agent.add_policy(policy(name, filter={"bpf": "udp"}))
    agent.remove_policy("p")
    assert agent.policies[name].running
    assert len(agent.inputs) == 2


def test_an_input_outlives_one_of_its_users(agent: Manager) -> None:
    agent.add_policy(policy("p1"))
    agent.add_policy(policy("p2"))
    one = agent.policies["p1"].parts[0].input.stream
    agent.remove_policy("p1")
    assert one.running
    assert one.consumers == 2
    agent.remove_policy("p2")
    assert not one.running
    assert one.consumers == 0


def test_a_removed_policy_can_still_be_read(agent: Manager) -> None:
    """U-14: its handlers run no more."""
    one = agent.policies["default"]
    before = one.bucket_json(0)
    agent.remove_policy("default")
    assert one.bucket_json(0) == before
    assert not one.running
    assert not any(module["module"]["running"] for module in one.to_dict()["modules"].values())


@pytest.mark.parametrize("modules", [{"a": NET}, [{"a": NET}]])
def test_remove_and_load_again(agent: Manager, modules: Any) -> None:
    """U-15."""
    for _ in range(3):
        agent.add_policy(policy("p", modules))
        assert agent.policies["p"].to_dict()["modules"]["p-default-a"]["module"]["running"]
        agent.remove_policy("p")


def test_consumers_are_all_of_them(agent: Manager) -> None:
    """C-23: two filters on one input."""
    agent.add_policy(policy("p1"))
    agent.add_policy(policy("p2"))
    (shown,) = agent.policies["p1"].to_dict()["input"].values()
    assert shown["input"]["consumers"] == 3


# --- taps ---


def test_tap_types(manager: Manager) -> None:
    """U-01: quoting does not count, except where text is expected."""
    text = """
    visor:
      taps:
        t:
          input_type: pcap
          config:
            {a: 7, b: "8", c: true, d: FALSE, e: "true", f: -1, g: 1.5, h: yes, i: x, j: [1, true, z],
             iface: "9"}
          tags: {n: 007, q: "4", t: True, s: lab, m: {x: 1}, iface: "9"}
    """
    manager.add_tap(text)
    shown = manager.taps["t"].to_dict()
    assert shown["config"] == {
        "a": 7, "b": 8, "c": True, "d": False, "e": True, "f": "-1", "g": "1.5", "h": "yes", "i": "x",
        "j": ["1", "true", "z"], "iface": "9",
    }  # fmt: skip
    assert shown["tags"] == {"n": 7, "q": 4, "t": True, "s": "lab", "m": {"x": 1}, "iface": 9}


def test_tap_again(manager: Manager) -> None:
    """U-02, B-16 to B-18."""
    for tags in (None, {"a": 1}, {"a": "b", "c": "d", "e": "f"}):
        assert manager.add_tap(tap(tags=tags)) == "wired"
        assert manager.taps["wired"].to_dict()["tags"] == tags
        manager.remove_tap("wired")
        assert "wired" not in manager.taps


def test_a_policy_outlives_its_tap(agent: Manager) -> None:
    one = agent.policies["default"]
    agent.remove_tap("default")
    assert one.running
    assert one.to_dict()["taps"] == {}
    # another tap of the name is another tap
    agent.add_tap(tap("default", iface="eth9"))
    assert one.to_dict()["taps"] == {}
    with pytest.raises(NotFoundError):
        agent.remove_tap("gone")


def test_json_bodies(agent: Manager) -> None:
    import json

    assert agent.add_tap(json.dumps(tap(tags={"a": "\U0001f600", "b": 'x"\t'})).encode()) == "wired"
    assert agent.taps["wired"].tags == {"a": "\U0001f600", "b": 'x"\t'}
    assert agent.add_policy(json.dumps(policy("p"), indent="\t")) == "p"


# --- selectors ---


@pytest.fixture
def tagged(agent: Manager) -> Manager:
    agent.add_tap(tap("one", tags={"site": "lab", "rack": 4, "edge": True}, iface="eth1"))
    agent.add_tap(tap("two", tags={"site": "lab", "rack": 9}, iface="eth2"))
    agent.add_tap(tap("three", tags={"site": "hall", "rack": 9, "edge": True}, iface="eth3"))
    return agent


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({"any": [{"site": "lab"}, {"unknown": "x"}]}, ["one", "two"]),  # B-19, B-21
        ({"all": [{"rack": 4}]}, ["one"]),  # B-20
        ({"all": [{"site": "lab"}, {"rack": 4}, {"edge": True}]}, ["one"]),  # U-09
        ({"any": [{"rack": 4}, {"rack": 9}]}, ["one", "two", "three"]),  # U-10
        ({"any": [{"rack": "4"}]}, ["one"]),  # quoted digits are a number
        ({"all": [{"edge": "TRUE"}, {"rack": 9}]}, ["three"]),
        ({"any": [{"edge": True}, {"site": "nowhere"}]}, ["one", "three"]),
    ],
)
def test_selectors(tagged: Manager, selector: dict[str, Any], chosen: list[str]) -> None:
    modules = {"a": NET, "b": {"type": "dns"}}
    tagged.add_policy(policy("p", modules, tap_selector=selector))
    one = tagged.policies["p"]
    assert list(one.to_dict()["taps"]) == chosen
    assert [name.rpartition("-")[0] for name in one.to_dict()["input"]] == chosen
    assert list(one.to_dict()["modules"]) == [f"p-{tap}-{module}" for tap in chosen for module in modules]
    assert len(running(tagged)) == 2 + 1 + len(chosen)
    assert {window.labels["tap"] for window in one.bucket(0)} == set(chosen)


# --- handlers ---


def effective(manager: Manager, name: str = "p") -> dict[str, Any]:
    modules = manager.policies[name].to_dict()["modules"]
    return {key.rpartition("-")[2]: module["module"]["config"] for key, module in modules.items()}


def configs(manager: Manager, name: str = "p") -> list[Any]:
    return list(manager.policies[name].parts[0].configs)


def test_global_handler_config(manager: Manager) -> None:
    """U-04."""
    text = """
    visor:
      taps:
        anycast: {input_type: pcap, config: {iface: eth0, number: 123, verbose: true, test: text}}
      global_handler_config:
        dns: {only_rcode: 2}
      policies:
        default_view:
          kind: collection
          input: {tap: anycast, input_type: pcap}
          handlers:
            modules:
              default_net: {type: net}
              default_dns: {type: dns}
              special: {type: dns, require_version: "1.0", config: {only_qname_suffix: [.a]}}
    """
    document = yaml.safe_load(text)
    with pytest.raises(ConfigError, match="number"):
        manager.load_file(text)
    assert not manager.taps
    assert not manager.policies
    for key in ("number", "verbose", "test"):
        del document["visor"]["taps"]["anycast"]["config"][key]
    manager.load_file(document)
    one = manager.policies["default_view"]
    shown = one.to_dict()
    names = ["default_net", "default_dns", "special"]
    assert list(shown["modules"]) == [f"default_view-anycast-{name}" for name in names]
    assert [config.version for config in configs(manager, "default_view")] == ["1.0"] * 3
    assert [config.options.get("only_rcode") for config in configs(manager, "default_view")] == [
        None,
        (2,),
        (2,),
    ]
    assert all(module["module"]["running"] for module in shown["modules"].values())
    assert next(iter(shown["input"])).startswith("anycast-")
    assert shown["taps"]["anycast"]["config"] == {"iface": "eth0"}


def test_merge_order(agent: Manager) -> None:
    """Agent spec 2.5.1, with its consequences."""
    agent.load_file(
        {"visor": {"global_handler_config": {"dns": {"topn_count": 3, "only_rcode": 1, "xact_ttl_secs": 9}}}}
    )
    module = {
        "type": "dns",
        "config": {"topn_count": 7, "only_rcode": 2, "num_periods": 8},
        "filter": {"only_rcode": 3},
    }
    agent.add_policy(policy("p1", {"m": module}, window={"num_periods": 4}))
    (config,) = configs(agent, "p1")
    assert (config.num_periods, config.deep_sample_rate, config.topn_count) == (4, 100, 7)
    assert config.options["only_rcode"] == (3,)
    assert config.options["xact_ttl_ms"] == 9000
    agent.add_policy(policy("p2", {"m": module}, window={"topn_count": 20}))
    (config,) = configs(agent, "p2")
    assert (config.num_periods, config.topn_count) == (8, 20)
    # without a window configuration, the agent's rules even over the module's
    agent.add_policy(policy("p3", {"m": module}))
    (config,) = configs(agent, "p3")
    assert (config.num_periods, config.deep_sample_rate, config.topn_count) == (5, 100, 7)


def test_agent_wide_values_are_for_policies_without_window(manager: Manager) -> None:
    """Agent spec 1.6: a window configuration that leaves a key out gets 5 and 100."""
    found = Manager(runtime=policy_fakes, periods=3, max_deep_sample=30)
    found.add_tap(tap(iface="eth0"))
    for name, window, values in (
        ("a", None, (3, 30)),
        ("b", {}, (5, 100)),
        ("c", {"num_periods": 2}, (2, 100)),
    ):
        found.add_policy(policy(name, window=window, tap="wired"))
        (config,) = configs(found, name)
        assert (config.num_periods, config.deep_sample_rate) == values
    found.close()


@pytest.mark.parametrize(("given", "value"), [(0, 1), (1, 1), (11, 10), (10**9, 10), (4, 4)])
def test_periods_are_clamped(agent: Manager, given: int, value: int) -> None:
    agent.add_policy(policy("p", window={"num_periods": given}))
    assert agent.policies["p"].periods == value


def test_sampling_is_clamped(agent: Manager) -> None:
    """U-17."""
    for given, value in ((102, 100), (0, 1), (50, 50)):
        agent.add_policy(policy("p", window={"deep_sample_rate": given}))
        assert configs(agent)[0].deep_sample_rate == value
        agent.remove_policy("p")


def test_groups(agent: Manager) -> None:
    """U-19."""
    module = {"type": "net", "metric_groups": {"disable": ["all"], "enable": ["all"]}}
    agent.add_policy(policy("p", {"m": module}))
    assert configs(agent)[0].groups == configs(agent)[0].table.all_groups
    assert effective(agent) == {
        "m": {"num_periods": 5, "deep_sample_rate": 100, "disable": ["all"], "enable": ["all"]}
    }
    agent.add_policy(policy("q", {"m": {"type": "net", "metric_groups": {"disable": ["all"]}}}))
    # nothing is left to write
    assert agent.policies["q"].bucket_json(0) == {}


@pytest.mark.parametrize(
    "modules",
    [
        "[a: {type: dns}, b: {type: net}]",
        "[{a: , type: dns}, {b: , type: net}]",
        "\n            - a:\n              type: dns\n            - b:\n              type: net",
    ],
)
def test_chains(agent: Manager, modules: str) -> None:
    """U-07: both spellings."""
    text = f"""
    visor:
      policies:
        p:
          kind: collection
          input: {{tap: default, input_type: pcap}}
          handlers:
            modules: {modules}
    """
    agent.add_policy(text)
    part = agent.policies["p"].parts[0]
    assert part.handlers.names == ["p-default-a", "p-default-b"]
    assert [(spec.type, spec.after) for spec in part.specs] == [("dns", None), ("net", 0)]


def test_no_chain_in_a_map(agent: Manager) -> None:
    agent.add_policy(policy("p", {"a": {"type": "dns"}, "b": NET}))
    assert [spec.after for spec in agent.policies["p"].parts[0].specs] == [None, None]


def test_settings_of_a_chain_in_sibling_spelling(agent: Manager) -> None:
    module = {"a": None, "type": "dns", "filter": {"only_rcode": 3}, "metric_groups": {"disable": ["all"]}}
    agent.add_policy(policy("p", [module]))
    assert configs(agent)[0].options["only_rcode"] == (3,)
    assert configs(agent)[0].groups == frozenset()


# --- metrics ---


def test_periods(agent: Manager) -> None:
    """U-18."""
    agent.add_policy(policy("p", window={"num_periods": 1}))
    one = agent.policies["p"]
    with pytest.raises(PeriodError) as bucket:
        one.bucket_json(2)
    assert str(bucket.value) == "invalid metrics period, specify [0, 0]"
    with pytest.raises(PeriodError) as window:
        one.window_json(0)
    assert str(window.value) == "invalid metrics period, specify [2, 1]"
    with pytest.raises(PeriodError) as later:
        agent.policies["default"].bucket(3)
    assert str(later.value) == "requested metrics period has not yet accumulated, current range is [0, 0]"
    assert agent.policies["default"].window(5)


def test_what_a_scrape_gets(agent: Manager) -> None:
    """U-20."""
    one = agent.policies["default"]
    assert not any(window.read_only for window in one.prometheus_windows())
    one.parts[0].handlers.buckets = 2  # type: ignore[attr-defined]
    assert all(window.read_only for window in one.prometheus_windows())
    text = render_prometheus.render(one.prometheus_windows())
    assert 'packets_total{handler="default-default-net",policy="default",tap="default"} 0' in text


def test_labels_of_resources(agent: Manager) -> None:
    (name,) = resources(agent)
    (window,) = agent.policies[name].bucket(0)
    assert window.labels == {"handler": name, "policy": name}


def test_like_handlers(tagged: Manager) -> None:
    """U-06: names, labels, no tap."""
    modules = {
        "n1": NET,
        "n2": NET,
        "d1": {"type": "dns"},
        "d2": {"type": "dns"},
        "d3": {"type": "dns", "require_version": "2.0"},
    }
    tagged.add_policy(policy("p", modules, merge=True, tap_selector={"any": [{"rack": 9}]}))
    one: Policy = tagged.policies["p"]
    document = one.window_json(2)
    assert {name: list(body) for name, body in document.items()} == {
        "packets_merged": ["packets"],
        "dns_merged": ["dns"],
        "dns_v2_merged": ["dns"],
    }
    text = render_prometheus.render(one.prometheus_windows())
    assert 'packets_total{handler="packets_merged",policy="p"} 0' in text
    assert "tap=" not in text


# --- many, and at once ---


def test_a_thousand_policies(agent: Manager) -> None:
    for number in range(1000):
        agent.add_policy(policy(f"p{number}", filter={"bpf": f"port {number % 10}"}))
    assert len(agent.inputs) == 11
    assert len(agent.policies) == 1 + 1000 + 11
    assert sum(one.consumers for one in agent.inputs.values()) == 1 + 1000 + 11
    assert len(agent.policies["p77"].to_dict()["modules"]) == 1
    for number in reversed(range(1000)):
        agent.remove_policy(f"p{number}")
    assert len(agent.inputs) == 1
    assert len(agent.policies) == 2
    assert len(policy_fakes.InputStream.alive) == 1


def test_from_many_threads(agent: Manager) -> None:
    """Everybody creates, reads and removes; whoever reads never meets anything half made."""
    wrong: list[str] = []
    done = threading.Event()

    def guarded(function: Any) -> threading.Thread:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                wrong.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def change(number: int) -> None:
        for _ in range(40):
            name = f"p{number % 3}"
            try:
                agent.add_policy(policy(name, filter={"bpf": f"port {number % 2}"}))
            except ExistsError as error:
                assert "already" in str(error)
            tap_name = f"t{number % 2}"
            try:
                agent.add_tap(tap(tap_name, iface="eth1"))
                agent.remove_tap(tap_name)
            except (ExistsError, NotFoundError):
                pass
            try:
                agent.remove_policy(name)
            except NotFoundError as error:
                assert str(error) == "policy does not exists"

    def read() -> None:
        while not done.is_set():
            for name, one in agent.policies.items():
                assert one.bucket_json(0)
                assert one.window(2)
                shown = one.to_dict()
                assert shown["input"]
                assert shown["modules"]
                assert name == one.name
            assert agent.taps["default"].to_dict()
            assert agent.inputs

    def reload() -> None:
        for number in range(20):
            agent.reload(
                {
                    "visor": {
                        "taps": tap("filed", iface="eth5")["visor"]["taps"],
                        "policies": policy(f"f{number % 2}", tap="filed")["visor"]["policies"],
                    }
                }
            )

    readers = [guarded(read) for _ in range(2)]
    writers = [guarded(lambda number=number: change(number)) for number in range(6)] + [guarded(reload)]
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in readers:
        thread.join(60)
    assert not wrong
    agent.reload({"visor": {}})
    assert set(agent.policies) == {"default", *resources(agent)}
    assert len(agent.inputs) == 1
    assert stream(agent, "default-").consumers == 2


def test_closed(agent: Manager) -> None:
    agent.close()
    agent.close()
    assert not agent.policies
    for change in (
        lambda: agent.add_tap(tap()),
        lambda: agent.add_policy(policy()),
        lambda: agent.reload({"visor": {}}),
    ):
        with pytest.raises(ConfigError, match="stopping"):
            change()
