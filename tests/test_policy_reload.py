"""Loading a file, and loading it again: what changed is changed, the rest does not notice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import policy_fakes
import pytest

from netprobe.errors import ConfigError, ExistsError, InputError, NetprobeError, NoMatchError
from netprobe.policy.config import load
from netprobe.policy.manager import Manager

BASE = """\
version: "1.0"
visor:
  taps:
    a: {input_type: pcap, config: {iface: eth0}, tags: {n: 1}}
    b: {input_type: pcap, config: {iface: eth1}, tags: {n: 2}}
  global_handler_config:
    dns: {topn_count: 5}
  policies:
    first:
      kind: collection
      input: {tap: a, input_type: pcap}
      handlers: {modules: {m: {type: net}}}
    second:
      kind: collection
      input: {tap: a, input_type: pcap}
      handlers: {modules: {m: {type: dns}}}
    both:
      kind: collection
      input: {tap_selector: {any: [n: 1, n: 2]}, input_type: pcap}
      handlers: {modules: {m: {type: net}}}
"""

SMALL = """
visor:
  policies:
    NAME: {kind: collection, input: {tap: TAP, input_type: pcap}, handlers: {modules: {m: {type: net}}}}
"""


@pytest.fixture
def manager() -> Iterator[Manager]:
    policy_fakes.InputStream.alive.clear()
    found = Manager(runtime=policy_fakes)
    yield found
    found.close()
    assert not policy_fakes.InputStream.alive


@pytest.fixture
def loaded(manager: Manager) -> Manager:
    manager.load_file(BASE, "agent.yaml")
    return manager


def sets(manager: Manager) -> dict[str, list[Any]]:
    """The handlers of each policy: the same objects mean that nothing was lost."""
    return {name: [part.handlers for part in one.parts] for name, one in manager.policies.items()}


def changed(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_load(loaded: Manager) -> None:
    mine = [name for name in loaded.policies if not name.endswith("-resources")]
    assert mine == ["first", "second", "both"]
    assert len(loaded.inputs) == 2
    assert {one.origin for one in loaded.taps.values()} == {"file"}


def test_nothing_changed(loaded: Manager) -> None:
    before = sets(loaded)
    taps = dict(loaded.taps)
    streams = set(policy_fakes.InputStream.alive)
    for text in (BASE, BASE.replace("first:", "first: # a comment"), "# moved\n" * 9 + BASE):
        loaded.reload(text, "agent.yaml")
        assert sets(loaded) == before
        assert {name: loaded.taps[name] is taps[name] for name in taps} == dict.fromkeys(taps, True)
        assert set(policy_fakes.InputStream.alive) == streams
        assert {stream.starts for stream in streams} == {1}


@pytest.mark.parametrize(
    ("old", "new", "hit"),
    [
        ("second:\n", "third:\n", {"second", "third"}),
        ("m: {type: dns}", "m: {type: dns, filter: {only_rcode: 3}}", {"second"}),
        ("m: {type: dns}", "m: {type: dns, require_version: '2.0'}", {"second"}),
        ("m: {type: dns}", "other: {type: dns}", {"second"}),
        ("topn_count: 5", "topn_count: 6", {"second"}),
        ("  global_handler_config:\n    dns: {topn_count: 5}\n", "", {"second"}),
        (
            "  policies:\n",
            "  policies:\n    new: {kind: collection, input: {tap: b, input_type: pcap}, "
            "handlers: {modules: {m: {type: net}}}}\n",
            {"new"},
        ),
        # tags alone change nothing for who is not chosen by them
        ("n: 1}", "n: 1, m: 3}", set()),
        ("n: 2}", "n: 3}", {"both", "b-resources"}),
        ("iface: eth1", "iface: eth2", {"both", "b-resources", "+b-resources"}),
        (
            "iface: eth0",
            "iface: eth0, debug: true",
            {"first", "second", "both", "a-resources", "+a-resources"},
        ),
        (
            "input: {tap: a, input_type: pcap}\n      handlers: {modules: {m: {type: net}}}",
            "input: {tap: a, input_type: pcap}\n      config: {merge_like_handlers: true}\n"
            "      handlers: {modules: {m: {type: net}}}",
            {"first"},
        ),
        ("    both:", "    last:", {"both", "last"}),
        ("any: [n: 1, n: 2]", "any: [n: 2, n: 1]", set()),
        # taps in another order
        ("  taps:\n", "  taps:\n    z: {input_type: mock}\n", set()),
        (
            "    a: {input_type: pcap, config: {iface: eth0}, tags: {n: 1}}\n"
            "    b: {input_type: pcap, config: {iface: eth1}, tags: {n: 2}}\n",
            "    b: {input_type: pcap, config: {iface: eth1}, tags: {n: 2}}\n"
            "    a: {input_type: pcap, config: {iface: eth0}, tags: {n: 1}}\n",
            set(),
        ),
    ],
)
def test_only_what_changed(loaded: Manager, old: str, new: str, hit: set[str]) -> None:
    assert old in BASE
    before = sets(loaded)

    def short(name: str) -> str:
        """`b-<hash>-resources` without its hash; `+` when it was not there before."""
        tap, dash, rest = name.partition("-")
        plus = "" if name in before else "+"
        return plus + tap + "-resources" if dash and rest else tap

    loaded.reload(BASE.replace(old, new), "agent.yaml")
    assert {short(name) for name in changed(before, sets(loaded))} == hit
    # and back again
    loaded.reload(BASE, "agent.yaml")
    assert set(sets(loaded)) == set(before)
    streams = policy_fakes.InputStream.alive
    assert sum(stream.consumers for stream in streams) == 4 + 2
    assert len(streams) == 2


def test_a_changed_policy_keeps_its_input(loaded: Manager) -> None:
    """The other policies of the input lose no packet."""
    one = loaded.policies["second"].parts[0].input.stream
    loaded.reload(BASE.replace("m: {type: dns}", "m: {type: dhcp}"))
    assert loaded.policies["second"].parts[0].input.stream is one
    assert one.running
    assert loaded.policies["second"].bucket(0)[0].table.type == "dhcp"


def test_an_input_that_has_ended_begins_anew(loaded: Manager) -> None:
    """When the policies that had it are replaced, and not while one of them stays."""
    ended = loaded.policies["second"].parts[0].input.stream
    ended.stop()
    with pytest.raises(InputError, match=r"^policy \[second\] failed to start: .*input a-\w+ has stopped: "):
        loaded.reload(BASE.replace("m: {type: dns}", "m: {type: dhcp}"))
    before = sets(loaded)
    names = list(loaded.policies)
    loaded.reload(BASE.replace("m: {", "other: {"))
    after = loaded.policies["second"].parts[0].input.stream
    assert after is not ended
    assert after.running
    assert set(loaded.policies) == set(names)
    # the live input has kept its resources policy, the new one has a new one
    assert {name.partition("-")[0] for name in before if before[name] == sets(loaded)[name]} == {"b"}
    assert sum(stream.consumers for stream in policy_fakes.InputStream.alive) == 4 + 2


def test_tags_are_shown_as_they_are_now(loaded: Manager) -> None:
    loaded.reload(BASE.replace("n: 1}", "n: 1, colour: red}"))
    assert loaded.policies["first"].to_dict()["taps"]["a"]["tags"] == {"n": 1, "colour": "red"}


def test_others_are_left_alone(loaded: Manager) -> None:
    """What REST and the command line have made."""
    loaded.add_default("eth7")
    loaded.add_tap("visor: {taps: {r: {input_type: pcap, config: {iface: eth8}, tags: {n: 5}}}}")
    loaded.add_policy(SMALL.replace("NAME", "rest").replace("TAP", "r"))
    loaded.add_policy(SMALL.replace("NAME", "rest2").replace("TAP", "a"))
    before = sets(loaded)
    loaded.reload("visor: {}")
    left = {name for name in loaded.policies if not name.endswith("-resources")}
    assert left == {"default", "rest", "rest2"}
    assert all(sets(loaded)[name] == before[name] for name in loaded.policies)
    # their tap is gone, they run on
    assert set(loaded.taps) == {"default", "r"}
    assert loaded.policies["rest2"].running
    assert loaded.policies["rest2"].to_dict()["taps"] == {}


def test_names_of_others_are_taken(manager: Manager) -> None:
    manager.add_tap("visor: {taps: {b: {input_type: pcap, config: {iface: eth8}}}}")
    with pytest.raises(ExistsError, match=r"agent\.yaml:5: visor\.taps\.b: the name exists"):
        manager.load_file(BASE, "agent.yaml")
    manager.remove_tap("b")
    manager.load_file(BASE, "agent.yaml")
    manager.remove_policy("first")
    manager.add_policy(SMALL.replace("NAME", "first").replace("TAP", "a"))
    before = sets(manager)
    with pytest.raises(ExistsError) as found:
        manager.reload(BASE, "agent.yaml")
    assert str(found.value) == "agent.yaml:9: visor.policies.first: the name exists already (made over REST)"
    assert sets(manager) == before


def test_a_file_may_use_a_tap_of_rest(manager: Manager) -> None:
    manager.add_tap("visor: {taps: {b: {input_type: pcap, config: {iface: eth8}}}}")
    text = SMALL.replace("NAME", "p").replace("TAP", "b")
    manager.load_file(text)
    before = sets(manager)
    manager.reload(text)
    assert sets(manager) == before


def test_deleted_over_rest_comes_back(loaded: Manager) -> None:
    """The file says that it shall be there."""
    loaded.remove_policy("first")
    loaded.remove_tap("b")
    before = sets(loaded)
    loaded.reload(BASE)
    assert changed(before, sets(loaded)) == {"first"}
    assert set(loaded.taps) == {"a", "b"}


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        (
            "m: {type: dns}",
            "m: {type: dnx}",
            ConfigError,
            ["agent.yaml:16", "second.handlers.modules.m.type", "'dnx'"],
        ),
        ("tap: a, ", "tap: z, ", ConfigError, ["agent.yaml:11", "'z'", "a, b"]),
        (
            "iface: eth1",
            "iface: bad1",
            InputError,
            ["policy [both] failed to start: agent.yaml:17: visor.policies.both: no interface bad1"],
        ),
        (
            "any: [n: 1, n: 2]",
            "all: [n: 1, n: 2]",
            NoMatchError,
            ["agent.yaml:17: visor.policies.both: no tap match found"],
        ),
        ("first:", "second:", ConfigError, ["agent.yaml:13", "'second'", "already", "line 9"]),
        ('version: "1.0"', "version: 2", ConfigError, ["agent.yaml:1", "version", "2 is a number", "1.0"]),
        (
            "dns: {topn_count: 5}",
            "dns: 5",
            ConfigError,
            ["agent.yaml:7", "global_handler_config.dns", "5 is a number"],
        ),
        ("dns: {topn_count: 5}", "dns: {topn: 5}", ConfigError, ["agent.yaml:7", "dns.topn", "unknown key"]),
        (
            "global_handler_config:\n    dns: {topn_count: 5}",
            "global_handler_config: [dns]",
            ConfigError,
            ["agent.yaml:6"],
        ),
        ("  policies:", " policies:", ConfigError, ["agent.yaml:8", "no valid YAML"]),
    ],
)
def test_a_bad_file_changes_nothing(
    loaded: Manager, old: str, new: str, error: type[NetprobeError], words: list[str]
) -> None:
    before = sets(loaded)
    taps = dict(loaded.taps)
    streams = {stream: stream.consumers for stream in policy_fakes.InputStream.alive}
    assert old in BASE
    # something good changes too, and must not come through
    text = BASE.replace(old, new).replace("    both:", "    extra:")
    with pytest.raises(error) as found:
        loaded.reload(text, "agent.yaml")
    assert str(found.value).isprintable()
    for word in words:
        assert word.replace("both", "extra") in str(found.value)
    assert sets(loaded) == before
    assert loaded.taps == taps
    assert {stream: stream.consumers for stream in policy_fakes.InputStream.alive} == streams
    loaded.reload(BASE)
    assert sets(loaded) == before


def test_a_bad_file_at_the_start_leaves_nothing(manager: Manager) -> None:
    with pytest.raises(InputError, match="bad1"):
        manager.load_file(BASE.replace("iface: eth1", "iface: bad1"))
    assert not manager.taps
    assert not manager.policies
    assert not manager.inputs
    assert not policy_fakes.InputStream.alive


# --- what is passed over ---


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("visor:\n", "extra: 1\nvisor:\n", ["agent.yaml:2: extra", "version, visor"]),
        (
            "  taps:",
            "  collector: {}\n  taps:",
            ["visor.collector", "config, taps, global_handler_config, policies"],
        ),
        (
            "tags: {n: 1}",
            "tags: {n: 1}, filter: {bpf: udp}",
            ["visor.taps.a.filter", "input.filter of a policy"],
        ),
        (
            "kind: collection",
            "kind: collection\n      colour: red",
            ["visor.policies.first.colour", "description"],
        ),
        ("tap: a, ", "tap: a, name: x, ", ["visor.policies.first.input.name", "tap_selector"]),
        (
            "handlers: {modules",
            "handlers: {config: {num_periods: 3}, modules",
            ["first.handlers.config", "window_config"],
        ),
        (
            "m: {type: dns}",
            "m: {type: dns, analyzers: {}}",
            ["second.handlers.modules.m.analyzers", "require_version"],
        ),
        ("global_handler_config:\n", "global_handler_config:\n    paint: {a: 1}\n", ["'paint'", "ignored"]),
        ('version: "1.0"\n', "", ["agent.yaml", "no version"]),
    ],
)
def test_ignored_keys_are_named(
    manager: Manager, caplog: pytest.LogCaptureFixture, old: str, new: str, words: list[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    assert old in BASE
    manager.load_file(BASE.replace(old, new, 1), "agent.yaml")
    caplog.records[:] = [record for record in caplog.records if "started on" not in record.getMessage()]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert caplog.records[0].levelno == (logging.INFO if "no version" in words else logging.WARNING)
    for word in words:
        assert word in lines[0]
    assert set(manager.policies) >= {"first", "second", "both"}


@pytest.mark.parametrize("part", ["taps: 5", "policies: [a]", "config: text", "taps:", "policies:"])
def test_parts_that_are_no_maps(manager: Manager, caplog: pytest.LogCaptureFixture, part: str) -> None:
    """Agent spec 2.1: passed over in files."""
    manager.load_file(f"version: 1.0\nvisor:\n  {part}\n", "agent.yaml")
    assert not manager.taps
    assert not manager.policies
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"agent.yaml:3: visor.{part.partition(':')[0]}" in record.getMessage()


def test_an_unknown_global_type_hides_nothing(manager: Manager) -> None:
    """C-22: the entries after it count."""
    manager.load_file(BASE.replace("    dns: {topn_count: 5}", "    paint: {}\n    dns: {topn_count: 5}"))
    assert manager.policies["second"].parts[0].configs[0].topn_count == 5


# --- files ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty"]),
        (b"# only a comment", ["nothing is given", "version and visor"]),
        (b"[a, b]", [":1", "a list is given"]),
        (b"text", [":1", "'text' is a string"]),
        (b"version: 1.0", ["visor", "missing"]),
        (b"visor: 1", [":1: visor: 1 is a number"]),
        (b"visor:\n  taps: {a: {input_type: pcap}}\n  taps: {}\n", [":3", "'taps'", "already", "line 2"]),
        (b"visor:\n  \xe4", [":2", "UTF-8"]),
        (b"a: 1\n---\nb: 2\n", [":2", "second document"]),
        (b"visor:\n\ttaps: {}\n", [":2", "no valid YAML"]),
    ],
)
def test_files(manager: Manager, tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as found:
        manager.load_file(load(path))
    for word in (str(path), *words):
        assert word in str(found.value)


def test_no_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError, match=reason) as found:
            load(path)
        assert str(path) in str(found.value)
    with pytest.raises(ConfigError):
        load("a\0b")


def test_windows_lines_and_bom(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    manager.load_file(load(path))
    assert "first" in manager.policies
