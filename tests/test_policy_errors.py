"""Every refusal of taps and policies: its class, what its message names, and that nothing is left of it.

The tables are those of the agent spec, 2.3 and 2.4.3, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import dedent, indent

import policy_fakes
import pytest

from netprobe.errors import ConfigError, ExistsError, InputError, NetprobeError, NoMatchError, NotFoundError
from netprobe.policy.manager import Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    """An agent with the tap and the policy `default`, and taps of other kinds."""
    policy_fakes.InputStream.alive.clear()
    found = Manager(runtime=policy_fakes)
    found.add_default("eth0")
    found.add_tap(
        tap("edge", "{input_type: pcap, config: {iface: eth1}, tags: {site: lab, rack: 4, on: true}}")
    )
    found.add_tap(tap("stub", "{input_type: mock}"))
    found.add_tap(tap("names", "{input_type: dnstap}"))
    yield found
    found.close()
    assert not policy_fakes.InputStream.alive


def tap(name: str, body: str) -> str:
    return f"version: '1.0'\nvisor:\n  taps:\n    {name}: {body}\n"


def policy(body: str, name: str = "p") -> str:
    return (
        f"version: '1.0'\nvisor:\n  policies:\n    {name}:\n" + indent(dedent(body).strip(), " " * 6) + "\n"
    )


INPUT = "input: {tap: default, input_type: pcap}"
HANDLERS = "handlers: {modules: {a: {type: net}}}"


def whole(**parts: str) -> str:
    """A good policy, with some of its lines replaced; an empty text leaves the line out."""
    lines = {"kind": "kind: collection", "input": INPUT, "handlers": HANDLERS, **parts}
    return policy("\n".join(line for line in lines.values() if line))


def with_input(text: str) -> str:
    return whole(input=f"input: {text}")


def on_pcap(text: str) -> str:
    """The tap `default`, and more of `input`."""
    return with_input("{tap: default, input_type: pcap, " + text.removeprefix("{"))


def with_handlers(text: str) -> str:
    return whole(handlers=f"handlers: {text}")


def with_module(text: str) -> str:
    return with_handlers(f"{{modules: {{a: {text}}}}}")


def refused(manager: Manager, kind: str, text: str | bytes) -> NetprobeError:
    """The error, after a look that everything else is as it was."""
    before = (set(manager.taps), dict(manager.policies), dict(manager.inputs))
    alive = set(policy_fakes.InputStream.alive)
    attached = {stream: list(stream.attached) for stream in alive}
    with pytest.raises(NetprobeError) as found:
        (manager.add_tap if kind == "tap" else manager.add_policy)(text)
    assert (set(manager.taps), dict(manager.policies), dict(manager.inputs)) == before
    assert set(policy_fakes.InputStream.alive) == alive
    assert {stream: list(stream.attached) for stream in alive} == attached
    message = str(found.value)
    assert message
    assert message.isprintable()
    return found.value


# --- taps ---


@pytest.mark.parametrize("text", ["", b"", "  \n", "\ufeff"])
def test_empty_body(manager: Manager, text: str | bytes) -> None:
    for kind in ("tap", "policy"):
        assert str(refused(manager, kind, text)) == "empty data"


@pytest.mark.parametrize(
    "text",
    [
        "# nothing",
        "a text",
        "[1, 2]",
        "version: '1.0'",
        "visor:",
        "visor: 5",
        "visor: [a]",
        "other: {taps: {}}",
    ],
)
def test_no_schema(manager: Manager, text: str) -> None:
    for kind in ("tap", "policy"):
        error = refused(manager, kind, text)
        assert type(error) is ConfigError
        assert str(error) == "invalid schema"


@pytest.mark.parametrize("version", ["2.0", "'2.0'", "1", "1.00", "[1.0]", "{}", "~", ""])
def test_version(manager: Manager, version: str) -> None:
    for kind, part in (("tap", "taps"), ("policy", "policies")):
        error = refused(manager, kind, f"version: {version}\nvisor: {{{part}: {{x: {{}}}}}}")
        assert str(error) == "unsupported version"


@pytest.mark.parametrize("version", ["version: 1.0\n", "version: '1.0'\n", 'version: "1.0"\n', ""])
def test_good_versions(manager: Manager, version: str) -> None:
    """U-05: no version is fine."""
    assert manager.add_tap(version + "visor: {taps: {x: {input_type: pcap}}}") == "x"


@pytest.mark.parametrize("part", ["", "taps:", "taps: 5", "taps: [a]", "policies: {}"])
def test_no_taps(manager: Manager, part: str) -> None:
    assert str(refused(manager, "tap", f"visor:\n  {part or 'x: 1'}")) == "no taps found in schema"


@pytest.mark.parametrize("part", ["", "policies:", "policies: 5", "policies: [a]", "taps: {}"])
def test_no_policies(manager: Manager, part: str) -> None:
    assert str(refused(manager, "policy", f"visor:\n  {part or 'x: 1'}")) == "no policies found in schema"


@pytest.mark.parametrize("count", [0, 2, 3])
def test_one_in_a_body(manager: Manager, count: int) -> None:
    for kind, part, one in (("tap", "taps", "one tap"), ("policy", "policies", "one policy")):
        items = ", ".join(f"x{number}: {{}}" for number in range(count))
        text = str(refused(manager, kind, f"visor: {{{part}: {{{items}}}}}"))
        assert one in text
        assert f"{count} are given" in text


# message parts that a row must name
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (tap("'1st'", "{input_type: pcap}"), ["'1st'", "name"]),
        (tap("a.b", "{input_type: pcap}"), ["'a.b'"]),
        (tap("''", "{input_type: pcap}"), ["''"]),
        (tap("'a\\n'", "{input_type: pcap}"), ["name"]),
        (tap("größe", "{input_type: pcap}"), ["'größe'"]),
        (tap("[a]", "{input_type: pcap}"), ["list", "key"]),
        (tap("x", "pcap"), ["'pcap' is a string", "map", "input_type"]),
        (tap("x", ""), ["nothing is given", "input_type"]),
        (tap("x", "[a]"), ["a list is given"]),
        (tap("x", "{}"), ["visor.taps.x.input_type", "missing"]),
        (tap("x", "{config: {iface: eth0}}"), ["input_type", "missing"]),
        (tap("x", "{input_type: [pcap]}"), ["input_type", "a list is given"]),
        (tap("x", "{input_type: {a: b}}"), ["input_type", "a map is given"]),
        (tap("x", "{input_type: }"), ["input_type", "nothing is given"]),
        (
            tap("x", "{input_type: netflow}"),
            ["'x'", "'netflow'", "pcap, dnstap, flow, sflow, netprobe, mock"],
        ),
        (tap("x", "{input_type: pcap, config: 5}"), ["visor.taps.x.config", "5 is a number", "map"]),
        (tap("x", "{input_type: pcap, config: [a]}"), ["config", "a list is given"]),
        (tap("x", "{input_type: pcap, config: }"), ["config", "nothing is given"]),
        (tap("x", "{input_type: pcap, tags: [a]}"), ["visor.taps.x.tags", "a list is given"]),
        (tap("x", "{input_type: pcap, tags: a}"), ["tags", "'a' is a string"]),
        (tap("x", "{input_type: pcap, config: {a: [[b]]}}"), ["config.a[0]", "a list is given"]),
        (tap("x", "{input_type: pcap, config: {a: [{b: c}]}}"), ["config.a[0]", "a map is given"]),
        (tap("x", "{input_type: pcap, tags: {a: }}"), ["tags.a", "nothing is given"]),
        (
            tap("x", f"{{input_type: pcap, tags: {{a: {1 << 64}}}}}"),
            ["tags.a", "too big", str((1 << 64) - 1)],
        ),
    ],
)
def test_bad_taps(manager: Manager, text: str, parts: list[str]) -> None:
    error = refused(manager, "tap", text)
    assert type(error) is ConfigError
    for part in (*parts, "line 4"):
        assert part in str(error)


def test_tap_name_in_use(manager: Manager) -> None:
    error = refused(manager, "tap", tap("default", "{input_type: pcap}"))
    assert type(error) is ExistsError
    assert "'default'" in str(error)
    assert "already" in str(error)


def test_tap_listed_twice(manager: Manager) -> None:
    """U-03."""
    error = refused(manager, "tap", "visor:\n  taps:\n    a: {input_type: pcap}\n    a: {input_type: pcap}\n")
    for part in ("'a'", "already", "line 4", "line 3", "visor.taps"):
        assert part in str(error)


@pytest.mark.parametrize("input_type", ["pcap", "dnstap", "flow", "sflow", "netprobe", "mock"])
def test_taps_are_not_judged_before_they_are_used(manager: Manager, input_type: str) -> None:
    """B-23: no config, or any."""
    assert manager.add_tap(tap("a", f"{{input_type: {input_type}}}")) == "a"
    assert manager.add_tap(tap("b", f"{{input_type: {input_type}, config: {{what: ever}}}}")) == "b"
    assert manager.taps["b"].to_dict()["config"] == {"what": "ever"}


def test_unknown_tap(manager: Manager) -> None:
    for name in ("none", ""):
        with pytest.raises(NotFoundError, match=r"^tap does not exists$"):
            manager.remove_tap(name)


# --- policies ---


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # outline
        (policy("5"), ["visor.policies.p", "5 is a number"]),
        (policy("[a]"), ["a list is given"]),
        (policy("", name="q"), ["nothing is given"]),
        (whole().replace(" p:", " 9p:"), ["'9p'"]),
        (whole().replace(" p:", " p.p:"), ["'p.p'"]),
        (whole().replace(" p:", " ? [p]\n    :"), ["a list is given", "key"]),
        (whole().replace(" p:", " __all:"), ["'__all'", "reserved"]),
        (whole(kind=""), ["visor.policies.p.kind", "missing", "collection"]),
        (whole(kind="kind: [collection]"), ["p.kind", "a list is given"]),
        (whole(kind="kind:"), ["p.kind", "nothing is given"]),
        (whole(kind="kind: dance"), ["p.kind", "'dance'", "collection"]),
        (whole(kind="kind: Collection"), ["'Collection'"]),
        (whole(input=""), ["visor.policies.p.input", "missing"]),
        (whole(input="input: default"), ["p.input", "'default' is a string"]),
        (whole(handlers=""), ["visor.policies.p.handlers", "missing"]),
        (whole(handlers="handlers: [net]"), ["p.handlers", "a list is given"]),
        (whole() + "      config: true\n", ["p.config", "true is a boolean"]),
        (whole() + "      config: [a]\n", ["p.config", "a list is given"]),
        (whole() + "      config: {merge_like_handlers: yes-}\n", ["merge_like_handlers", "true or false"]),
        (whole() + "      config: {merge_like_handlers: 1}\n", ["merge_like_handlers", "1 is a number"]),
        (whole() + "      config: {merge_like_handlers: yes}\n", ["'yes' is a string", "true or false"]),
        # input
        (with_input("{tap: default}"), ["p.input.input_type", "missing"]),
        (with_input("{tap: default, input_type: [pcap]}"), ["input.input_type", "a list is given"]),
        (with_input("{tap: default, input_type: }"), ["input.input_type", "nothing is given"]),
        (with_input("{tap: default, input_type: paint}"), ["input.input_type", "'paint'", "pcap, dnstap"]),
        (with_input("{input_type: pcap}"), ["p.input", "'tap'", "'tap_selector'"]),
        (
            with_input("{tap: default, tap_selector: {any: [a: b]}, input_type: pcap}"),
            ["p.input", "'tap'", "'tap_selector'", "both"],
        ),
        (with_input("{tap: [default], input_type: pcap}"), ["p.input.tap", "a list is given"]),
        (with_input("{tap: , input_type: pcap}"), ["p.input.tap", "nothing is given"]),
        (
            with_input("{tap: nobody, input_type: pcap}"),
            ["p.input.tap", "'nobody'", "default, edge, stub, names"],
        ),
        (with_input("{tap: default, input_type: mock}"), ["'default'", "'pcap'", "'mock'", "input_type"]),
        (on_pcap("{config: 7}"), ["p.input.config", "7 is a number"]),
        (on_pcap("{config: [x]}"), ["p.input.config", "a list is given"]),
        (on_pcap("{filter: x}"), ["p.input.filter", "'x' is a string"]),
        (on_pcap("{config: {a: [[b]]}}"), ["input.config.a[0]"]),
        (on_pcap("{filter: {a: [[b]]}}"), ["input.filter.a[0]"]),
        # selectors
        (with_input("{tap_selector: any, input_type: pcap}"), ["input.tap_selector", "'any' is a string"]),
        (with_input("{tap_selector: [a], input_type: pcap}"), ["input.tap_selector", "a list is given"]),
        (with_input("{tap_selector: {}, input_type: pcap}"), ["input.tap_selector", "any", "all"]),
        (with_input("{tap_selector: {one: [a: b]}, input_type: pcap}"), ["tap_selector", "any", "all"]),
        (
            with_input("{tap_selector: {any: [a: b], all: [a: b]}, input_type: pcap}"),
            ["input.tap_selector", "any", "all", "both"],
        ),
        (
            with_input("{tap_selector: {any: {a: b}}, input_type: pcap}"),
            ["tap_selector.any", "a map is given"],
        ),
        (with_input("{tap_selector: {all: x}, input_type: pcap}"), ["tap_selector.all", "'x' is a string"]),
        (
            with_input("{tap_selector: {any: [a]}, input_type: pcap}"),
            ["tap_selector.any[0]", "'a' is a string"],
        ),
        (with_input("{tap_selector: {any: [{}]}, input_type: pcap}"), ["tap_selector.any[0]", "0 entries"]),
        (
            with_input("{tap_selector: {any: [a: b, {c: d, e: f}]}, input_type: pcap}"),
            ["tap_selector.any[1]", "2 entries"],
        ),
        (with_input("{tap_selector: {any: [{[k]: v}]}, input_type: pcap}"), ["a list is given", "key"]),
        (with_input("{tap_selector: {any: [{k: [v]}]}, input_type: pcap}"), ["any[0].k", "a list is given"]),
        (with_input("{tap_selector: {any: [{k: }]}, input_type: pcap}"), ["any[0].k", "nothing is given"]),
        (
            with_input("{tap_selector: {any: [{rack: four}]}, input_type: pcap}"),
            ["'edge'", "'rack'", "any[0].rack"],
        ),
        (with_input("{tap_selector: {all: [{rack: true}]}, input_type: pcap}"), ["'edge'", "'rack'"]),
        (with_input("{tap_selector: {all: [{site: 5}]}, input_type: pcap}"), ["'edge'", "'site'"]),
        (
            with_input("{tap_selector: {all: [{site: lab}]}, input_type: mock}"),
            ["'edge'", "'pcap'", "'mock'"],
        ),
        # handlers
        (with_handlers("{}"), ["p.handlers.modules", "missing"]),
        (with_handlers("{modules: }"), ["p.handlers.modules", "nothing is given"]),
        (with_handlers("{modules: net}"), ["p.handlers.modules", "'net' is a string", "map", "list"]),
        (with_handlers("{modules: {}}"), ["p.handlers.modules", "no handler"]),
        (with_handlers("{modules: []}"), ["p.handlers.modules", "no handler"]),
        (with_handlers("{modules: [net]}"), ["modules[0]", "'net' is a string"]),
        (with_handlers("{modules: [{}]}"), ["modules[0]", "a map"]),
        (with_handlers("{modules: [{a: {type: net}, b: {type: net}}]}"), ["modules[0]", "2 entries"]),
        (with_handlers("{modules: {a: {type: net}, a: {type: dns}}}"), ["'a'", "already"]),
        (
            with_handlers("{window_config: 5, modules: {a: {type: net}}}"),
            ["handlers.window_config", "5 is a number"],
        ),
        (with_handlers("{modules: {1a: {type: net}}}"), ["'1a'", "name"]),
        (with_module("{}"), ["modules.a.type", "missing"]),
        (with_module("{type: [net]}"), ["modules.a.type", "a list is given"]),
        (with_module("{type: }"), ["modules.a.type", "nothing is given"]),
        (with_module("net"), ["modules.a", "'net' is a string", "type"]),
        (with_module("[net]"), ["modules.a", "a list is given"]),
        (with_module("{type: tcp}"), ["'p'", "'tcp'", "'1.0'", "net"]),
        (with_module("{type: net, require_version: 9.9}"), ["'p'", "'net'", "'9.9'", "1.0, 2.0"]),
        (with_module("{type: net, require_version: 1}"), ["'net'", "'1'"]),
        (with_module("{type: dhcp, require_version: '2.0'}"), ["'p'", "'dhcp'", "'2.0'"]),
        (with_module("{type: net, require_version: [1.0]}"), ["require_version", "a list is given"]),
        (with_module("{type: net, require_version: }"), ["require_version", "nothing is given"]),
        (with_module("{type: net, config: 1}"), ["modules.a.config", "1 is a number"]),
        (with_module("{type: net, config: [a]}"), ["modules.a.config", "a list is given"]),
        (with_module("{type: net, filter: abc}"), ["modules.a.filter", "'abc' is a string"]),
        (with_module("{type: net, metric_groups: [all]}"), ["modules.a.metric_groups", "a list is given"]),
        (with_module("{type: net, metric_groups: {}}"), ["metric_groups", "'enable'", "'disable'"]),
        (with_module("{type: net, metric_groups: {on: [all]}}"), ["metric_groups", "'enable'", "'disable'"]),
    ],
)
def test_bad_policies(manager: Manager, text: str, parts: list[str]) -> None:
    """U-11."""
    error = refused(manager, "policy", text)
    assert type(error) is ConfigError
    assert "line " in str(error)
    for part in parts:
        assert part in str(error)


START = "policy [p] failed to start: "


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # handlers
        (
            with_module("{type: net, metric_groups: {enable: [top_geo, rates]}}"),
            ["metric_groups.enable[1]", "'rates'", "all, cardinality, counters, top_geo, top_ips"],
        ),
        (
            with_module("{type: dns, metric_groups: {disable: [x]}}"),
            ["metric_groups.disable[0]", "'x'", "all, cardinality, counters, dns_transaction"],
        ),
        (with_module("{type: dns, metric_groups: {disable: all}}"), ["disable", "'all' is a string", "list"]),
        (
            with_module("{type: dns, metric_groups: {disable: [all], on: [x]}}"),
            ["metric_groups.on", "unknown key"],
        ),
        (
            with_module("{type: net, config: {only_qname: [a]}}"),
            ["modules.a.config.only_qname", "unknown key", "geoloc_notfound, asn_notfound", "num_periods"],
        ),
        (with_module("{type: net, filter: {bpf: tcp}}"), ["modules.a.filter.bpf", "unknown key"]),
        (
            with_handlers("{window_config: {max_deep_sample: 50}, modules: {a: {type: net}}}"),
            ["handlers.window_config.max_deep_sample", "unknown key", "deep_sample_rate"],
        ),
        (
            with_handlers("{window_config: {num_periods: few}, modules: {a: {type: net}}}"),
            ["window_config.num_periods", "'few' is a string"],
        ),
        (
            with_handlers("{window_config: {topn_percentile_threshold: 101}, modules: {a: {type: net}}}"),
            ["window_config.topn_percentile_threshold", "101"],
        ),
        (with_module("{type: dns, filter: {only_rcode: 99}}"), ["filter.only_rcode", "'99'"]),
        (with_module("{type: dns, filter: {only_rcode: -1}}"), ["filter.only_rcode", "'-1' is a string"]),
        (with_module("{type: dns, filter: {only_qname: a.example}}"), ["only_qname", "expected a list"]),
        (with_module("{type: dns, filter: {exclude_noerror: yes}}"), ["exclude_noerror", "true or false"]),
        (
            with_handlers(
                "{window_config: {}, modules: {a: {type: net, config: {num_periods: 3}}, b: {type: dns}}}"
            ),
            ["p.handlers", "num_periods", "3 and 5", "window_config"],
        ),
        # groups, which need not stand in metric_groups
        (with_module("{type: net, config: {enable: 5}}"), ["a.config.enable", "5 is a number", "counters"]),
        (with_module("{type: net, filter: {disable: [counter]}}"), ["filter.disable[0]", "'counter'"]),
        (
            with_handlers("{window_config: {enable: [counters, tops]}, modules: {a: {type: net}}}"),
            ["handlers.window_config.enable[1]", "'tops'", "expected one of all, cardinality"],
        ),
        # inputs
        (on_pcap("{config: {ifac: x}}"), ["input.config.ifac", "unknown key", "iface, bpf"]),
        (on_pcap("{filter: {only_hosts: [a]}}"), ["input.filter.only_hosts", "unknown key"]),
        (on_pcap("{config: {iface: 7}}"), ["input.config.iface", "7 is a number", 'expected text: "7"']),
        (on_pcap("{config: {iface: true}}"), ["true is a boolean", 'expected text: "true"']),
        (on_pcap("{config: {debug: 1}}"), ["input.config.debug", "true or false"]),
        (on_pcap("{config: {pcap_source: tape}}"), ["pcap_source", "'tape'", "unknown"]),
        (on_pcap("{config: {host_spec: 10.0.0.1}}"), ["host_spec", "invalid CIDR: 10.0.0.1"]),
        (on_pcap("{config: {host_spec: 10.0.0.0/33}}"), ["invalid CIDR: 10.0.0.0/33"]),
        (on_pcap("{config: {host_spec: 10.0.0/8}}"), ["invalid IPv4 address: 10.0.0"]),
        (on_pcap("{config: {host_spec: '2001:::/8'}}"), ["invalid IPv6 address: 2001:::"]),
        (
            on_pcap("{config: {tcp_packet_reassembly_cache_limit: many}}"),
            ["tcp_packet_reassembly_cache_limit", "'many' is a string"],
        ),
        (with_input("{tap: names, input_type: dnstap}"), ["'dnstap'", "'names'", "not available"]),
        # handlers on inputs
        (with_input("{tap: stub, input_type: mock}").replace("net", "dhcp"), ["'dhcp'", "'mock'", "consume"]),
    ],
)
def test_failures_to_start(manager: Manager, text: str, parts: list[str]) -> None:
    error = refused(manager, "policy", text)
    assert type(error) is ConfigError
    assert str(error).startswith(START)
    for part in (*parts, "line "):
        assert part in str(error)


@pytest.mark.parametrize("kind", ["flow", "sflow", "netprobe", "dnstap"])
def test_inputs_of_later_versions(manager: Manager, kind: str) -> None:
    manager.add_tap(tap("t", f"{{input_type: {kind}}}"))
    error = refused(manager, "policy", with_input(f"{{tap: t, input_type: {kind}}}"))
    assert f"the input {kind!r} is not available in this version" in str(error)


def test_no_interface(manager: Manager) -> None:
    manager.add_tap(tap("t", "{input_type: pcap}"))
    error = refused(manager, "policy", with_input("{tap: t, input_type: pcap}"))
    assert str(error).startswith(START)
    assert "'t'" in str(error)
    assert "iface" in str(error)


def test_a_bad_tap_is_found_by_its_user(manager: Manager) -> None:
    """The place is that of the tap, in whatever document it stood."""
    manager.add_tap(tap("t", "{input_type: pcap, config: {iface: eth0, colour: red}}"))
    error = refused(manager, "policy", with_input("{tap: t, input_type: pcap}"))
    assert "visor.taps.t.config.colour" in str(error)
    assert "unknown key" in str(error)


def test_policy_name_in_use(manager: Manager) -> None:
    """U-08."""
    resources = next(name for name in manager.policies if name.endswith("-resources"))
    for name in ("default", resources):
        error = refused(manager, "policy", whole().replace(" p:", f" {name}:"))
        assert type(error) is ExistsError
        assert repr(name) in str(error)
        assert "already" in str(error)


@pytest.mark.parametrize(
    "selector",
    [
        "any: [nothing: here]",
        "all: [site: lab, nothing: here]",
        "any: [site: elsewhere]",
        "any: []",
        "all: []",
    ],
)
def test_selector_without_a_tap(manager: Manager, selector: str) -> None:
    """B-22."""
    error = refused(manager, "policy", with_input(f"{{tap_selector: {{{selector}}}, input_type: pcap}}"))
    assert type(error) is NoMatchError
    assert str(error) == "no tap match found for specified 'input.tap_selector' tags"


def test_an_input_that_throws(manager: Manager) -> None:
    """U-12, with the form of the message."""
    text = with_input("{tap: stub, input_type: mock, config: {except_on_start: true}}")
    error = refused(manager, "policy", text.replace(" p:", " default_view:"))
    assert str(error) == "policy [default_view] failed to start: mock error on start"
    assert type(error) is InputError


def test_one_of_two_inputs_throws(manager: Manager) -> None:
    """The first input of the policy has run by then, and is taken down."""
    manager.add_tap(tap("later", "{input_type: pcap, config: {iface: bad0}, tags: {site: lab}}"))
    error = refused(manager, "policy", with_input("{tap_selector: {any: [site: lab]}, input_type: pcap}"))
    assert str(error) == "policy [p] failed to start: no interface bad0"


def test_handler_name_taken(manager: Manager) -> None:
    """U-13: `<policy>-<tap>-<module>` of two policies can be the same text."""
    manager.add_tap(tap("b-edge", "{input_type: pcap, config: {iface: eth1}}"))
    manager.add_policy(with_input("{tap: edge, input_type: pcap}").replace(" p:", " a-b:"))
    error = refused(manager, "policy", with_input("{tap: b-edge, input_type: pcap}").replace(" p:", " a:"))
    assert type(error) is ExistsError
    for part in ("'a-b-edge-a'", "already", "'a-b'"):
        assert part in str(error)


def test_resources_name_taken(manager: Manager) -> None:
    """The name of a new input's own policy is taken by a policy of somebody's."""
    manager.add_policy(with_input("{tap: edge, input_type: pcap}"))
    name = next(name for name in manager.policies if name.startswith("edge-"))
    manager.remove_policy("p")
    manager.add_policy(whole().replace(" p:", f" {name}:"))
    error = refused(manager, "policy", with_input("{tap: edge, input_type: pcap}"))
    assert type(error) is ExistsError
    assert repr(name) in str(error)


def test_unknown_policy(manager: Manager) -> None:
    for name in ("none", "", "default-x-resources"):
        with pytest.raises(NotFoundError, match=r"^policy does not exists$"):
            manager.remove_policy(name)


@pytest.mark.parametrize(
    "text",
    ["{", "a: b: c", "visor: [", "visor: &a [*a]", "a: *b", "x: !!python/none", "\x00", "a:\tb\n\tc: d"],
)
def test_no_yaml(manager: Manager, text: str) -> None:
    for kind in ("tap", "policy"):
        assert type(refused(manager, kind, text)) is ConfigError


def test_tabs(manager: Manager) -> None:
    """What everybody does once, and the parser words for those who wrote it."""
    error = refused(manager, "policy", "visor:\n  # ü\n\tpolicies: {}\n")
    assert str(error) == "line 3: no valid YAML: a tab, expected blanks (column 1)"


def test_no_utf8(manager: Manager) -> None:
    error = refused(manager, "policy", b"visor:\n  \xff\xfe: 1\n")
    assert "line 2" in str(error)
    assert "UTF-8" in str(error)


def test_after_all_of_this_a_good_one_works(manager: Manager) -> None:
    assert manager.add_policy(whole()) == "p"
    assert manager.policies["p"].running
