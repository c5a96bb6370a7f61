"""Documents as trees: places, types, bounds; and that no document ends in an unexpected exception."""

from __future__ import annotations

import json
import time
from typing import Any

import policy_fakes
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netprobe.errors import ConfigError, NetprobeError
from netprobe.policy.config import Document, document_of
from netprobe.policy.manager import Manager
from netprobe.policy.nodes import MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, from_python, parse, plain, typed


def tree(text: str) -> Node:
    root = parse(text, "f.yaml")
    assert root is not None
    return root


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as found:
        parse(text, "f.yaml")
    message = str(found.value)
    assert message.startswith("f.yaml")
    assert message.isprintable()
    assert len(message) < 400
    return message


# --- places ---


def test_places() -> None:
    root = tree('a:\n  b:\n    - x\n    - {c: 1, d: "2"}\n  "e f": |\n    text\n')
    b = root.entries["a"].entries["b"]
    assert root.where() == "f.yaml:1"
    assert b.where() == "f.yaml:2: a.b"
    assert b.items[0].where() == "f.yaml:3: a.b[0]"
    assert b.items[1].where("d") == "f.yaml:4: a.b[1].d"
    assert b.items[1].where("none") == "f.yaml:4: a.b[1].none"
    assert root.entries["a"].where("e f") == "f.yaml:5: a.e f"
    assert str(b.items[0].error("no")) == "f.yaml:3: a.b[0]: no"


def test_places_without_a_file() -> None:
    root = parse("a: {b: 1}")
    assert root is not None
    assert root.where("a") == "line 1: a"
    assert from_python({"a": {"b": [1]}}).entries["a"].entries["b"].items[0].where() == "a.b[0]"


def test_places_of_aliases() -> None:
    """The line is that of the alias, what is inside of it stays where it is written."""
    root = tree("x: &one\n  y: 1\nz:\n  w: *one\n")
    w = root.entries["z"].entries["w"]
    assert w.where() == "f.yaml:4: z.w"
    assert w.where("y") == "f.yaml:2: z.w.y"


def test_merge_keys() -> None:
    root = tree("x: &one {a: 1, b: 2}\ny: {<<: *one, b: 3}\nz: {<<: [*one, {c: 4}]}\n")
    assert plain(root) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2, "c": 4}}
    assert "expected a map" in refusal("y: {<<: 5}")


# --- types ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("'7'", 7),
        ("007", 7),
        ("18446744073709551615", (1 << 64) - 1),
        ("-7", "-7"),
        ("+7", "+7"),
        ("1.5", "1.5"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("'TRUE'", True),
        ("tRuE", True),
        ("yes", "yes"),
        ("on", "on"),
        ("null ", None),
        ("2024-01-01", "2024-01-01"),
        ("[1, 'x', true]", ["1", "x", "true"]),
        ("{a: 1}", {"a": 1}),
        ("!!str 7", 7),
        ("٣", "٣"),
    ],
)
def test_typed(text: str, value: Any) -> None:
    """Agent spec 2.1."""
    node = tree(f"k: {text}").entries["k"]
    if value is None:
        with pytest.raises(ConfigError, match="nothing is given"):
            typed(node)
        return
    found = typed(node)
    assert found == value
    assert type(found) is type(value)


def test_quotes_count_where_text_is_expected() -> None:
    root = tree("{iface: '7', other: '7'}")
    assert typed(root, ("iface",)) == {"iface": "7", "other": 7}
    assert typed(tree("{iface: 7}"), ("iface",)) == {"iface": 7}


@pytest.mark.parametrize("text", ["1" * 21, "1" * 5000, str(1 << 64)])
def test_numbers_that_are_too_big(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:1: k: .* too big"):
        typed(tree(f"k: {text}").entries["k"])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20),
)


# what ends a line in YAML, and does not in JSON, is folded into a blank
JSON_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"))


def trees(leaves: Any) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=8), inner, max_size=4
            ),
        ),
        max_leaves=20,
    )


@given(trees(SCALARS))
@settings(max_examples=300, deadline=None)
def test_as_pyyaml_reads_it(value: Any) -> None:
    """What PyYAML writes is read as PyYAML reads it."""
    text = yaml.safe_dump(value, allow_unicode=True)
    root = parse(text)
    assert root is not None
    assert _close(plain(root)) == _close(yaml.safe_load(text))


@given(
    trees(st.one_of(st.none(), st.booleans(), st.integers(0, 1 << 64), JSON_TEXT)),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_json(value: Any, indent: Any, ascii_only: bool) -> None:
    """Also with tabs, and with big characters in two escapes, which YAML knows neither."""
    text = json.dumps({"k": value}, indent=indent, ensure_ascii=ascii_only)
    root = parse(text.encode())
    assert root is not None
    assert _close(plain(root)) == _close(json.loads(text))


def _close(value: Any) -> Any:
    """Floats as text to six digits, and dates as text: PyYAML makes objects of these."""
    if isinstance(value, dict):
        return {str(key): _close(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_close(one) for one in value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str | int | None) else str(value)


# --- bounds ---


def test_too_long() -> None:
    assert str(MAX_BYTES) in refusal(" " * (MAX_BYTES + 1))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_too_deep(opening: str) -> None:
    for depth in (MAX_DEPTH + 2, 10_000):
        assert "deep" in refusal(opening * depth) or "no valid YAML" in refusal(opening * depth)
    # as deep as allowed
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ConfigError):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_alias_bomb() -> None:
    """A billion laughs: refused at once, and without the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    start = time.process_time()
    assert str(MAX_NODES) in refusal("\n".join(lines))
    assert time.process_time() - start < 30


def test_alias_ladder() -> None:
    """Each step is one deeper: the depth counts through aliases."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]
    assert "deep" in refusal("\n".join(lines))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a x: *a\n<<: *a", "a: *none", "*x"])
def test_bad_aliases(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    "text", ["!!python/object:os.system x", "!!binary aGk=", "!mine x", "!!set {a}", "!<tag:x> y"]
)
def test_tags(text: str) -> None:
    assert "tag" in refusal(f"k: {text}")


def test_half_characters() -> None:
    """JSON spells big characters as pairs."""
    assert typed(tree(r'{"a": "\ud83d\ude00"}')) == {"a": "\U0001f600"}
    for text in (r'{"a": "\ud83d"}', r'{"\ude00": 1}', r'a: "\ud83d"', r'"\ud83d": a'):
        refusal(text)
    with pytest.raises(ConfigError, match="surrogate"):
        from_python({"a": "\ud83d"})


@pytest.mark.parametrize(
    "value",
    [{1: 2}, {"a": object()}, {"a": b"bytes"}, {None: 1}, [["x"] * 10] * MAX_NODES, {"a": {"b": 1j}}],
    ids=lambda value: type(value).__name__,
)
def test_what_python_cannot_give(value: Any) -> None:
    with pytest.raises(ConfigError):
        from_python(value)


def test_python_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="deep"):
        from_python(loop)


def test_documents() -> None:
    document = document_of("version: 1.0\nvisor: {config: {tls: yes, port: 80, x: [a, 1.5, ~]}}", "f.yaml")
    assert document == {"version": 1.0, "visor": {"config": {"tls": True, "port": 80, "x": ["a", 1.5, None]}}}
    assert document_of(document) is document
    assert document_of(dict(document))["visor"] == document["visor"]
    assert Document(None) == {}


# --- whatever comes ---

VOCABULARY = """
version visor taps policies p default tap tap_selector any all input_type input config filter handlers modules
kind collection type net dns pcap mock dhcp bgp window_config num_periods topn_count deep_sample_rate
metric_groups enable disable top_ips require_version 1.0 2.0 true 5 iface eth0 bpf host_spec 10.0.0.0/8
merge_like_handlers global_handler_config only_rcode only_qname tags site lab description null
"""
WORDS = st.sampled_from(VOCABULARY.split())
LEAVES = st.one_of(WORDS, SCALARS)
SHAPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.text(max_size=4)), inner, max_size=4)
    ),
    max_leaves=25,
)
INPUTS = st.fixed_dictionaries(
    {"input_type": st.one_of(st.just("pcap"), SHAPES)},
    optional={
        "tap": st.one_of(st.just("default"), SHAPES),
        "tap_selector": st.one_of(
            st.fixed_dictionaries({"any": st.lists(st.dictionaries(WORDS, SHAPES, max_size=2), max_size=2)}),
            SHAPES,
        ),
        "config": SHAPES,
        "filter": SHAPES,
    },
)
MODULES = st.fixed_dictionaries(
    {"type": st.one_of(st.sampled_from(["net", "dns", "dhcp", "pcap", "bgp"]), SHAPES)},
    optional={"config": SHAPES, "filter": SHAPES, "metric_groups": SHAPES, "require_version": SHAPES},
)
HANDLERS = st.fixed_dictionaries(
    {
        "modules": st.one_of(
            st.dictionaries(st.sampled_from(["a", "b", "1"]), MODULES, max_size=3),
            st.lists(st.dictionaries(WORDS, st.one_of(MODULES, st.none()), max_size=3), max_size=3),
            SHAPES,
        )
    },
    optional={"window_config": SHAPES},
)
POLICIES = st.fixed_dictionaries(
    {
        "kind": st.just("collection"),
        "input": st.one_of(INPUTS, SHAPES),
        "handlers": st.one_of(HANDLERS, SHAPES),
    },
    optional={"config": SHAPES},
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "visor": st.fixed_dictionaries(
            {},
            optional={
                "taps": st.one_of(
                    st.dictionaries(
                        st.sampled_from(["default", "x"]),
                        st.fixed_dictionaries(
                            {"input_type": st.just("pcap")}, optional={"config": SHAPES, "tags": SHAPES}
                        ),
                        max_size=2,
                    ),
                    SHAPES,
                ),
                "policies": st.one_of(st.dictionaries(WORDS, POLICIES, max_size=2), SHAPES),
                "global_handler_config": SHAPES,
                "config": SHAPES,
            },
        )
    },
    optional={"version": st.one_of(st.just("1.0"), SHAPES)},
)
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def attempt(source: Any) -> None:
    """Every way in takes a document or refuses it in one line."""
    manager = Manager(runtime=policy_fakes)
    try:
        for function in (manager.add_tap, manager.add_policy, manager.load_file, manager.reload):
            try:
                function(source)
            except NetprobeError as error:
                assert str(error)
                assert str(error).isprintable()
                assert len(str(error)) < 3000
            for policy in manager.policies.values():
                json.dumps([policy.to_dict(), policy.bucket_json(0)]).encode()
            for tap in manager.taps.values():
                json.dumps(tap.to_dict(), ensure_ascii=False).encode()
    finally:
        manager.close()
    assert not policy_fakes.InputStream.alive


@given(st.one_of(DOCUMENTS, SHAPES))
@FUZZ
def test_any_document(document: Any) -> None:
    if isinstance(document, dict):
        attempt(document)
    attempt(yaml.safe_dump(document, allow_unicode=True))
    attempt(json.dumps(document).encode())


GOOD = """version: "1.0"
visor:
  taps:
    default: &t {input_type: pcap, config: {iface: eth0, host_spec: "10.0.0.0/8"}, tags: {site: lab, n: 4}}
  global_handler_config:
    dns: {only_rcode: 2}
  policies:
    p:
      kind: collection
      input: {tap_selector: {any: [site: lab, n: 4]}, input_type: pcap, filter: {bpf: udp}}
      handlers:
        window_config: {num_periods: 3, topn_count: 5}
        modules:
          - a: {type: dns, filter: {only_qname: [x.y]}, metric_groups: {disable: [all], enable: [counters]}}
          - b:
            type: net
"""


@given(st.data())
@FUZZ
def test_a_good_document_with_damage(data: st.DataObject) -> None:
    """Pieces cut out, doubled, swapped; characters put in."""
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 40, len(text))))
        piece = data.draw(
            st.one_of(
                st.just(""),
                st.just(text[start:end] * 2),
                st.text(max_size=5),
                st.sampled_from(
                    ["*t", "&t", "{", "}", "[", "]", "\n", "\t", ": ", "- ", "'", '"', "!!x", "%", "\0"]
                ),
            )
        )
        text = text[:start] + piece + text[end:]
    attempt(text)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
@FUZZ
def test_any_text(text: str | bytes) -> None:
    attempt(text)


def test_the_good_one_is_good() -> None:
    manager = Manager(runtime=policy_fakes)
    manager.load_file(GOOD)
    assert manager.policies["p"].running
    manager.close()
