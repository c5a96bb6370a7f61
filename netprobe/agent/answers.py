"""Answers of the web server: a status, a body, a content type."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "dumps", "empty", "failure", "html", "json_answer", "text"]

JSON_TYPE = "text/json"
TEXT_TYPE = "text/plain"
HTML_TYPE = "text/html; charset=utf-8"


@dataclass(slots=True)
class Answer:
    """What goes back. ``after`` is called once it has been sent."""

    status: int
    body: bytes
    type: str
    after: Callable[[], object] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def dumps(document: Any) -> bytes:
    """Compact JSON with keys in ascending order (agent spec 3.1)."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # a lone surrogate, which JSON and YAML can spell, goes back as the escape that it came as
    return text.encode("utf-8", "backslashreplace")


def json_answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, dumps(document), JSON_TYPE)


def text(body: str, status: int = 200) -> Answer:
    return Answer(status, body.encode("utf-8", "backslashreplace"), TEXT_TYPE)


def html(body: str, status: int = 200) -> Answer:
    return Answer(status, body.encode("utf-8", "backslashreplace"), HTML_TYPE)


def empty(status: int) -> Answer:
    return Answer(status, b"", TEXT_TYPE)


def failure(status: int, reason: str, form: str) -> Answer:
    """An error: `{"error": reason}`, or on text routes the reason alone."""
    return json_answer({"error": reason}, status) if form == "json" else text(reason, status)
