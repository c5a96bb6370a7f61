"""Packets off an interface for a while, one summary out."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from netprobe import arguments
from netprobe.handlers.config import DEFAULT_HANDLERS, parse_handlers
from netprobe.hosts import Hosts, host_spec, parse_hosts
from netprobe.policy.running import HandlerSet, InputStream
from netprobe.summary import PathLike, Summary, open_geo, shared_setting, topn_evicted

if TYPE_CHECKING:
    from netprobe.geo import GeoNames

__all__ = ["live"]

POLL_SECONDS = 0.05
# what summarize() says as well
STATS = ("packets_read", "packets", "filtered_out", "malformed", "losses", "first_ts", "last_ts")


def live(
    iface: str,
    *,
    seconds: float | None = 10,
    handlers: Any = None,
    hosts: Hosts = None,
    filter: str | None = None,
    geo: GeoNames | None = None,
    geo_city: PathLike | None = None,
    geo_asn: PathLike | None = None,
    source: str = "af_packet",
    periods: int = 5,
    deep_sample_rate: int = 100,
    window_config: dict[str, Any] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Capture on an interface for some seconds and summarise what came by.

    iface: name of an interface, an address that one has, or ``auto``: the busiest.
    seconds: how long; None: until ``stop`` is set or Ctrl-C is pressed, which also ends it earlier.
    hosts: CIDRs that count as the host's side, beside the networks of the interface.
    source: ``af_packet``, ``libpcap``, or ``mock`` for packets that are made up; the filter is not for these.
    periods: how many minutes are kept, the newest ones. The rest as for :func:`netprobe.summarize`.

    InputError: no such interface, no permission. ConfigError: a setting cannot be used.
    """
    if seconds is not None:
        seconds = arguments.seconds("seconds", seconds)
    periods = arguments.whole("periods", periods, 1, 10)
    deep_sample_rate = arguments.whole("deep_sample_rate", deep_sample_rate, 1, 100)
    arguments.method("stop", stop, "is_set", "a threading.Event")
    geo = open_geo(geo, geo_city, geo_asn)
    specs = parse_handlers(DEFAULT_HANDLERS if handlers is None else handlers)
    defaults = {"num_periods": periods, "deep_sample_rate": deep_sample_rate}
    configs = [spec.resolve(window_config=window_config, defaults=defaults) for spec in specs]
    periods = shared_setting("num_periods", configs)
    watched = HandlerSet(
        specs,
        configs,
        [spec.name for spec in specs],
        geo=geo,
        periods=periods,
        deep_sample_rate=shared_setting("deep_sample_rate", configs),
    )
    config: dict[str, Any] = {"iface": iface, "pcap_source": source}
    if bpf := arguments.expression("filter", filter):
        config["bpf"] = bpf
    if spec := host_spec(hosts):
        parse_hosts(spec)
        config["host_spec"] = spec
    stream = InputStream("live", "pcap", config, {})
    stream.attach(watched)
    interrupted = False
    try:
        stream.start()
        interrupted = _wait(stream, seconds, stop or threading.Event())
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stream.stop()
    if stream.error is not None:
        raise stream.error
    stats = stream.stats()
    windows = watched.window(periods) if periods > 1 else watched.bucket(0)
    stats = {key: stats[key] for key in STATS} | {
        "wire_bytes": stats["bytes"],
        "periods": watched.accumulated(),
        "streams": watched.engine().stats()["streams"],
    }
    stats["losses"]["topn_evicted"] = topn_evicted(windows)
    return Summary(
        windows,
        periods=periods,
        geo=geo,
        packets=stats["packets"],
        warnings=_warnings(iface, stats["losses"]),
        interrupted=interrupted,
        stats=stats,
    )


def _wait(stream: InputStream, seconds: float | None, stop: threading.Event) -> bool:
    """True: somebody wanted it to end before its time."""
    end = None if seconds is None else time.monotonic() + seconds
    while stream.running:
        rest = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
        if rest <= 0:
            return False
        if stop.wait(rest):
            # without a time, this is how it ends
            return end is not None
    return False


def _warnings(iface: str, losses: dict[str, int]) -> list[str]:
    said = {"os_drops": "by the kernel, for want of room", "if_drops": "by the interface or its driver"}
    return [
        f"{iface}: {losses[key]} packets were dropped {by}" for key, by in said.items() if losses.get(key)
    ]
