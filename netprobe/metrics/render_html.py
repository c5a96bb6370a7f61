"""A summary as a small HTML table, for notebooks."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

MAX_ROWS = 5


def render(document: Mapping[str, Any], packets: int) -> str:
    """The document of ``Summary.to_dict``: one collapsible table per handler, all text escaped."""
    parts = [f"<div><b>netprobe</b>: {packets:,} packets"]
    for handlers in document.values():
        for number, (key, body) in enumerate(handlers.items()):
            rows = "".join(
                f"<tr><td>{escape(path)}</td><td style='text-align:right'>{escape(value)}</td></tr>"
                for path, value in _rows(body)
            )
            parts.append(
                f"<details{' open' if number == 0 else ''}><summary>{escape(key)}</summary>"
                f"<table>{rows}</table></details>"
            )
    return "".join(parts) + "</div>"


def _rows(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in body.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _rows(value, path + ".")
        elif isinstance(value, list):
            if value:
                yield path, ", ".join(f"{row['name']} {row['estimate']:,}" for row in value[:MAX_ROWS])
        else:
            yield path, f"{value:,}"
