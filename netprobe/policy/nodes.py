"""YAML (or JSON) text as a tree whose nodes know their places, so that an error can name file, line and path.

The tree is built from the parser's events, with bounds on size, depth and on what aliases expand to: nothing
in a document is ever constructed as a Python object. Scalars keep their text; what type it has is decided by
whoever reads it (:func:`typed`: agent spec 2.1; :func:`plain`: YAML 1.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from netprobe.errors import ConfigError
from netprobe.handlers.options import kind_of

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 200_000
# characters of what an error says after the place
MAX_MESSAGE = 1000
# digits of the largest unsigned number, 2^64 - 1
MAX_DIGITS = 20

_CORE_TAG = "tag:yaml.org,2002:"
_CORE = ("str", "int", "float", "bool", "null", "map", "seq")
_NULLS = ("", "~", "null", "Null", "NULL")
# as PyYAML has it: without y and n
_BOOLEANS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}")
_FLOAT = re.compile(r"[-+]?[0-9]{1,20}\.[0-9]{0,20}(?:[eE][-+]?[0-9]{1,3})?")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Node:
    """One value of a document: a map, a list, a scalar or nothing.

    ``line`` counts from 1; 0: not known. ``quoted``: the text stood in quotes, or came as a Python string.
    """

    __slots__ = ("entries", "items", "key", "kind", "line", "parent", "quoted", "size", "source", "text")

    def __init__(self, kind: str, line: int = 0, text: str = "", quoted: bool = False) -> None:
        self.kind = kind
        self.line = line
        self.text = text
        self.quoted = quoted
        self.entries: dict[str, Node] = {}
        self.items: list[Node] = []
        self.parent: Node | None = None
        self.key: str | int = ""
        self.source = ""
        self.size = 1

    # --- where ---

    @property
    def path(self) -> str:
        """For example ``visor.policies.default.input.tap_selector.any[1]``; empty for the root."""
        parts: list[str] = []
        node = self
        while node.parent is not None:
            parts.append(f"[{node.key}]" if isinstance(node.key, int) else f".{node.key}")
            node = node.parent
        return "".join(reversed(parts)).removeprefix(".")

    def where(self, key: str | None = None) -> str:
        """``agent.yaml:7: visor.taps.a.config``; with ``key``, the place of that entry."""
        node = self.entries.get(key, self) if key is not None else self
        path = node.path
        if key is not None and node is self:
            path = f"{path}.{key}" if path else key
        root = self
        while root.parent is not None:
            root = root.parent
        if not root.source:
            at = f"line {node.line}" if node.line else ""
        else:
            at = f"{root.source}:{node.line}" if node.line else root.source
        return ": ".join(part for part in (at, shortened(path)) if part)

    def error(self, text: str, key: str | None = None) -> ConfigError:
        """An error to raise; the place opens its message."""
        where = self.where(key)
        text = shortened(text, MAX_MESSAGE)
        return ConfigError(f"{where}: {text}" if where else text)

    # --- what ---

    @property
    def is_map(self) -> bool:
        return self.kind == "map"

    @property
    def is_list(self) -> bool:
        return self.kind == "list"

    @property
    def is_scalar(self) -> bool:
        return self.kind == "scalar"

    def get(self, key: str) -> Node | None:
        return self.entries.get(key)

    def describe(self) -> str:
        """The value and its type in words."""
        if self.kind != "scalar":
            return {"map": "a map is given", "list": "a list is given"}.get(self.kind, "nothing is given")
        return kind_of(self.text if self.quoted else plain(self))

    def adopt(self, key: str | int, child: Node) -> None:
        child.parent, child.key = self, key
        if isinstance(key, int):
            self.items.append(child)
        else:
            self.entries[key] = child
        self.size += child.size

    def children(self) -> Iterator[Node]:
        yield from self.entries.values()
        yield from self.items

    def copy(self, line: int) -> Node:
        """A free copy, for an alias in that line; the copy's inner nodes keep the lines of the original."""
        twin = Node(self.kind, line, self.text, self.quoted)
        for key, child in self.entries.items():
            twin.adopt(key, child.copy(child.line))
        for index, child in enumerate(self.items):
            twin.adopt(index, child.copy(child.line))
        return twin


def shortened(text: str, most: int = 200) -> str:
    """Text fit for a message: one line, not endless."""
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= most else text[: most - 3] + "..."


# --- reading values ---


def typed(node: Node, strings: tuple[str, ...] = (), key: str | None = None) -> Any:
    """The value by the agent's rules (agent spec 2.1): digits are a number, true and false booleans, other
    scalars text; a list holds text. Under the keys ``strings``, what is quoted stays text.

    ConfigError for nothing at all, for numbers that are too big, and for lists of anything but scalars.
    """
    if node.is_map:
        return {name: typed(child, strings, name) for name, child in node.entries.items()}
    if node.is_list:
        for item in node.items:
            if not item.is_scalar:
                raise item.error(f"{item.describe()}, expected a list of plain values")
        return [item.text for item in node.items]
    if not node.is_scalar:
        raise node.error("nothing is given, expected a value")
    text = node.text
    if node.quoted and key in strings:
        return text
    if text.isascii() and text.isdigit():
        if len(text.lstrip("0")) > MAX_DIGITS or int(text) >= 1 << 64:
            raise node.error(f"{shortened(text, 40)} is too big a number, expected at most {(1 << 64) - 1}")
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def plain(node: Node) -> Any:
    """The value by YAML's own rules (1.1), as maps, lists, text, numbers and booleans of Python."""
    if node.is_map:
        return {key: plain(child) for key, child in node.entries.items()}
    if node.is_list:
        return [plain(item) for item in node.items]
    if not node.is_scalar:
        return None
    if node.quoted:
        return node.text
    text = node.text
    if text.lower() in _BOOLEANS and (text.islower() or text.isupper() or text.istitle()):
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


# --- building ---


def parser() -> ModuleType:
    """PyYAML. ImportError without the extra [agent]: what comes out of Python needs no text.

    Loaded late: an agent that is given an interface counts packets before anybody sends it a document.
    """
    import yaml

    return yaml


def parse(data: str | bytes, source: str = "") -> Node | None:
    """The tree of a text; None: the text is empty. ConfigError says where it is no YAML."""
    try:
        yaml = parser()
    except ImportError:
        raise ConfigError(
            f"{_at(source)}reading YAML needs PyYAML: pip install 'netprobe-suite[agent]'"
        ) from None
    text = _decoded(data, source)
    if not text.strip():
        return None
    try:
        root = _Builder(source).build(text)
    except yaml.YAMLError as error:
        # JSON may be indented with tabs, YAML may not
        root = _from_json(text, source)
        if root is None:
            raise _no_yaml(error, source, text) from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{_at(source)}no valid YAML: {shortened(str(error))}") from None
    if root is None:
        # comments alone
        root = Node("null", 1)
        root.source = source
    return root


def from_python(value: Any, source: str = "") -> Node:
    """The tree of maps, lists and scalars that Python code has made; lines are not known."""
    try:
        root = _from_python(value, 0, [0])
    except ConfigError as error:
        raise ConfigError(f"{_at(source)}{error}") from None
    root.source = source
    return root


def _at(source: str) -> str:
    return f"{source}: " if source else ""


def _decoded(data: str | bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{_at(source)}{len(data)} bytes, expected at most {MAX_BYTES}")
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        at = f"{source}:{line}" if source else f"line {line}"
        raise ConfigError(f"{at}: byte {data[error.start]:#04x} is no UTF-8 text") from None


def _no_yaml(error: yaml.YAMLError, source: str, document: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    text = f"{context}, {problem}" if context else str(problem)
    if mark is None:
        return ConfigError(f"{_at(source)}no valid YAML: {shortened(text)}")
    at = f"{source}:{mark.line + 1}" if source else f"line {mark.line + 1}"
    if "start any token" in text and document[mark.index : mark.index + 1] == "\t":
        text = "a tab, expected blanks"
    return ConfigError(f"{at}: no valid YAML: {shortened(text)} (column {mark.column + 1})")


def _from_json(text: str, source: str) -> Node | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        return None
    return from_python(value, source)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(key)
        found[key] = value
    return found


def _from_python(value: Any, depth: int, count: list[int]) -> Node:
    count[0] += 1
    if depth > MAX_DEPTH:
        raise ConfigError(f"nested more than {MAX_DEPTH} deep")
    if count[0] > MAX_NODES:
        raise ConfigError(f"more than {MAX_NODES} values")
    if value is None:
        return Node("null")
    if isinstance(value, bool):
        return Node("scalar", text=str(value).lower())
    if isinstance(value, str):
        return Node("scalar", text=_text(value, 0, ""), quoted=True)
    if isinstance(value, int | float):
        return Node("scalar", text=f"{value:d}" if isinstance(value, int) else repr(value))
    if isinstance(value, Mapping):
        node = Node("map")
        for key, child in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"the key {shortened(repr(key), 60)} is not text")
            node.adopt(_text(key, 0, ""), _from_python(child, depth + 1, count))
        return node
    if isinstance(value, list | tuple | set | frozenset):
        node = Node("list")
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        for index, child in enumerate(items):
            node.adopt(index, _from_python(child, depth + 1, count))
        return node
    raise ConfigError(f"{shortened(kind_of(value), 80)}, expected maps, lists, text, numbers and booleans")


def _text(text: str, line: int, source: str) -> str:
    """Text that can be written out again: JSON spells big characters as pairs, which are joined here."""
    if not _SURROGATE.search(text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        at = f"{source}:{line}" if source and line else source or (f"line {line}" if line else "")
        problem = "half a character (a lone surrogate), expected text"
        raise ConfigError(f"{at}: {problem}" if at else problem) from None


class _Builder:
    """Makes nodes of the parser's events, with a stack of its own: no depth of input can end the process."""

    def __init__(self, source: str) -> None:
        self.source = source
        # open maps and lists, with the key that waits for its value and that key's line
        self.stack: list[tuple[Node, str | None, int]] = []
        self.root: Node | None = None
        self.anchors: dict[str, Node | None] = {}
        self.names: list[str | None] = []  # anchors of what is on the stack
        self.count = 0

    def build(self, text: str) -> Node | None:
        documents = 0
        yaml: Any = parser()
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for event in yaml.parse(text, Loader=loader):
            mark = event.start_mark
            line = mark.line + 1 if mark is not None else 0
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise self.problem(line, "a second document begins, expected one")
                case yaml.ScalarEvent():
                    self.add(self.scalar(event, line), event.anchor, line)
                case yaml.AliasEvent():
                    self.add(self.alias(event.anchor or "", line), None, line)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self.tag(event.tag, line)
                    kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
                    self.open(Node(kind, line), event.anchor, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self.close()
        if self.root is not None:
            self.root.source = self.source
        return self.root

    def problem(self, line: int, text: str) -> ConfigError:
        at = f"{self.source}:{line}" if self.source else f"line {line}"
        # nodes are tied to their parents when they end, so the path is what waits on the stack
        path = shortened(".".join(key for _, key, _ in self.stack if key is not None))
        return ConfigError(f"{at}: {path}: {text}" if path else f"{at}: {text}")

    def tag(self, tag: str | None, line: int) -> str:
        if tag is None or tag == "!":
            return ""
        name = tag.removeprefix(_CORE_TAG)
        if name not in _CORE:
            raise self.problem(
                line, f"the YAML tag {shortened(tag, 60)!r} is not supported, expected plain values"
            )
        return name

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Node:
        tag = self.tag(event.tag, line)
        quoted = event.style in ("'", '"', "|", ">") or tag == "str" or event.tag == "!"
        if not quoted and event.value in _NULLS:
            return Node("null", line, event.value)
        return Node("scalar", line, _text(event.value, line, self.source), quoted)

    def alias(self, name: str, line: int) -> Node:
        if name not in self.anchors:
            raise self.problem(line, f"the alias *{shortened(name, 60)} has no anchor before it")
        node = self.anchors[name]
        if node is None:
            raise self.problem(line, f"the alias *{shortened(name, 60)} stands inside of what it names")
        self.counted(node.size - 1, line)
        if len(self.stack) + _depth(node) > MAX_DEPTH:
            raise self.problem(line, f"nested more than {MAX_DEPTH} deep")
        return node.copy(line)

    def counted(self, more: int, line: int) -> None:
        self.count += more
        if self.count > MAX_NODES:
            raise self.problem(line, f"more than {MAX_NODES} values, aliases counted each time")

    def add(self, node: Node, anchor: str | None, line: int) -> None:
        """A finished value, or a key."""
        self.counted(1, line)
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        parent, key, key_line = self.stack[-1]
        if parent.is_list:
            parent.adopt(len(parent.items), node)
        elif key is None:
            if node.kind not in ("scalar", "null"):
                raise self.problem(line, f"{node.describe()} as a key, expected text")
            if node.text in parent.entries:
                before = parent.entries[node.text].line
                raise self.problem(
                    line, f"the key {shortened(node.text, 60)!r} is there already, in line {before}"
                )
            self.stack[-1] = (parent, node.text, line)
        else:
            node.line = key_line
            parent.adopt(key, node)
            self.stack[-1] = (parent, None, 0)

    def open(self, node: Node, anchor: str | None, line: int) -> None:
        self.counted(1, line)
        if len(self.stack) >= MAX_DEPTH:
            raise self.problem(line, f"nested more than {MAX_DEPTH} deep")
        if self.stack and self.stack[-1][0].is_map and self.stack[-1][1] is None:
            raise self.problem(line, f"{node.describe()} as a key, expected text")
        if anchor:
            self.anchors[anchor] = None
        self.stack.append((node, None, 0))
        self.names.append(anchor)

    def close(self) -> None:
        node, _, _ = self.stack.pop()
        anchor = self.names.pop()
        if node.is_map and "<<" in node.entries:
            self.merge(node)
        self.count -= 1  # add() counts it again
        self.add(node, anchor, node.line)

    def merge(self, node: Node) -> None:
        """``<<: *other``: the entries of the other map that this one has not."""
        extra = node.entries.pop("<<")
        for other in extra.items if extra.is_list else [extra]:
            if not other.is_map:
                raise self.problem(extra.line, f"<<: {other.describe()}, expected a map")
            for key, child in other.entries.items():
                if key not in node.entries:
                    node.adopt(key, child)


def _depth(node: Node) -> int:
    return 1 + max((_depth(child) for child in node.children()), default=0)
