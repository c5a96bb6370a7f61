"""The tables of docs/configuration.md, made from the tables in the code.

``python -m netprobe.policy.doc docs/configuration.md`` brings them up to date; the text around is written by
hand. A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from netprobe.errors import ConfigError
from netprobe.handlers.registry import HANDLERS
from netprobe.policy import inputs, nodes
from netprobe.policy.config import MAX_NAME
from netprobe.policy.inputs import INPUT_TYPES, PCAP, input_type, same_type
from netprobe.policy.modules import MAX_MODULES, RESOURCES

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = Sequence[str]


def render(page: str) -> str:
    """The page with its tables as they are now. ConfigError for a name that no table has."""

    def table(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise ConfigError(f"there is no table {name!r}, expected one of {', '.join(TABLES)}")
        return f"{match[1]}\n{_table(*TABLES[name]())}\n{match[3]}"

    return MARKED.sub(table, page)


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "".join(line + "\n" for line in lines)


def _inputs() -> tuple[Row, Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for name in INPUT_TYPES:
            kind = input_type(name)
            what = kind.summary if name == same_type(name) else f"another name for `{same_type(name)}`"
            handlers = ", ".join(f"`{one}`" for one in kind.handlers if one in _types() and one != RESOURCES)
            yield (
                f"`{name}`",
                what,
                "yes" if kind.built else "not in this version",
                handlers if kind.built else "",
            )

    return ("input_type", "what it is", "runs", "handlers that it can feed"), rows()


def _types() -> set[str]:
    return {table.type for table in HANDLERS}


def _pcap() -> tuple[Row, Iterator[Row]]:
    rows = (
        (f"`{key}`", row.form, row.default, row.help + (" (also in `filter`)" if key in PCAP.filter else ""))
        for key, row in (PCAP.config or {}).items()
    )
    return ("key", "type", "without it", "meaning"), rows


def _handlers() -> tuple[Row, Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for table in HANDLERS:
            if table.type == RESOURCES:
                continue
            groups = ", ".join(
                f"**{group.name}**" if group.default else group.name
                for group in sorted(table.groups, key=lambda group: group.name)
            )
            options = ", ".join(f"`{key}`" for key in table.options)
            yield f"`{table.type}`", table.version, f"`{table.key}`", groups or "none", options

    return ("type", "version", "schema key", "metric groups (**bold**: on by default)", "settings"), rows()


def _limits() -> tuple[Row, Iterable[Row]]:
    return ("limit", "value"), (
        ("size of a document", f"{nodes.MAX_BYTES >> 20} MiB (a request's body: 1 MiB)"),
        ("depth", f"{nodes.MAX_DEPTH}"),
        ("values in all, those behind aliases counted each time", f"{nodes.MAX_NODES:,}"),
        ("characters in the name of a tap, a policy or a handler", f"{MAX_NAME}"),
        ("handlers of a policy", f"{MAX_MODULES}"),
        ("whole numbers", "0 to 2^64 - 1"),
        (
            "a capture filter",
            f"{inputs.MAX_FILTER:,} characters, and {inputs.MAX_INSTRUCTIONS:,} instructions before they are "
            "optimised: about 300 hosts or 140 ports, one by one",
        ),
    )


TABLES: dict[str, Callable[[], tuple[Row, Iterable[Row]]]] = {
    "inputs": _inputs,
    "pcap": _pcap,
    "handlers": _handlers,
    "limits": _limits,
}


def main(paths: Sequence[str]) -> None:
    for path in map(Path, paths):
        path.write_text(render(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
