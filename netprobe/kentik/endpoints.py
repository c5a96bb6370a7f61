"""Where things go: the four base URLs of a region, each of which can be replaced (kprobe.md 9.4)."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from netprobe.errors import ConfigError

__all__ = ["DEFAULT_REGION", "Endpoints", "masked_url", "origin"]

DEFAULT_REGION = "US"


class Endpoints(NamedTuple):
    """Base URLs; an explicit one replaces the region's whole, path included."""

    api: str
    flow: str
    metrics: str
    dns: str

    @classmethod
    def of(
        cls,
        region: str | None = None,
        *,
        api: str | None = None,
        flow: str | None = None,
        metrics: str | None = None,
        dns: str | None = None,
    ) -> Endpoints:
        """The endpoints of a region (any case, US by default; no list of regions is checked).

        ConfigError for an URL that is not http or https, or that names no host.
        """
        name = (region or DEFAULT_REGION).lower()
        if not name.replace("-", "").replace(".", "").isalnum() or not name.isascii():
            raise ConfigError(f"--region {region}: not a region's name")
        domain = {"us": "kentik.com", "eu": "kentik.eu"}.get(name, f"{name}.kentik.com")
        explicit = {"api": api, "flow": flow, "metrics": metrics, "dns": dns}
        for key, url in explicit.items():
            if url is not None:
                check_url(f"--{key}-url", url)
        return cls(
            (api or f"https://api.{domain}/api/internal").rstrip("/"),
            flow or f"https://flow.{domain}/chf",
            metrics or f"https://flow.{domain}/tsdb",
            dns or f"https://flow.{domain}/dns",
        )


def check_url(where: str, url: str) -> str:
    """The URL itself if it can be used; ConfigError names the flag, and never shows a password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in url):
        raise ConfigError(
            f"{where} {masked_url(url)}: not a URL of the form http://host[:port]/path or https://..."
        )
    return url


def origin(url: str) -> str:
    """Scheme, host and port: for endpoints whose path is fixed (kflow-wire.md 4.1, 4.2)."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


def masked_url(url: str) -> str:
    """Fit to be printed: user and password, if the URL has any, are stars."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = "***@" + host.rpartition("@")[2]
    elif "@" in rest:  # a password with a slash in it
        host, slash, path = "***@" + rest.rpartition("@")[2], "", ""
    return f"{scheme}{separator}{host}{slash}{path}"
