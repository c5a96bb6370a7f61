"""What can end the set-up, in words and codes that kprobe's users know (kprobe.md 1.4, kflow-wire.md 1.4)."""

from __future__ import annotations

from netprobe.errors import NetprobeError

__all__ = [
    "CODE_AUTHENTICATION",
    "CODE_CONFIGURATION",
    "CODE_NO_DEVICE",
    "AuthenticationFailed",
    "DeviceNotFound",
    "KentikError",
    "RequestFailed",
    "SetupFailed",
]

CODE_CONFIGURATION = 1
CODE_AUTHENTICATION = 7
CODE_NO_DEVICE = 8


class KentikError(NetprobeError):
    """Base. `code` is the library's number; `lines()` is what kprobe prints before it exits with 1."""

    code = CODE_CONFIGURATION

    def lines(self) -> list[str]:
        """`error: ...`, then one line per reason, indented by two blanks."""
        return [f"error: {self}"]


class AuthenticationFailed(KentikError):
    """The API answered 401 to a device look-up."""

    code = CODE_AUTHENTICATION

    def __init__(self) -> None:
        super().__init__("authentication failed")


class DeviceNotFound(KentikError):
    """There is no such device, and it could not be created."""

    code = CODE_NO_DEVICE

    def __init__(self) -> None:
        super().__init__("device not found")


class SetupFailed(KentikError):
    """Anything else that prevents the start: `reasons` are the library's texts."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("failed to configure libkflow: InvalidConfig")
        self.reasons = reasons

    def lines(self) -> list[str]:
        return [f"error: {self}", *(f"  {reason}" for reason in self.reasons)]


class RequestFailed(KentikError):
    """One request came to nothing. `status`: what was answered, 0 without an answer.

    `sent`: whether anything may have reached the server, so that repeating could double it.
    """

    def __init__(self, text: str, status: int = 0, *, sent: bool = True) -> None:
        super().__init__(text)
        self.status = status
        self.sent = sent
