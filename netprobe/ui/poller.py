"""What to ask the agent next: window or bucket, one policy or the list of them (agent spec 5.1)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from netprobe._version import __version__
from netprobe.errors import NetprobeError
from netprobe.ui.client import AgentError
from netprobe.ui.picture import Picture, draw
from netprobe.ui.text import clean

__all__ = ["Choice", "Poller", "Update"]

INTERVAL_S = 1.0
FIRST_WINDOW = 5
MAX_WINDOW = 10
TOO_EARLY = 425
NOT_FOUND = 404

PERIOD_RANGE = re.compile(r"invalid metrics period, specify \[(\d{1,2}), (\d{1,2})\]")
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*")
#: schema keys of handlers of which something can be shown
SHOWN_KINDS = frozenset({"packets", "net", "dns", "dhcp", "pcap"})


class Client(Protocol):
    """What is asked of netprobe.ui.client.AgentClient."""

    def version(self) -> str: ...
    def metrics(self, policy: str, period: str) -> object: ...
    def policies(self) -> object: ...
    def close(self) -> None: ...


class Update(NamedTuple):
    """What one round brought. `picture` is None when there is nothing new to show; then `error` says why.

    `missing`: the agent has no such policy.
    """

    policy: str
    period: str
    server: str
    picture: Picture | None = None
    error: str = ""
    warning: str = ""
    missing: bool = False


class Choice(NamedTuple):
    """A policy that can be shown: its name, what it measures, how many periods it keeps (0: not said)."""

    name: str
    kinds: str
    periods: int


class Poller:
    """Asks once a second on its own thread; `deliver` gets an Update, or the answer to ask_policies()."""

    def __init__(
        self,
        client: Client,
        policy: str,
        deliver: Callable[[Update | list[Choice] | AgentError], object],
        *,
        interval: float = INTERVAL_S,
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._interval = interval
        self._wake = threading.Event()
        self._stopped = False
        self._listing = False
        self._chosen = policy
        self._policy = policy
        self._periods = FIRST_WINDOW
        self._server = ""
        self._warning = ""
        # a daemon: a host name that nobody resolves must not hold up the end of the program
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Without waiting for an answer that is under way."""
        self._stopped = True
        self._client.close()
        self._wake.set()

    def show(self, policy: str) -> None:
        """Ask for this policy from now on."""
        self._chosen = policy
        self._wake.set()

    def ask_policies(self) -> None:
        """Deliver the list of policies, or why there is none."""
        self._listing = True
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            if self._listing:
                self._listing = False
                self._hand_over(self._list())
            try:
                self._hand_over(self.round())
            except Exception as problem:
                # a defect of ours; a picture that stands still without a word would be worse
                detail = clean(f"{type(problem).__name__}: {problem}")
                self._hand_over(self._update(error=f"internal error: {detail}"))
            self._wake.wait(self._interval)

    def _hand_over(self, message: Update | list[Choice] | AgentError) -> None:
        if not self._stopped:
            self._deliver(message)

    # --- one policy's figures ---

    def round(self) -> Update:
        """Ask for the figures, and once more when the agent keeps another number of periods."""
        if self._chosen != self._policy:
            self._policy, self._periods = self._chosen, FIRST_WINDOW
        try:
            try:
                document = self._client.metrics(self._policy, self.period)
            except AgentError as problem:
                if not self._adapt(problem):
                    raise
                document = self._client.metrics(self._policy, self.period)
        except AgentError as problem:
            if problem.status:
                self._greet()  # it is there
            missing = problem.status == NOT_FOUND
            if missing:
                self._periods = FIRST_WINDOW  # made anew, it may keep another number
            return self._update(error=problem.reason)._replace(missing=missing)
        self._greet()
        picture = draw(document, self._policy)
        if picture is None:
            return self._update(
                error=f"policy {clean(self._policy, 60)} has no handler that can be shown here"
            )
        return self._update(picture)

    @property
    def period(self) -> str:
        """Where the figures are: a policy that keeps one period has no window."""
        return f"window/{self._periods}" if self._periods > 1 else "bucket/0"

    def _adapt(self, problem: AgentError) -> bool:
        """True when the agent has named another number of periods."""
        match = PERIOD_RANGE.search(problem.reason) if problem.status == TOO_EARLY else None
        if match is None:
            return False
        most = min(max(int(match[2]), 1), MAX_WINDOW)
        changed, self._periods = most != self._periods, most
        return changed

    def _update(self, picture: Picture | None = None, error: str = "") -> Update:
        return Update(self._policy, self.period, self._server or "unknown", picture, error, self._warning)

    def _greet(self) -> None:
        """The server's version, until it has said one."""
        if self._server:
            return
        try:
            self._server = self._client.version()
        except AgentError:
            return  # next time
        ours, theirs = __version__.partition(".")[0], self._server.partition(".")[0]
        if theirs.isdigit() and theirs != ours:
            self._warning = f"version mismatch: client {__version__}, server {self._server}"

    # --- the list of policies ---

    def _list(self) -> list[Choice] | AgentError:
        try:
            return choices(self._client.policies())
        except AgentError as problem:
            return problem


def choices(answer: object) -> list[Choice]:
    """The policies of which something can be shown, by name (agent spec 3.3, policy object)."""
    found = []
    for name, policy in answer.items() if isinstance(answer, Mapping) else ():
        modules = policy.get("modules") if isinstance(policy, Mapping) else None
        if not isinstance(modules, Mapping) or not NAME.fullmatch(name):
            continue
        kinds = [_get(handler, "module", "type") for handler in modules.values()]
        shown = sorted({kind for kind in kinds if isinstance(kind, str)} & SHOWN_KINDS)
        if shown:
            kept = [_get(handler, "metrics", "periods_configured") for handler in modules.values()]
            periods = max((n for n in kept if type(n) is int and 0 < n <= MAX_WINDOW), default=0)
            found.append(Choice(name, " ".join(shown), periods))
    return sorted(found)


def _get(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def check_policy(name: str) -> None:
    """NetprobeError when no policy can be called so (agent spec 2.1)."""
    if not NAME.fullmatch(name):
        raise NetprobeError(f"{clean(name, 60)!r}: not a policy's name, expected letters, digits, _ and -")
