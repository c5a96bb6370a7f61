"""The page at `/`: what this agent serves, as links. Nothing on it is loaded from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["HEADERS", "page"]

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'",
    "referrer-policy": "no-referrer",
}

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:1.5rem}td{padding:.15rem 1rem .15rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181a1b}a{color:#8ab4f8}}"
)


def page(version: str, minutes: float, policies: Iterable[tuple[str, int]], admin: bool) -> str:
    """HTML for people who point a browser at the agent.

    ``minutes`` since the start; ``policies``: name and how many periods each keeps.
    """
    rows = "".join(_policy(name, periods) for name, periods in policies)
    table = f"<table>{rows}</table>" if rows else "<p>None.</p>"
    access = "Read and write: the admin API is on." if admin else "Read-only: the admin API is off."
    links = "".join(f"<li>{_link(path)} – {text}</li>" for path, text in _GENERAL)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>pktvisord</title><style>{STYLE}</style></head><body>"
        f"<h1>pktvisord {escape(version)}</h1><p>Up for {minutes:.0f} min. {access}</p>"
        f"<h2>This agent</h2><ul>{links}</ul><h2>Policies</h2>{table}</body></html>\n"
    )


_GENERAL = (
    ("/metrics", "Prometheus, policy <code>default</code> and the agent"),
    ("/metrics/agent", "Prometheus, the agent alone"),
    ("/api/v1/policies/__all/metrics/prometheus", "Prometheus, all policies"),
    ("/api/v1/policies", "policies"),
    ("/api/v1/taps", "taps"),
    ("/api/v1/metrics/app", "version and up-time"),
    ("/api/v1/openapi.json", "all routes, as OpenAPI 3.1"),
    ("/healthz", "is the process there?"),
    ("/readyz", "do all inputs run?"),
)


def _link(path: str, text: str = "") -> str:
    return f'<a href="{escape(path)}">{escape(text or path)}</a>'


def _policy(name: str, periods: int) -> str:
    base = f"/api/v1/policies/{name}"
    # one period is no window
    window = _link(f"{base}/metrics/window/{periods}", f"{periods} periods") if periods > 1 else ""
    cells = (
        _link(base, name),
        _link(f"{base}/metrics/bucket/0", "now"),
        window,
        _link(f"{base}/metrics/prometheus", "Prometheus"),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
