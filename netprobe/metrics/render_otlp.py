"""Windows as an OTLP metrics request (agent spec 3.4.3, 6.5; metrics spec 1.8).

One resource without attributes, one scope per policy; names, values and labels are those of the Prometheus
text, without the static ones. Unlike upstream's, a summary says its count and sum, and a histogram counts
right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from netprobe.metrics.keys import GeoNames
from netprobe.metrics.render_prometheus import Labels, labelled
from netprobe.metrics.window import RANKS, Cell, HandlerWindow

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ScopeMetrics

__all__ = ["points_in", "render"]

NS = 1_000_000_000


def render(
    policies: Iterable[tuple[str, Sequence[HandlerWindow]]],
    geo: GeoNames | None = None,
    now: Callable[[], int] = time.time_ns,
) -> ExportMetricsServiceRequest:
    """The request for these (policy, windows). ``now``, in nanoseconds, ends a bucket that is still open."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    # present, and empty
    resource.resource.SetInParent()
    for name, windows in policies:
        scope = resource.scope_metrics.add()
        scope.scope.name = f"pktvisor/{name}"
        _attribute(scope.scope.attributes, "policy_name", name)
        _Scope(scope, geo, now()).fill(windows)
        if not scope.metrics:
            del resource.scope_metrics[-1]
    return request


def points_in(request: ExportMetricsServiceRequest) -> int:
    """How many data points a request has."""
    found = 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for data in (metric.gauge, metric.summary, metric.histogram):
                    found += len(data.data_points)
    return found


class _Scope:
    """One policy's metrics: all points of a name, of whichever handler, in one."""

    def __init__(self, scope: ScopeMetrics, geo: GeoNames | None, now: int) -> None:
        self._scope = scope
        self._geo = geo
        self._now = now
        self._metrics: dict[tuple[str, str], Metric] = {}

    def fill(self, windows: Sequence[HandlerWindow]) -> None:
        for labels, window in labelled(windows):
            for direction, _, cells in window.sections():
                here = {**labels, "direction": direction} if direction else labels
                for cell in cells:
                    self._cell(cell, here)

    def _cell(self, cell: Cell, labels: Labels) -> None:
        match cell.metric.kind:
            case "counter" | "cardinality":
                self._gauge(cell, cell.count(), labels)
            case "topn":
                for row in cell.rows(self._geo):
                    if not row.label.name:
                        # upstream's rule: a point whose label is empty says nothing
                        continue
                    own = {**labels, cell.metric.label: row.label.name}
                    if row.label.lat is not None and row.label.lon is not None:
                        own.update(lat=row.label.lat, lon=row.label.lon)
                    self._gauge(cell, row.estimate, own)
            case "histogram":
                self._histogram(cell, labels)
            case "quantile" | "rate":
                self._summary(cell, labels)

    def _metric(self, cell: Cell, kind: str) -> Metric:
        name = cell.metric.prom
        found = self._metrics.get((name, kind))
        if found is None:
            found = self._scope.metrics.add(name=name, description=cell.metric.help)
            self._metrics[name, kind] = found
        return found

    def _span(self, cell: Cell) -> dict[str, int]:
        """The bucket's start and end, nanoseconds since 1970."""
        window = cell.window
        start = window.start_ts * NS
        end = start + window.length * NS if window.read_only else max(self._now, start)
        return {"start_time_unix_nano": start, "time_unix_nano": end}

    def _gauge(self, cell: Cell, value: int, labels: Labels) -> None:
        # a gauge's value is signed; no counter of ours gets there in a period
        point = self._metric(cell, "gauge").gauge.data_points.add(
            as_int=min(value, (1 << 63) - 1), **self._span(cell)
        )
        _attributes(point.attributes, labels)

    def _summary(self, cell: Cell, labels: Labels) -> None:
        found = cell.quantiles()
        if found is None:
            return
        point = self._metric(cell, "summary").summary.data_points.add(
            count=found.count, sum=float(found.sum), **self._span(cell)
        )
        for rank, value in zip(RANKS, found.values, strict=True):
            point.quantile_values.add(quantile=rank, value=float(value))
        _attributes(point.attributes, labels)

    def _histogram(self, cell: Cell, labels: Labels) -> None:
        buckets = cell.buckets()
        if not buckets:
            return
        from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

        histogram = self._metric(cell, "histogram").histogram
        histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        point = histogram.data_points.add(count=buckets[-1][1], **self._span(cell))
        point.explicit_bounds.extend(float(bound) for bound, _ in buckets[:-1])
        before = 0
        for _, cumulative in buckets:
            point.bucket_counts.append(cumulative - before)
            before = cumulative
        _attributes(point.attributes, labels)


def _attributes(into: object, labels: Mapping[str, str]) -> None:
    for name in sorted(labels):
        _attribute(into, name, labels[name])


def _attribute(into: object, name: str, value: str) -> None:
    # protobuf takes text that is UTF-8 only
    into.add(key=name).value.string_value = value.encode("utf-8", "backslashreplace").decode()  # type: ignore[attr-defined]
