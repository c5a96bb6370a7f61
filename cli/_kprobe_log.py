"""kprobe's log: how much of it, by the number of -v, or by RUST_LOG as the original reads it."""

from __future__ import annotations

import logging
import sys

__all__ = ["start_log", "wanted_level"]

#: RUST_LOG's words -> the number of -v that says as much, or, for less than without any, the log's level
QUIET = {"off": logging.CRITICAL + 1, "error": logging.ERROR, "warn": logging.WARNING}
VERBOSE = {"info": 0, "debug": 1, "trace": 3}
PROGRAM = "kprobe"


def start_log(verbose: int, rust_log: str = "") -> None:
    """0: what happens. 1: more of it. 2: Kentik's side too. 3: and its HTTP. `rust_log` counts without -v."""
    word = None if verbose else wanted_level(rust_log)
    if word is not None:
        verbose = VERBOSE.get(word, 0)
    least = QUIET.get(word or "", logging.INFO)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else least,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("netprobe.kentik").setLevel(logging.DEBUG if verbose > 1 else least)
    # the HTTP stack says a lot; headers, and so the token, are not among it
    logging.getLogger("urllib3").setLevel(logging.DEBUG if verbose > 2 else max(least, logging.WARNING))


def wanted_level(rust_log: str) -> str | None:
    """The level for this program in a list such as `warn,kprobe=debug,hyper=off`; None: it names none.

    What is for others is passed over, as is a filter of texts behind a slash. A name alone means everything.
    """
    found: dict[str, str] = {}
    for part in rust_log.partition("/")[0].split(","):
        target, equals, level = (word.strip() for word in part.partition("="))
        if not target:
            continue
        if not equals and target.lower() in (*QUIET, *VERBOSE):
            target, level = "", target
        elif not equals:
            level = "trace"
        if level.lower() in (*QUIET, *VERBOSE):
            found[target] = level.lower()
    return found.get(PROGRAM, found.get(""))
