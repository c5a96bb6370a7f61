"""The device API: look-up, creation, interfaces (kflow-wire.md, section 1)."""

from __future__ import annotations

import ipaddress
import json
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from netprobe.kentik.columns import Column, CustomColumns
from netprobe.kentik.endpoints import masked_url
from netprobe.kentik.errors import AuthenticationFailed, DeviceNotFound, RequestFailed, SetupFailed
from netprobe.kentik.http import Answer, Backoff, Session, is_transport_status

__all__ = ["ApiError", "Device", "DeviceApi", "NewDevice", "api_name"]

JSON = "application/json"
#: one attempt and so many more, all within the time of one request; look-ups only
LOOKUP_ATTEMPTS = 3

DEVICE_TYPE = "host-nprobe-dns-www"
DEVICE_SUBTYPE = "kprobe"


class ApiError(RequestFailed):
    """An answer that is not the wanted one, in the library's words."""


@dataclass(frozen=True)
class Device:
    """What is used of a device (kprobe.md 9.3). `max_flow_rate`: records per second."""

    id: int
    name: str
    company_id: int
    sample_rate: int
    max_flow_rate: int
    columns: CustomColumns

    @classmethod
    def parse(cls, document: Any) -> Device:
        """From the object behind the key `device`; numbers may come as strings. ValueError if it is none."""
        if not isinstance(document, dict):
            raise ValueError("no device in the answer")
        columns = document.get("custom_column_data") or []
        name = document.get("device_name")
        if not isinstance(name, str) or not isinstance(columns, list):
            raise ValueError("no usable device in the answer")
        return cls(
            id=_number(document, "id"),
            name=name,
            company_id=_number(document, "company_id"),
            sample_rate=_number(document, "device_sample_rate", 0),
            max_flow_rate=_number(document, "max_flow_rate", 0),
            columns=CustomColumns(_column(entry) for entry in columns),
        )


@dataclass(frozen=True)
class NewDevice:
    """What a device is created from (kprobe.md 9.2). `plan`, `site`: ids; site 0 is left out."""

    name: str
    address: str
    plan: int
    site: int = 0

    def document(self) -> dict[str, Any]:
        device: dict[str, Any] = {
            "device_name": api_name(self.name),
            "device_type": DEVICE_TYPE,
            "device_subtype": DEVICE_SUBTYPE,
            "device_description": self.name,
            "device_sample_rate": "1",
            "device_bgp_type": "none",
            "plan_id": self.plan,
            "site_id": self.site,
            "cdn_attr": "N",
            "sending_ips": [self.address],
        }
        for key in ("plan_id", "site_id"):
            if not device[key]:
                del device[key]
        return {"device": device}


def api_name(name: str) -> str:
    """A device's name as the API wants it: dots are underscores."""
    return name.replace(".", "_")


def _number(document: dict[str, Any], key: str, default: int | None = None) -> int:
    value = document.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{key} is not a number")
    try:
        return max(int(value), 0)
    except (ValueError, OverflowError):
        raise ValueError(f"{key} is not a number") from None


def _column(entry: Any) -> Column:
    if not isinstance(entry, dict) or not isinstance(entry.get("col_name"), str):
        raise ValueError("a custom column has no name")
    return Column(_number(entry, "field_id"), entry["col_name"], str(entry.get("col_type", "")))


class DeviceApi:
    """Calls of one process. `attempts`: how often a look-up is tried when the connection or server fails."""

    def __init__(
        self, session: Session, base: str, *, attempts: int = LOOKUP_ATTEMPTS, backoff: Backoff | None = None
    ) -> None:
        self._session = session
        self._base = base.rstrip("/")
        self._attempts = attempts
        self._backoff = backoff or Backoff()

    def close(self) -> None:
        self._session.close()

    def device(self, key: int | str) -> Device:
        """By id, name (dots or underscores) or address.

        AuthenticationFailed, DeviceNotFound, or SetupFailed for everything else.
        """
        if isinstance(key, str) and not _is_address(key):
            key = api_name(key)
        try:
            return self.lookup(key)
        except RequestFailed as error:
            raise SetupFailed(f"library setup error: device lookup error: {error}") from None

    def lookup(self, key: int | str) -> Device:
        """As `device`, for calls while running: failures other than 401 and 404 are RequestFailed."""
        answer = self._get(f"/device/{key}")
        if answer.status == 401:
            raise AuthenticationFailed
        if answer.status == 404:
            raise DeviceNotFound
        document = self._document(answer, 200)
        return self._device(document)

    def create(self, new: NewDevice) -> Device:
        """Create, then fetch by id, because the creation's answer lacks the custom columns. SetupFailed."""
        try:
            answer = self._send("POST", "/device/", new.document())
            created = self._device(self._document(answer, 201))
            return self.lookup(created.id)
        except DeviceNotFound:
            raise SetupFailed("library setup error: api: the created device cannot be found") from None
        except RequestFailed as error:
            raise SetupFailed(f"library setup error: {error}") from None

    def interfaces(self, device: Device) -> list[dict[str, Any]]:
        """The interfaces that are registered. RequestFailed."""
        document = self._document(self._get(f"/device/{device.id}/interfaces"), 200)
        if document is None:  # so says Go of an empty list
            return []
        if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
            self._reject("no list of interfaces in the answer")
        return list(document)

    def update_interfaces(self, device: Device, interfaces: dict[str, dict[str, Any]]) -> None:
        """Register interfaces, by name. RequestFailed."""
        path = f"/company/{device.company_id}/device/{device.id}/tags/snmp"
        answer = self._send("PUT", path, interfaces)
        if answer.status != 200:
            self._fail(answer)

    def _send(self, method: str, path: str, document: Any, total_s: float | None = None) -> Answer:
        body = None if document is None else json.dumps(document, separators=(",", ":")).encode()
        url = self._base + path
        answer = self._session.send(method, url, body, {"Content-Type": JSON}, total_s=total_s)
        if is_transport_status(answer.status):
            raise RequestFailed(gave_up(method, url, 1), answer.status)
        return answer

    def _get(self, path: str) -> Answer:
        deadline = time.monotonic() + self._session.total_s
        for attempt in range(1, self._attempts + 1):
            try:
                return self._send("GET", path, None, deadline - time.monotonic())
            except RequestFailed as error:
                wait = self._backoff.seconds(attempt)
                if attempt == self._attempts or time.monotonic() + wait >= deadline:
                    if error.status:
                        text = gave_up("GET", self._base + path, attempt)
                        raise RequestFailed(text, error.status) from None
                    raise
                time.sleep(wait)
        raise AssertionError("no attempt was made")

    def _document(self, answer: Answer, wanted: int) -> Any:
        if answer.status != wanted:
            self._fail(answer)
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            self._reject("the answer is not JSON")

    def _device(self, document: Any) -> Device:
        try:
            return Device.parse(document.get("device") if isinstance(document, dict) else None)
        except ValueError as error:
            self._reject(str(error))

    @staticmethod
    def _reject(text: str) -> NoReturn:
        raise ApiError(f"api: {text}", 200)

    @staticmethod
    def _fail(answer: Answer) -> NoReturn:
        raise ApiError(error_text(answer), answer.status)


def gave_up(method: str, url: str, attempts: int) -> str:
    """The library's words for a broken connection or server."""
    url = masked_url(url)
    return f'{method.capitalize()} "{url}": {method} {url} giving up after {attempts} attempts'


def error_text(answer: Answer) -> str:
    """`api: <error> (<status>)` from the answer's JSON, or the bare status (kflow-wire.md 1.4)."""
    if answer.status == 403:
        return "api: unauthorized (403)"
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str) and document["error"]:
        text = " ".join("".join(c if c.isprintable() else " " for c in document["error"]).split())
        return f"api: {text[:200]} ({answer.status})"
    return f"api: HTTP status code {answer.status}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
