"""The agent's HTTP API (agent spec 3) as an ASGI app: what each route of `routes.ROUTES` answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from netprobe._version import __version__
from netprobe.agent import landing
from netprobe.agent.answers import Answer, empty, failure, html, json_answer, text
from netprobe.agent.auth import allows
from netprobe.agent.faces import ManagerFace, PolicyFace, policies_of, taps_of
from netprobe.agent.health import Health, inputs_of
from netprobe.agent.prometheus import pages_of
from netprobe.agent.rendering import Work
from netprobe.agent.routes import ALL_POLICIES, NAME_PATTERN, ROUTES, Route
from netprobe.agent.server import Server
from netprobe.errors import (
    ConfigError,
    ExistsError,
    NetprobeError,
    NoMatchError,
    NotFoundError,
    PeriodError,
)
from netprobe.metrics.window import window_key

__all__ = ["BODY_LIMIT", "App", "Server", "create_app"]

log = logging.getLogger(__name__)

# bytes of a request's body, and how long it may take
BODY_LIMIT = 1 << 20
BODY_SECONDS = 20.0
# methods that are counted by name; clients can think up any number of others
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
CONTENT_TYPES = (b"application/x-yaml", b"application/json")
NO_MATCH = "no tap match found for specified 'input.tap_selector' tags"
DEPRECATED = "deprecated: use /api/v1/metrics/bucket/0"


def create_app(
    manager: ManagerFace,
    *,
    admin: bool = False,
    admin_token: str | None = None,
    prom_instance: str | None = None,
    prom_style: str = "classic",
    stop: Callable[[], object] | None = None,
    version: str = __version__,
    health: Health | None = None,
) -> App:
    """The ASGI app over a manager of taps and policies.

    admin: register the routes that change something; admin_token: a bearer token that they ask for.
    prom_instance: label ``instance`` on every Prometheus sample. prom_style: ``classic`` (upstream's names
    and types) or ``modern``. stop: called once ``DELETE /api/v1/server`` has been answered.
    ConfigError for a style that does not exist.
    """
    return App(
        _Api(manager, admin, prom_instance, prom_style, stop, version, health or Health(manager, version)),
        admin_token,
    )


class App:
    """The app, with what belongs to it: ``health``, ``routes``, :meth:`start` and :meth:`close`."""

    def __init__(self, api: _Api, admin_token: str | None) -> None:
        self.api = api
        api.asks_token = admin_token is not None
        self.health = api.health
        self.routes = api.routes
        self.work = api.work
        api.health.queued = lambda: api.work.queued
        inner = Starlette(
            routes=[_route(api, row, admin_token) for row in api.routes],
            exception_handlers={404: _not_found, 405: _not_found},
        )
        inner.router.redirect_slashes = False
        self._app = _Logged(inner, api.health)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def start(self) -> None:
        """Have the threads that answer. InputError: there are none to be had."""
        self.work.begin()

    def close(self) -> None:
        """Let the threads end."""
        self.api.close()


# --- from requests to functions and back ---


def _route(api: _Api, row: Route, token: str | None) -> StarletteRoute:
    run: Callable[..., Answer] = getattr(api, row.name)

    async def endpoint(request: Request) -> Response:
        try:
            return _response(await _answer(api, row, run, request, token))
        except ClientDisconnect:
            # nobody is left to read this
            return _response(empty(400))

    path = row.path.replace("{tap}", "{tap:visor}").replace("{policy}", "{policy:visor}")
    return StarletteRoute(path.replace("{n}", "{n:digits}"), endpoint, methods=[row.method], name=row.name)


async def _answer(
    api: _Api, row: Route, run: Callable[..., Answer], request: Request, token: str | None
) -> Answer:
    if row.admin and token is not None and not allows(token, _only(request, b"authorization")):
        refused = failure(401, "this needs the admin token: Authorization: Bearer TOKEN", row.error_form)
        refused.headers["www-authenticate"] = "Bearer"
        return refused
    params = request.path_params
    if row.at_once:
        return guarded(row, run)
    if not row.admin:
        return await api.work.read((row.name, *params.values()), lambda: guarded(row, lambda: run(**params)))
    if row.body:
        if _only(request, b"content-type") not in CONTENT_TYPES:
            reason = "expected the header Content-Type: application/x-yaml or application/json, and no more"
            return failure(400, reason, row.error_form)
        body = await _body(request)
        if isinstance(body, Answer):
            return body
        return await api.work.change(lambda: guarded(row, lambda: run(body, **params)))
    return await api.work.change(lambda: guarded(row, lambda: run(**params)))


def guarded(row: Route, function: Callable[[], Answer]) -> Answer:
    """Errors become the route's answers (agent spec 3.1); one that nobody expected is logged in full."""
    form = row.error_form
    try:
        return function()
    except NotFoundError:
        answer = failure(404, row.missing, form)
    except ExistsError as error:
        answer = failure(409, str(error), form)
    except NoMatchError:
        answer = failure(422, NO_MATCH, form)
    except PeriodError as error:
        answer = failure(row.period_status, str(error), form)
    except NetprobeError as error:
        answer = failure(500, str(error), form)
    except Exception as error:
        log.exception("unexpected failure of %s %s", row.method, row.path)
        answer = failure(500, f"unexpected failure: {type(error).__name__}: {error}", form)
    if answer.status == 500:
        log.error("%s", answer.body[:2000].decode("utf-8", "replace"))
    return answer


async def _body(request: Request) -> bytes | Answer:
    """The request's body, within limits of size and time."""
    too_large = failure(413, f"the body is larger than {BODY_LIMIT} bytes", "json")
    if int(_only(request, b"content-length") or 0) > BODY_LIMIT:
        # before it is sent, if the client asks first
        return too_large
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                found += piece
                if len(found) > BODY_LIMIT:
                    return too_large
    except TimeoutError:
        return failure(408, f"the body did not come within {BODY_SECONDS:.0f} s", "json")
    return bytes(found)


def _only(request: Request, name: bytes) -> bytes | None:
    """The value of a header that is there once."""
    found = [value for key, value in request.scope["headers"] if key == name]
    return found[0] if len(found) == 1 else None


def _response(answer: Answer) -> Response:
    # as a header of its own the type is sent as it is: a media type would get a charset
    headers = {"content-type": answer.type, "x-content-type-options": "nosniff", **answer.headers}
    after = BackgroundTask(answer.after) if answer.after else None
    return Response(answer.body, answer.status, headers, background=after)


async def _not_found(request: Request, error: Exception) -> Response:
    return _response(empty(404))


class _Logged:
    """Counts each request and says so: `REQUEST: METHOD PATH STATUS` (agent spec 1.5)."""

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"date", formatdate(usegmt=True).encode()))
            await send(message)

        path: str = scope["path"]
        # a name cannot hold these, but a regular expression's end would let one newline pass
        if not path.isprintable():
            scope = {**scope, "path": "/%"}
        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # the server has waited long enough; a traceback would help nobody
            if not status:
                await _response(text("the agent is stopping", 503))(scope, receive, watched)
        finally:
            method = scope["method"]
            known = method if method in METHODS else "other"
            self._health.requests[known, status] += 1
            log.info("REQUEST: %s %s %d", method[:20], _shown(path), status)


def _shown(path: str) -> str:
    """A path fit for a log line."""
    text = path if path.isprintable() else path.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 300 else text[:297] + "..."


# --- what the routes answer ---


class _Api:
    """One method per row of the table, called off the event loop; a manager's errors pass through."""

    def __init__(
        self,
        manager: ManagerFace,
        admin: bool,
        instance: str | None,
        style: str,
        stop: Callable[[], object] | None,
        version: str,
        health: Health,
    ) -> None:
        self.health = health
        self.routes = [row for row in ROUTES if admin or not row.admin]
        self._manager = manager
        self._admin = admin
        self._stop = stop
        self._version = version
        self._pages = pages_of(style, manager, health, instance)
        self._document: Any = None
        self.asks_token = False
        self.work = Work()

    def close(self) -> None:
        self.work.close()
        self._pages.close()

    def landing(self) -> Answer:
        policies = sorted((name, one.periods) for name, one in policies_of(self._manager).items())
        answer = html(landing.page(self._version, self.health.up_seconds / 60, policies, self._admin))
        answer.headers.update(landing.HEADERS)
        return answer

    def healthz(self) -> Answer:
        return text("ok\n")

    def readyz(self) -> Answer:
        inputs = sorted(inputs_of(self._manager).items())
        still = [name for name, found in inputs if not (found.running or getattr(found, "ended", False))]
        if still:
            return text(f"not running: {', '.join(still)}\n", 503)
        # a cable is waited for: no restart would bring it back, and the other inputs count on
        down = [name for name, found in inputs if found.running and not found.interface_up]
        return text("ready\n" + (f"interface down or gone: {', '.join(down)}\n" if down else ""))

    def openapi(self) -> Answer:
        if self._document is None:
            from netprobe.agent.openapi import document

            self._document = document(self.routes, self._version, token=self.asks_token)
        return json_answer(self._document)

    def app_info(self) -> Answer:
        return json_answer({"app": {"version": self._version, "up_time_min": self.health.up_seconds / 60}})

    def rates(self) -> Answer:
        return json_answer({"packets": {"in": 0, "out": 0}, "warning": DEPRECATED})

    # taps

    def taps(self) -> Answer:
        return json_answer({name: tap.to_dict() for name, tap in taps_of(self._manager).items()})

    def tap(self, tap: str) -> Answer:
        found = taps_of(self._manager).get(tap)
        if found is None:
            raise NotFoundError(tap)
        return json_answer({tap: found.to_dict()})

    def create_tap(self, body: bytes) -> Answer:
        name = self._manager.add_tap(body)
        answer = self.tap(name)
        answer.status = 201
        return answer

    def delete_tap(self, tap: str) -> Answer:
        self._manager.remove_tap(tap)
        return json_answer({})

    # policies

    def policies(self) -> Answer:
        return json_answer({name: policy.to_dict() for name, policy in policies_of(self._manager).items()})

    def policy(self, policy: str) -> Answer:
        return json_answer({policy: self._policy(policy).to_dict()})

    def create_policy(self, body: bytes) -> Answer:
        name = self._manager.add_policy(body)
        answer = self.policy(name)
        answer.status = 201
        return answer

    def delete_policy(self, policy: str) -> Answer:
        self._manager.remove_policy(policy)
        return json_answer({})

    # metrics

    def policy_bucket(self, policy: str, n: str) -> Answer:
        return self._metrics(policy, lambda one: one.bucket_json(number(n)))

    def policy_window(self, policy: str, n: str) -> Answer:
        return self._metrics(policy, lambda one: one.window_json(number(n)))

    def default_bucket(self, n: str) -> Answer:
        document = self._policy("default").bucket_json(number(n))
        body = _flat(document)
        # for clients that take the time from the top, such as telegraf (agent spec 6.3)
        for handler in document.values():
            for metrics in handler.values():
                if "period" in metrics:
                    return json_answer({window_key(1): {**body, "period": metrics["period"]}})
        return json_answer({window_key(1): body})

    def default_window(self, n: str) -> Answer:
        document = self._policy("default").window_json(number(n))
        return json_answer({window_key(number(n)): _flat(document)})

    def default_prometheus(self) -> Answer:
        found = self._pages.default()
        return empty(404) if found is None else text(found)

    def agent_prometheus(self) -> Answer:
        return text(self._pages.agent())

    def policy_prometheus(self, policy: str) -> Answer:
        if policy == ALL_POLICIES:
            found, complete = self._pages.all()
            return text(found, 200 if complete else 500)
        return text(self._pages.policy(self._policy(policy)))

    def stop_server(self) -> Answer:
        answer = Answer(200, b"", "text/plain")
        answer.after = self._stop
        return answer

    def _policy(self, name: str) -> PolicyFace:
        found = policies_of(self._manager).get(name)
        if found is None:
            raise NotFoundError(name)
        return found

    def _metrics(self, name: str, read: Callable[[PolicyFace], dict[str, Any]]) -> Answer:
        if name != ALL_POLICIES:
            return json_answer({name: read(self._policy(name))})
        document = {}
        for each, policy in policies_of(self._manager).items():
            # a policy that has no such period is left out (agent spec 3.4.1)
            with contextlib.suppress(PeriodError):
                document[each] = read(policy)
        return json_answer(document)


def number(digits: str) -> int:
    """A period's number; ConfigError where upstream cannot convert it."""
    short = digits.lstrip("0") or "0"
    if len(short) > 19 or int(short) >= 1 << 63:
        raise ConfigError("the number of the period is out of range")
    return int(short)


def _flat(document: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Schema key -> metrics, without the level of handlers: the later one of a key wins."""
    found: dict[str, Any] = {}
    for handler in document.values():
        found.update(handler)
    return found


def _register_convertors() -> None:
    from starlette.convertors import StringConvertor, register_url_convertor

    class Visor(StringConvertor):
        regex = NAME_PATTERN

    class Digits(StringConvertor):
        regex = "[0-9]+"

    register_url_convertor("visor", Visor())
    register_url_convertor("digits", Digits())


_register_convertors()
