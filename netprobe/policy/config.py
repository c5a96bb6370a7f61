"""The configuration document: its outline (agent spec 2.1), and what is wrong with it before anything runs.

Keys that pktvisor passes over in silence are passed over here too, with a line in :attr:`Outline.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netprobe.errors import ConfigError
from netprobe.policy.nodes import MAX_BYTES, Node, from_python, parse, plain, shortened

VERSION = "1.0"
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*")
# characters: names stand in every Prometheus sample and in paths, where a longer one could not be asked for
MAX_NAME = 200
TOP_KEYS = ("version", "visor")
VISOR_KEYS = ("config", "taps", "global_handler_config", "policies")
# of the metrics routes
RESERVED_POLICIES = ("__all",)


class Document(dict[str, Any]):
    """A document as maps and lists of Python (YAML 1.1), which also knows where in its text everything stood.

    ``root`` is None when there was nothing in the text.
    """

    def __init__(self, root: Node | None, source: str = "") -> None:
        self.root = root
        self.source = source
        super().__init__(plain(root) if root is not None and root.is_map else {})


Source = Document | Mapping[str, Any] | str | bytes


def load(path: str | Path) -> Document:
    """Read a file. ConfigError names it and why it cannot be used."""
    name = str(path)
    if not name:
        raise ConfigError("the path of the configuration is empty, expected a YAML file")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{shortened(name)}: {reason}") from None
    return Document(parse(data, name), name)


def document_of(source: Source, name: str = "") -> Document:
    """A document from text (YAML or JSON), from maps that Python code has made, or as it is."""
    if isinstance(source, Document):
        return source
    if isinstance(source, str | bytes):
        return Document(parse(source, name), name)
    return Document(from_python(source, name), name)


@dataclass
class Outline:
    """The parts of a document: nodes by name, in the order of the text.

    ``notes`` are warnings for the log, ``infos`` what is worth a line and no warning.
    """

    document: Document
    taps: dict[str, Node] = field(default_factory=dict)
    policies: dict[str, Node] = field(default_factory=dict)
    globals: dict[str, Node] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)

    def note_unknown(self, node: Node, known: tuple[str, ...]) -> None:
        """A line for each key of a map that nobody reads."""
        self.notes.extend(unknown_keys(node, known))


def unknown_keys(node: Node, known: tuple[str, ...]) -> Iterator[str]:
    for key in node.entries:
        if key not in known:
            yield f"{node.where(key)}: unknown key, ignored; expected one of {', '.join(known)}"


def outline_of_file(document: Document) -> Outline:
    """The outline of a whole configuration (``--config``): parts that are no maps are passed over."""
    root = document.root
    name = document.source or "the configuration"
    if root is None:
        raise ConfigError(f"{name}: empty, expected a map with the keys version and visor")
    if not root.is_map:
        raise root.error(f"{root.describe()}, expected a map with the keys version and visor")
    outline = Outline(document)
    if root.get("version") is None:
        outline.infos.append(f"{name}: no version, taken as {VERSION}")
    elif not _is_version(root):
        node = root.entries["version"]
        raise node.error(f"unsupported version: {node.describe()}, expected {VERSION}")
    visor = root.get("visor")
    if visor is None:
        raise root.error("missing, expected a map with taps and policies", "visor")
    if not visor.is_map:
        raise visor.error(f"{visor.describe()}, expected a map with taps and policies")
    for key in ("config", "taps", "policies"):
        part = visor.get(key)
        if part is not None and not part.is_map:
            outline.notes.append(f"{part.where()}: {part.describe()}, ignored; expected a map")
    _fill(outline, root, visor)
    return outline


def outline_of_request(document: Document, what: str) -> Outline:
    """The outline of a request's body, which holds one tap (``what`` is "taps") or one policy.

    The texts of the errors are those that pktvisor's clients match on.
    """
    root = document.root
    if root is None:
        raise ConfigError("empty data")
    if not root.is_map:
        raise ConfigError("invalid schema")
    visor = root.get("visor")
    if visor is None or not visor.is_map:
        raise ConfigError("invalid schema")
    if root.get("version") is not None and not _is_version(root):
        raise ConfigError("unsupported version")
    part = visor.get(what)
    if part is None or not part.is_map:
        raise ConfigError(f"no {what} found in schema")
    if len(part.entries) != 1:
        one = "one tap" if what == "taps" else "one policy"
        raise part.error(f"only {one} expected, {len(part.entries)} are given")
    outline = Outline(document)
    _fill(outline, root, visor)
    for key in VISOR_KEYS:
        if key != what and key in visor.entries:
            outline.notes.append(f"{visor.where(key)}: ignored in a request that creates {what}")
    return outline


def _is_version(root: Node) -> bool:
    node = root.entries["version"]
    return node.is_scalar and node.text == VERSION


def _fill(outline: Outline, root: Node, visor: Node) -> None:
    outline.note_unknown(root, TOP_KEYS)
    outline.note_unknown(visor, VISOR_KEYS)
    for part, found in (("taps", outline.taps), ("policies", outline.policies)):
        node = visor.get(part)
        if node is not None and node.is_map:
            found.update(node.entries)
    node = visor.get("global_handler_config")
    if node is not None:
        if not node.is_map:
            raise node.error(f"{node.describe()}, expected a map of handler types")
        outline.globals.update(node.entries)


# --- short readers, each with its error ---


def check_name(name: str, what: str, node: Node) -> None:
    """ConfigError unless ``name`` may name a tap, a policy or a handler."""
    if not NAME.fullmatch(name):
        raise node.error(
            f"{shortened(name, 60)!r} is no name for a {what}, "
            "expected letters, digits, _ and -, of which digits and - not first"
        )
    if len(name) > MAX_NAME:
        raise node.error(
            f"{shortened(name, 60)!r}: a name of {len(name)} characters for a {what}, "
            f"expected at most {MAX_NAME}"
        )


def want_map(node: Node, key: str, example: str = "") -> Node:
    """The map under a key that must be there."""
    found = node.get(key)
    hint = f", {example}" if example else ""
    if found is None:
        raise node.error(f"missing, expected a map{hint}", key)
    if not found.is_map:
        raise found.error(f"{found.describe()}, expected a map{hint}")
    return found


def maybe_map(node: Node, key: str) -> Node | None:
    """The map under a key, if the key is there."""
    found = node.get(key)
    if found is not None and not found.is_map:
        raise found.error(f"{found.describe()}, expected a map")
    return found


def want_scalar(node: Node, key: str, expected: str) -> str:
    """The text of the scalar under a key that must be there."""
    found = node.get(key)
    if found is None:
        raise node.error(f"missing, expected {expected}", key)
    if not found.is_scalar:
        raise found.error(f"{found.describe()}, expected {expected}")
    return found.text
