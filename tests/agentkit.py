"""A real pktvisord inside a network namespace, and HTTP to it.

::

    with netns.pair() as (sender, receiver):
        agent = Agent(receiver, receiver.iface, "--admin-api")     # returns when it listens
        sender.replay(CAPTURES / "demo.pcap")
        agent.json("metrics/window/5")["5m"]["packets"]["total"]
        assert agent.stop() == 0

The namespace has its own loopback, so every agent has pktvisor's default port to itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import netns

ROOT = Path(__file__).resolve().parents[1]
CAPTURES = ROOT / "tests" / "captures"
PORT = 10853
#: what the console script runs; SIGUSR1 has it say where it is
PKTVISORD = [
    sys.executable,
    "-c",
    "import faulthandler, signal, sys; faulthandler.register(signal.SIGUSR1); "
    "from netprobe.cli.pktvisord import main; sys.exit(main())",
]
LOG_LINE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] \[visor\] \[(debug|info|warning|error)\] (.*)"
)
#: the part of /proc that says what a process may do
CAPTURE_ONLY = f"{1 << 12 | 1 << 13:016x}"


class Answer(NamedTuple):
    status: int
    type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Agent:
    """pktvisord with these arguments; `start=False`: it is left to the caller what to wait for."""

    def __init__(
        self,
        namespace: netns.Namespace,
        *arguments: str,
        port: int = PORT,
        tls: bool = False,
        start: bool = True,
        program: Sequence[str] = PKTVISORD,
        **popen: Any,
    ) -> None:
        self.namespace = namespace
        self.port = port
        self.scheme = "https" if tls else "http"
        self.program = namespace.popen(*program, *arguments, **popen)
        if start:
            self.port = int(self._listening()[1])

    def _listening(self) -> re.Match[str]:
        try:
            return self.program.wait_for(r"web server listening on \S+:(\d+)")
        except AssertionError as problem:
            if self.program.process.poll() is None:
                self.send(signal.SIGUSR1)
                netns.until(lambda: "most recent call first" in self.program.stderr)
                raise AssertionError(f"{problem}{self.program.stderr}") from None
            raise

    @property
    def pid(self) -> int:
        return self.program.pid

    @property
    def log(self) -> list[tuple[str, str]]:
        """(level, text) of each log line on standard output; anything else there is an error."""
        found = []
        for line in self.program.stdout.splitlines():
            match = LOG_LINE.fullmatch(line)
            assert match, line
            found.append((match[1], match[2]))
        return found

    def texts(self, level: str) -> list[str]:
        return [text for here, text in self.log if here == level]

    def request(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """Any request; `path` begins at the root, or at /api/v1/ when it has no slash in front."""
        url = f"{self.scheme}://localhost:{self.port}{path if path.startswith('/') else '/api/v1/' + path}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = type
        request = urllib.request.Request(url, data, headers, method=method)
        context = ssl._create_unverified_context() if self.scheme == "https" else None
        with self.namespace.inside():
            try:
                with urllib.request.urlopen(request, timeout=30, context=context) as reply:
                    return Answer(reply.status, reply.headers["Content-Type"] or "", reply.read())
            except urllib.error.HTTPError as problem:
                with problem:
                    return Answer(problem.code, problem.headers["Content-Type"] or "", problem.read())

    def json(self, path: str) -> Any:
        """The document of a GET that succeeds."""
        answer = self.request(path)
        assert answer.status == 200, (path, answer)
        return answer.json

    def metrics(self, path: str = "/metrics") -> str:
        answer = self.request(path)
        assert answer.status == 200, (path, answer)
        return answer.text

    def total(self) -> int:
        """Packets that the default policy has counted in its window."""
        return int(self.json("metrics/window/5")["5m"]["packets"]["total"])

    def wait_total(self, packets: int) -> int:
        """Until so many packets are counted; how many there are once that does not change any more."""
        netns.until(lambda: self.total() >= packets, f"{packets} packets counted, {self.total()} so far")
        return int(netns.settled(self.total))

    def running(self) -> list[str]:
        """Names of the policies whose first input runs (agent spec 8.1)."""
        found = []
        for name, policy in self.json("policies").items():
            inputs = list(policy["input"].values())
            if inputs and inputs[0]["input"]["running"] is True:
                found.append(name)
        return found

    def status(self, pid: int | None = None) -> dict[str, str]:
        """/proc/PID/status."""
        lines = Path(f"/proc/{pid or self.pid}/status").read_text().splitlines()
        return {name: " ".join(value.split()) for name, value in (line.split(":", 1) for line in lines)}

    def threads(self) -> list[dict[str, str]]:
        """The same for each thread."""
        return [self.status(int(task.name)) for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: int) -> None:
        self.program.process.send_signal(number)

    def stop(self, how: int = signal.SIGTERM) -> int:
        return self.program.stop(how)

    def wait_log(self, pattern: str) -> re.Match[str]:
        return self.program.wait_for(pattern)
