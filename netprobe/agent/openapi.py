"""The OpenAPI 3.1 document: the rows of `routes.ROUTES`, with schemas made from the handlers' tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netprobe.agent.routes import ALL_POLICIES, NAME_PATTERN, Route
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics.table import DIRECTIONS, HandlerTable, Metric
from netprobe.metrics.window import RANK_KEYS

__all__ = ["document"]

Schema = dict[str, Any]

DESCRIPTION = """Metrics of a pktvisor agent. Upstream's conventions hold: JSON is sent as `text/json`;
unknown paths, wrong methods and, without the admin API, all routes that change something answer 404 with an
empty body; a document that cannot be used is answered with 500 and the reason."""
CONTENT = {"json": "text/json", "text": "text/plain", "html": "text/html"}
EXAMPLES: dict[str, Schema] = {
    "Tap": {"visor": {"taps": {"uplink": {"input_type": "pcap", "config": {"iface": "eth0"}}}}},
    "Policy": {
        "visor": {
            "policies": {
                "traffic": {
                    "kind": "collection",
                    "input": {"tap": "uplink", "input_type": "pcap"},
                    "handlers": {"modules": {"volume": {"type": "net"}, "names": {"type": "dns"}}},
                }
            }
        }
    },
}
BODY_TYPES = ("application/x-yaml", "application/json")


def document(routes: Iterable[Route], version: str, *, token: bool = False) -> Schema:
    """The document of these routes. ``token``: the admin routes ask for a bearer token."""
    routes = list(routes)
    paths: Schema = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, token)
    components: Schema = {"schemas": _schemas()}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    tags = sorted({route.tag for route in routes})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pktvisord",
            "version": version,
            "description": " ".join(DESCRIPTION.split()),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, token: bool) -> Schema:
    found: Schema = {
        "operationId": route.name,
        "summary": route.purpose,
        "tags": [route.tag],
        "responses": {
            str(status): _response(route, status, text)
            for status, text in sorted(_answers(route, token).items())
        },
    }
    if "{" in route.path:
        found["parameters"] = [
            _parameter(route, part[1:-1]) for part in route.path.split("/") if part[:1] == "{"
        ]
    if route.body:
        kind = "Tap" if "tap" in route.name else "Policy"
        media = {"schema": _ref(f"{kind}Document"), "example": EXAMPLES[kind]}
        found["requestBody"] = {"required": True, "content": dict.fromkeys(BODY_TYPES, media)}
    if token and route.admin:
        found["security"] = [{"token": []}]
    return found


def _answers(route: Route, token: bool) -> dict[int, str]:
    found = dict(route.answers)
    if "{" in route.path and 404 not in found:
        found[404] = ""
    if route.body:
        found[408] = "the body came too slowly"
    if token and route.admin:
        found[401] = "no admin token, or a wrong one"
    return found


def _response(route: Route, status: int, text: str) -> Schema:
    if status == 404:
        unknown = (
            "or, with an empty body, a path that is none: a name that is no name, a number that is no number"
        )
        text = f"{text}; {unknown}" if "{" in route.path and text else text or unknown
        content: Schema = {"text/plain": {"schema": {"type": "string"}}}
        if route.error_form == "json":
            content["text/json"] = {"schema": {"$ref": "#/components/schemas/Error"}}
        return {"description": text, "content": content}
    form = route.form if status < 300 else route.error_form
    if form == "empty":
        return {"description": text}
    name = route.schema if status < 300 else "Error"
    schema: Schema = {"$ref": f"#/components/schemas/{name}"} if form == "json" else {"type": "string"}
    # errors of HTML pages are plain text
    kind = CONTENT[form if status < 300 or form != "html" else "text"]
    return {"description": text, "content": {kind: {"schema": schema}}}


def _parameter(route: Route, name: str) -> Schema:
    if name == "n":
        text = "a period: 0 is the open one" if "bucket" in route.path else "how many periods are merged"
        schema: Schema = {"type": "string", "pattern": "^[0-9]+$"}
        example = "0" if "bucket" in route.path else "5"
    else:
        all_policies = f", or `{ALL_POLICIES}`" if "metrics" in route.path else ""
        text = f"a {name}{all_policies}"
        schema = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
        example = "default"
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": schema,
        "example": example,
    }


# --- schemas ---


def _object(properties: Schema, required: Sequence[str] | None = None, more: Any = False) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties if required is None else required),
        "additionalProperties": more,
    }


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANY_OBJECT: Schema = {"type": "object"}
OBJECT_OR_NULL: Schema = {"type": ["object", "null"]}


def _schemas() -> Schema:
    found: Schema = {
        "AnyObject": ANY_OBJECT,
        "Empty": {"type": "object", "maxProperties": 0},
        "Error": _object({"error": TEXT}, more=True),
        "App": _object(
            {"app": _object({"version": TEXT, "up_time_min": {"type": "number", "minimum": 0}}, more=True)}
        ),
        "Rates": _object({"packets": _object({"in": COUNT, "out": COUNT}), "warning": TEXT}),
        "Tap": _object(
            {"input_type": TEXT, "interface": TEXT, "config": OBJECT_OR_NULL, "tags": OBJECT_OR_NULL}
        ),
        "Taps": _map(_ref("Tap")),
        "Input": _object(
            {
                "module": _object({"name": TEXT, "config": OBJECT_OR_NULL}),
                "input": _object({"running": {"type": "boolean"}, "consumers": COUNT}),
            },
            more=True,
        ),
        "Module": _object(
            {
                "module": _object(
                    {"name": TEXT, "type": TEXT, "running": {"type": "boolean"}, "config": ANY_OBJECT}
                ),
                "metrics": _object(
                    {
                        "deep_sample_rate": COUNT,
                        "periods_configured": COUNT,
                        "periods": {"type": "array", "items": _ref("PeriodInfo")},
                    },
                    (),
                    more=True,
                ),
            },
            ("module",),
            more=True,
        ),
        "PeriodInfo": _object(
            {
                "start_tstamp": TEXT,
                "end_tstamp": TEXT,
                "read_only": {"type": "boolean"},
                "length": COUNT,
                "events": {"type": ["integer", "object"]},
            },
            ("start_tstamp", "read_only", "length"),
            more=True,
        ),
        "Policy": _object(
            {"taps": _map(_ref("Tap")), "input": _map(_ref("Input")), "modules": _map(_ref("Module"))},
            ("input", "modules"),
        ),
        "Policies": _map(_ref("Policy")),
        "TapDocument": _document("taps", _object({"input_type": TEXT}, more=True)),
        "PolicyDocument": _document(
            "policies",
            _object(
                {"kind": {"const": "collection"}, "input": ANY_OBJECT, "handlers": ANY_OBJECT}, more=True
            ),
        ),
        "Period": _object({"start_ts": {"type": "integer"}, "length": COUNT}),
        "TopRows": {
            "type": "array",
            "items": _object(
                {"name": TEXT, "estimate": COUNT, "lat": TEXT, "lon": TEXT}, ("name", "estimate")
            ),
        },
        "Histogram": _object({"buckets": _map({"type": "number", "minimum": 0})}),
        "Handler": _handlers(),
        "PolicyMetrics": _map(_map(_ref("Handler"))),
        "DefaultMetrics": {
            "type": "object",
            "patternProperties": {"^[0-9]+m$": _ref("Handler")},
            "additionalProperties": False,
        },
    }
    found.update({_schema_name(table): _table(table) for table in HANDLERS})
    return found


def _document(kind: str, item: Schema) -> Schema:
    names = {
        "type": "object",
        "patternProperties": {f"^{NAME_PATTERN}$": item},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return _object(
        {"version": {"enum": ["1.0", 1.0]}, "visor": _object({kind: names}, more=True)}, ("visor",), more=True
    )


def _schema_name(table: HandlerTable) -> str:
    return f"{table.key}_{table.version}"


def _handlers() -> Schema:
    """By schema key; where versions share one, either."""
    by_key: dict[str, list[Schema]] = {}
    for table in HANDLERS:
        by_key.setdefault(table.key, []).append(_ref(_schema_name(table)))
    properties = {key: refs[0] if len(refs) == 1 else {"anyOf": refs} for key, refs in by_key.items()}
    # handlers that are not in the tables, and the period beside them on the bucket of `default`
    properties["period"] = _ref("Period")
    return _object(properties, (), more=ANY_OBJECT)


def _table(table: HandlerTable) -> Schema:
    found = _object({}, (), more=False)
    for metric in table.metrics:
        _place(found, metric.path.split("."), metric)
    for direction in DIRECTIONS if table.block_metrics else ():
        for metric in table.block_metrics:
            _place(found, [direction, *metric.path.split(".")], metric)
    found["properties"]["period"] = _ref("Period")
    found["required"] = ["period"]
    found["description"] = table.summary
    return found


def _place(schema: Schema, path: Sequence[str], metric: Metric) -> None:
    for part in path[:-1]:
        schema = schema["properties"].setdefault(part, _object({}, (), more=False))
    schema["properties"][path[-1]] = _metric(metric)


def _metric(metric: Metric) -> Schema:
    number = {"type": "number"} if metric.is_float else {"type": "integer"}
    match metric.kind:
        case "counter" | "cardinality":
            found = dict(COUNT)
        case "topn":
            return {**_ref("TopRows"), "description": metric.help}
        case "histogram":
            return {**_ref("Histogram"), "description": metric.help}
        case "quantile":
            found = _object(dict.fromkeys(RANK_KEYS, number))
        case "rate":
            # `live` comes before the first second is over
            found = _object({**dict.fromkeys(RANK_KEYS, number), "live": number}, ())
    return {**found, "description": metric.help}
