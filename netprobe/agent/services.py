"""Names of services by port: IANA's registry as CSV (agent spec 1.1)."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from netprobe.errors import ConfigError

__all__ = ["NAME", "PORT", "PROTOCOL", "read_services"]

NAME, PORT, PROTOCOL = "Service Name", "Port Number", "Transport Protocol"
PROTOCOLS = ("tcp", "udp")
MAX_PORT = 65535
#: IANA's own file has 1.2 MB
MAX_BYTES = 64 << 20


def read_services(path: str) -> dict[tuple[str, int], str]:
    """(`tcp` or `udp`, port) -> name; of several names of a port the first. Rows without these are skipped.

    ConfigError names the file when it cannot be read or is no such table.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        reason = os.strerror(problem.errno).lower() if problem.errno else str(problem)
        raise ConfigError(f"service registry {path}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"service registry {path}: larger than {MAX_BYTES >> 20} MiB, expected IANA's CSV")
    # a null byte would end the csv module's reading with an error
    lines = data.decode("utf-8-sig", "replace").replace("\0", " ").splitlines(keepends=True)
    rows = csv.DictReader(lines, restkey="rest", restval="")
    services: dict[tuple[str, int], str] = {}
    try:
        missing = [name for name in (NAME, PORT, PROTOCOL) if name not in (rows.fieldnames or ())]
        if missing:
            raise ConfigError(f"service registry {path}: no column {missing[0]!r}, expected IANA's CSV")
        for row in rows:
            name, protocol = row[NAME].strip(), row[PROTOCOL].strip().lower()
            if name and protocol in PROTOCOLS:
                for port in _ports(row[PORT]):
                    services.setdefault((protocol, port), name)
    except csv.Error as problem:
        raise ConfigError(f"service registry {path}: line {rows.line_num}: {problem}") from None
    return services


def _ports(text: str) -> range:
    """`80` or `6000-6063`; nothing for anything else."""
    first, _, last = (part.strip() for part in text.partition("-"))
    last = last or first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        return range(0)
    if len(first) > 5 or len(last) > 5 or int(last) > MAX_PORT:
        return range(0)
    return range(int(first), int(last) + 1)
