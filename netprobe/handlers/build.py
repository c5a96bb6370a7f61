"""From checked settings to native accumulators, and the chains that they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netprobe.handlers.config import HandlerConfig, HandlerSpec
from netprobe.metrics.table import native_class

if TYPE_CHECKING:
    from netprobe.geo import GeoNames

__all__ = ["MAX_HANDLERS", "accumulators", "chains", "handler_losses"]

# of one engine
MAX_HANDLERS = 32


def accumulators(
    specs: Sequence[HandlerSpec], configs: Sequence[HandlerConfig], geo: GeoNames | None
) -> list[Any]:
    """One shard's accumulators, in the order of the specs."""
    city = geo.city_database.native if geo and geo.city_database else None
    asn = geo.asn_database.native if geo and geo.asn_database else None
    made = []
    addresses = None
    for spec, config in zip(specs, configs, strict=True):
        build: Any = native_class(config.table)
        extra: dict[str, Any] = {}
        if config.type == "net":
            # what one handler has looked up, the next need not
            from netprobe._core.peers import Addresses

            if addresses is None or addresses.full:
                addresses = Addresses(city, asn)
            extra = {"geo_names": geo, "addresses": addresses}
        made.append(build(config, geo_city=city, geo_asn=asn, chained=spec.after is not None, **extra))
    return made


def chains(specs: Sequence[HandlerSpec]) -> list[list[int]]:
    """Places of the handlers, chain by chain: each sees what the one before accepted."""
    found: list[list[int]] = []
    for index, spec in enumerate(specs):
        if spec.after is None:
            found.append([index])
        else:
            next(chain for chain in found if chain[-1] == spec.after).append(index)
    return found


def handler_losses(shards: Sequence[Sequence[Any]]) -> Mapping[str, int]:
    """What handlers had to throw out, all shards together."""
    health = [one.health() for shard in shards for one in shard if hasattr(one, "health")]
    evicted = sum(found.get("xact_evicted", 0) + found.get("evicted", 0) for found in health)
    return {"transactions_evicted": evicted}
