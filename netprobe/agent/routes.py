"""What the agent answers over HTTP, as one table (agent spec 3.2): registered from it, described from it.

A row says method, path, what for, and what each status means. `web.py` has one method per row, of the row's
name; `openapi.py` turns the rows into the document; the tests compare `docs/rest.md` with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL_POLICIES", "NAME_PATTERN", "ROUTES", "Form", "Route"]

# names of taps, policies and handlers (agent spec 2.1)
NAME_PATTERN = "[a-zA-Z_][a-zA-Z0-9_-]*"
# in place of a policy's name, on the metrics routes
ALL_POLICIES = "__all"

Form = Literal["json", "text", "html", "empty"]

NO_TAP = "tap does not exists"
NO_POLICY = "policy does not exists"
NO_METRICS_POLICY = "policy does not exist"
NO_DEFAULT = 'no "default" policy exists'
TOO_EARLY = "there is no such period, or not yet"
FAILED = "unexpected failure"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    ``path`` has parameters in braces: tap and policy are names, n is digits. ``answers``: status -> what it
    means. ``form`` is that of the answer and of its errors. ``schema`` names the answer's schema in the
    OpenAPI document. ``missing`` is the wire literal of a 404. ``period_status`` is that of a period error.
    ``admin``: there only with the admin API. ``body``: takes YAML or JSON. ``at_once``: answered without a
    thread, so that it says something also while rendering is slow.
    """

    method: str
    path: str
    name: str
    tag: str
    purpose: str
    answers: Mapping[int, str]
    form: Form = "json"
    schema: str = ""
    missing: str = ""
    period_status: int = 500
    admin: bool = False
    body: bool = False
    at_once: bool = False

    @property
    def error_form(self) -> Form:
        """Of errors: an empty answer has JSON errors."""
        return "text" if self.form in ("text", "html") else "json"


def _policy_metrics(kind: str, purpose: str) -> Route:
    return Route(
        "GET",
        f"/api/v1/policies/{{policy}}/metrics/{kind}/{{n}}",
        f"policy_{kind}",
        "metrics",
        purpose,
        {200: "the metrics", 404: NO_METRICS_POLICY, 425: TOO_EARLY, 500: FAILED},
        schema="PolicyMetrics",
        missing=NO_METRICS_POLICY,
        period_status=425,
    )


def _default_metrics(kind: str, purpose: str) -> Route:
    return Route(
        "GET",
        f"/api/v1/metrics/{kind}/{{n}}",
        f"default_{kind}",
        "metrics",
        purpose,
        {200: "the metrics", 404: NO_DEFAULT, 500: f"{TOO_EARLY}; or {FAILED}"},
        schema="DefaultMetrics",
        missing=NO_DEFAULT,
    )


_CREATE = {
    400: "no Content-Type, or another one than application/x-yaml and application/json",
    409: "the name is taken already",
    413: "the body is too large",
    500: "the document cannot be used; the error names what is wrong",
}

ROUTES: tuple[Route, ...] = (
    Route(
        "GET", "/", "landing", "agent", "a page that links what is there", {200: "HTML", 500: FAILED}, "html"
    ),
    Route("GET", "/healthz", "healthz", "agent", "is the process there?", {200: "yes"}, "text", at_once=True),
    Route(
        "GET",
        "/readyz",
        "readyz",
        "agent",
        "do all inputs run?",
        {200: "yes", 503: "no; the text names those that do not"},
        "text",
    ),
    Route(
        "GET",
        "/api/v1/openapi.json",
        "openapi",
        "agent",
        "this description",
        {200: "an OpenAPI 3.1 document", 500: FAILED},
        schema="AnyObject",
    ),
    Route(
        "GET",
        "/api/v1/metrics/app",
        "app_info",
        "agent",
        "version and time since the start",
        {200: "the program", 500: FAILED},
        schema="App",
        at_once=True,
    ),
    Route(
        "GET",
        "/api/v1/metrics/rates",
        "rates",
        "metrics",
        "deprecated, always the same answer: use bucket 0",
        {200: "zeros and a warning", 500: FAILED},
        schema="Rates",
        at_once=True,
    ),
    _default_metrics("bucket", "one period of the policy `default`; 0 is the open one"),
    _default_metrics("window", "the newest n periods of the policy `default`, merged"),
    Route(
        "GET",
        "/metrics",
        "default_prometheus",
        "metrics",
        "Prometheus text of the policy `default`, and of the agent itself",
        {200: "the text", 404: "there is no policy `default`; the body is empty", 500: FAILED},
        "text",
    ),
    Route(
        "GET",
        "/metrics/agent",
        "agent_prometheus",
        "metrics",
        "Prometheus text of the agent itself",
        {200: "the text", 500: FAILED},
        "text",
    ),
    Route(
        "GET",
        "/api/v1/taps",
        "taps",
        "taps",
        "all taps",
        {200: "tap by name", 500: FAILED},
        schema="Taps",
    ),
    Route(
        "GET",
        "/api/v1/taps/{tap}",
        "tap",
        "taps",
        "one tap",
        {200: "the tap, under its name", 404: NO_TAP, 500: FAILED},
        schema="Taps",
        missing=NO_TAP,
    ),
    Route(
        "POST",
        "/api/v1/taps",
        "create_tap",
        "taps",
        "create a tap",
        {201: "the tap, under its name", **_CREATE},
        schema="Taps",
        admin=True,
        body=True,
    ),
    Route(
        "DELETE",
        "/api/v1/taps/{tap}",
        "delete_tap",
        "taps",
        "remove a tap; what runs goes on",
        {200: "an empty object", 404: NO_TAP, 500: FAILED},
        schema="Empty",
        missing=NO_TAP,
        admin=True,
    ),
    Route(
        "GET",
        "/api/v1/policies",
        "policies",
        "policies",
        "all policies",
        {200: "policy by name", 500: FAILED},
        schema="Policies",
    ),
    Route(
        "GET",
        "/api/v1/policies/{policy}",
        "policy",
        "policies",
        "one policy",
        {200: "the policy, under its name", 404: NO_POLICY, 500: FAILED},
        schema="Policies",
        missing=NO_POLICY,
    ),
    Route(
        "POST",
        "/api/v1/policies",
        "create_policy",
        "policies",
        "create and start a policy",
        {201: "the policy, under its name", **_CREATE, 422: "no tap has the tags that are selected"},
        schema="Policies",
        admin=True,
        body=True,
    ),
    Route(
        "DELETE",
        "/api/v1/policies/{policy}",
        "delete_policy",
        "policies",
        "stop and remove a policy",
        {200: "an empty object", 404: NO_POLICY, 500: FAILED},
        schema="Empty",
        missing=NO_POLICY,
        admin=True,
    ),
    _policy_metrics("bucket", "one period of a policy, or of `__all`"),
    _policy_metrics("window", "the newest n periods of a policy, or of `__all`, merged"),
    Route(
        "GET",
        "/api/v1/policies/{policy}/metrics/prometheus",
        "policy_prometheus",
        "metrics",
        "Prometheus text of a policy, or of `__all`",
        {200: "the text", 404: NO_POLICY, 500: FAILED},
        "text",
        missing=NO_POLICY,
    ),
    Route(
        "DELETE",
        "/api/v1/server",
        "stop_server",
        "agent",
        "stop the agent",
        {200: "it stops; the body is empty"},
        "empty",
        admin=True,
    ),
)
