"""The OpenAPI document describes what is there: by its own schema, by schemathesis, and by the routes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import hypothesis
import jsonschema_rs
import pytest
import requests
import schemathesis
from agent_fakes import DEMO, FakePolicy, Running, demo_manager, running, windows_of
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from netprobe.agent.openapi import document
from netprobe.agent.routes import ROUTES
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics.table import rows_of

# upstream answers 500 to what cannot be used and 404 to wrong methods, so these three are not for us
NOT_OURS = {"not_a_server_error", "unsupported_method", "negative_data_rejection"}
OURS = [response_schema_conformance, content_type_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """An agent with something in every kind of answer, whose changes go nowhere lasting."""
    manager = demo_manager()
    everything = [
        {"type": table.type, "version": table.version, "metric_groups": {"enable": ["all"]}}
        for table in HANDLERS
        if table.type in ("net", "dns", "dhcp", "bgp", "pcap")
    ]
    bucket = windows_of(DEMO, 1_700_000_000, everything)
    manager.policies["everything"] = FakePolicy("everything", [bucket, bucket])
    # schemathesis deletes and creates: what it finds next should be the same
    remove_tap, remove_policy = manager.remove_tap, manager.remove_policy

    def put_back(items: dict[str, Any], remove: Any) -> Any:
        def instead(name: str) -> None:
            before = dict(items)
            remove(name)
            items.update(before)

        return instead

    manager.remove_tap = put_back(manager.taps, remove_tap)
    manager.remove_policy = put_back(manager.policies, remove_policy)
    with running(manager, admin=True) as made:
        yield made


def test_names_of_the_checks() -> None:
    assert set(CHECKS.get_all_names()) >= NOT_OURS


# schemathesis' own pytest plugin does not work with pytest 9: its strategies do
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), [(row.method, row.path) for row in ROUTES])
def test_schemathesis(server: Running, method: str, path: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(server.url + "/api/v1/openapi.json")
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and "{" not in path and operation.body is None:
        return
    log = _Errors()
    logger = logging.getLogger("netprobe.agent")
    seen = 0

    @hypothesis.settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        nonlocal seen
        seen += 1
        case.validate_response(case.call(timeout=20), checks=OURS)

    logger.addHandler(log)
    try:
        run()
    except hypothesis.errors.Unsatisfiable:
        # nothing can be wrong about this operation
        assert mode is GenerationMode.NEGATIVE
        return
    finally:
        logger.removeHandler(log)
    assert seen
    assert log.unexpected == []


class _Errors(logging.Handler):
    """Keeps log lines about failures that nobody expected."""

    def __init__(self) -> None:
        super().__init__()
        self.unexpected: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or "unexpected failure" in record.getMessage():
            self.unexpected.append(record.getMessage())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"content": b'{"default":{"input_type":7}}'}, "schema"),
        ({"status_code": 418}, "418"),
        ({"headers": {"content-type": ["text/plain"]}}, "text/plain"),
    ],
)
def test_a_wrong_answer_is_found(server: Running, change: dict[str, Any], text: str) -> None:
    """The checks look: an answer that the document does not allow fails them."""
    found = schemathesis.openapi.from_url(server.url + "/api/v1/openapi.json")
    case = found["/api/v1/taps"]["GET"].Case()
    case.validate_response(case.call(), checks=OURS)
    # a response remembers what it has read, so each change needs a new one
    response = case.call()
    for name, value in change.items():
        setattr(response, name, value)
    with pytest.raises(BaseExceptionGroup) as error:
        case.validate_response(response, checks=OURS)
    assert text in "".join(str(one) for one in error.value.exceptions)


def test_all_answers_fit_their_schemas(server: Running) -> None:
    """Every GET, with jsonschema's own eyes: all handlers, all metric groups."""
    whole = requests.get(server.url + "/api/v1/openapi.json", timeout=20).json()
    seen = 0
    for path, methods in whole["paths"].items():
        answers = methods.get("get", {}).get("responses", {}).get("200", {})
        content = answers.get("content", {}).get("text/json")
        if content is None:
            continue
        validator = jsonschema_rs.validator_for(
            {**content["schema"], "components": whole["components"]}, base_uri="urn:agent"
        )
        for policy in ("default", "everything", "__all"):
            url = path.replace("{policy}", policy).replace("{tap}", "default").replace("{n}", "2")
            url = url.replace("bucket/2", "bucket/1")
            answer = requests.get(server.url + url, timeout=20)
            if answer.status_code == 200:
                validator.validate(answer.json())
                seen += 1
    assert seen > 15


@pytest.mark.parametrize(("admin", "token"), [(False, False), (True, False), (True, True)])
def test_document_has_all_routes_and_no_others(admin: bool, token: bool) -> None:
    routes = [row for row in ROUTES if admin or not row.admin]
    found = document(routes, "1.2.3", token=token)
    assert found["openapi"].startswith("3.1.")
    assert found["info"]["version"] == "1.2.3"
    there = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert there == {(row.method, row.path) for row in routes}
    names = [one["operationId"] for methods in found["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))
    for row in routes:
        operation = found["paths"][row.path][row.method.lower()]
        codes = {int(code) for code in operation["responses"]}
        assert codes >= set(row.answers)
        assert (401 in codes) is ("security" in operation) is (token and row.admin)
    assert ("securitySchemes" in found["components"]) is token
    # every reference leads somewhere
    schemas = found["components"]["schemas"]
    for name in references(found):
        assert name in schemas


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].removeprefix("#/components/schemas/")
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from references(one)


def test_upstreams_codes_are_there() -> None:
    """The table of agent spec 3.2, copied here by hand."""
    wanted = {
        ("GET", "/api/v1/metrics/app"): {200, 500},
        ("GET", "/api/v1/metrics/rates"): {200, 500},
        ("GET", "/api/v1/metrics/bucket/{n}"): {200, 404, 500},
        ("GET", "/api/v1/metrics/window/{n}"): {200, 404, 500},
        ("GET", "/metrics"): {200, 404, 500},
        ("GET", "/api/v1/taps"): {200, 500},
        ("GET", "/api/v1/taps/{tap}"): {200, 404, 500},
        ("POST", "/api/v1/taps"): {201, 400, 409, 500},
        ("DELETE", "/api/v1/taps/{tap}"): {200, 404, 500},
        ("GET", "/api/v1/policies"): {200, 500},
        ("GET", "/api/v1/policies/{policy}"): {200, 404, 500},
        ("POST", "/api/v1/policies"): {201, 400, 409, 422, 500},
        ("DELETE", "/api/v1/policies/{policy}"): {200, 404, 500},
        ("GET", "/api/v1/policies/{policy}/metrics/bucket/{n}"): {200, 404, 425, 500},
        ("GET", "/api/v1/policies/{policy}/metrics/window/{n}"): {200, 404, 425, 500},
        ("GET", "/api/v1/policies/{policy}/metrics/prometheus"): {200, 404, 500},
        ("DELETE", "/api/v1/server"): {200},
    }
    rows = {(row.method, row.path): set(row.answers) for row in ROUTES}
    # beyond upstream: a body that is too large
    assert {at: rows[at] - {413} for at in wanted} == wanted
    beyond = {"/", "/healthz", "/readyz", "/api/v1/openapi.json", "/metrics/agent"}
    assert {path for _, path in rows.keys() - wanted.keys()} == beyond


def test_every_metric_has_a_place() -> None:
    schemas = document(ROUTES, "1")["components"]["schemas"]
    for table in HANDLERS:
        found = schemas[f"{table.key}_{table.version}"]
        for name in rows_of(table):
            at = found
            for part in name.replace("D.", "in.").split("."):
                at = at["properties"][part]
