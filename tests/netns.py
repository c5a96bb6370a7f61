"""Network namespaces for tests: joined pairs, programs inside, replay, captures beside, a lossy wire.

::

    pytestmark = [pytest.mark.root, pytest.mark.tool("tcpreplay", "ethtool")]

    def test_something(tmp_path):
        with netns.pair() as (sender, receiver):                     # silent: no address, no ARP, no IPv6
            ...start what is tested on receiver.iface, inside receiver...
            sent = sender.replay("tests/captures/http.pcap")         # frames that went out

    with netns.pair(addresses=True) as (client, server):   # 10.99.0.1/24 and .2, fd99::1/64 and ::2
        server.popen("iperf3", "-s", "-1").wait_for("listening")
        client.run("iperf3", "-c", server.address, "-n", "1M")
    with netns.pair(addresses=True, wire=netns.Wire(delay_s=0.02, drop=every(50))) as (client, server): ...
    with netns.Namespace("one") as ns, ns.inside(): ...              # this thread's sockets are made in there

A test needs root: mark it ``root``, and ``tool(...)`` for each program (tests/conftest.py skips, or fails
under CI). A program from Debian that is not there yet goes into TEST_PACKAGES of ./dev. Everything that a
namespace started is killed and the namespace deleted at the end, also after a failure; nothing outside of the
own namespaces is touched. Wait with `until`, never by sleeping.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

DEADLINE = 20.0
MTU = 9216
# what a network card would do later is done before the packet can be seen
OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro", "rxvlan", "txvlan")
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def until(ready: Callable[[], Any], what: str = "", seconds: float = DEADLINE, pause: float = 0.01) -> Any:
    """Ask again and again until the answer is true, and give it back. AssertionError at the deadline."""
    end = time.monotonic() + seconds
    while True:
        answer = ready()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what or ready}")
        time.sleep(pause)


def settled(read: Callable[[], Any], quiet_s: float = 0.3, seconds: float = DEADLINE) -> Any:
    """The value once it has not changed for a while: kernel statistics after a replay."""
    end = time.monotonic() + seconds
    last, since = read(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < end, f"still changing after {seconds:g} s: {last}"
        time.sleep(0.02)
        now = read()
        if now != last:
            last, since = now, time.monotonic()
    return last


class Program:
    """A program that runs inside a namespace. Its output goes to files, so that it never blocks."""

    def __init__(self, namespace: Namespace, argv: Sequence[str], folder: Path, **popen: Any) -> None:
        self.argv = list(argv)
        number = next(_numbers)
        self.out = folder / f"{number}.out"
        self.err = folder / f"{number}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            popen.setdefault("stdin", subprocess.DEVNULL)
            self.process = subprocess.Popen(namespace.command(argv), stdout=out, stderr=err, **popen)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    def wait_for(self, pattern: str, seconds: float = DEADLINE) -> re.Match[str]:
        """Until a regular expression matches what it has written to either output."""

        def look() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.stdout) or re.search(pattern, self.stderr)
            if ended and not found:
                raise AssertionError(
                    f"{self}: ended with {self.process.returncode}: {self.stdout}{self.stderr}"
                )
            return found

        match: re.Match[str] = until(look, f"{self} writes {pattern!r}", seconds)
        return match

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit status. AssertionError when it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self}: runs on after {seconds:g} s: {self.stdout}{self.stderr}") from None

    def stop(self, how: int = signal.SIGINT, seconds: float = DEADLINE) -> int:
        """Signal it and wait; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __str__(self) -> str:
        return " ".join(self.argv)


class Capture(Program):
    """tcpdump beside whatever is tested: the same packets in a file."""

    def finish(self, packets: int | None = None) -> int:
        """Stop it, once it has seen so many packets if that is said; how many it wrote. It lost none."""
        if packets is not None:
            until(lambda: self.count() >= packets, f"{self} sees {packets} packets, {self.count()} so far")
        self.process.send_signal(signal.SIGINT)
        # the file is complete when it says this; its end may take the kernel long
        lost = self.wait_for(r"(\d+) packets? dropped by kernel")
        assert int(lost[1]) == 0, self.stderr
        return self.count()

    def count(self) -> int:
        path = Path(self.argv[self.argv.index("-w") + 1])
        return sum(1 for _ in frames(path)) if path.exists() else 0


def frames(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The captured bytes of each whole record of a plain little-endian pcap file."""
    data = Path(path).read_bytes()
    at = 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        if at + 16 + length > len(data):
            break
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


class Namespace:
    """A network namespace with its loopback up, until the with block ends."""

    iface = "lo"
    address = "127.0.0.1"
    address6 = "::1"

    def __init__(self, name: str = "ns", ipv6: bool = True) -> None:
        self.name = f"np-{os.getpid()}-{next(_numbers)}-{name}"
        self.ipv6 = ipv6
        self.programs: list[Program] = []
        self.folder = Path()

    def __enter__(self) -> Self:
        _remove_left_over()
        _run("ip", "netns", "add", self.name)
        self.folder = Path(tempfile.mkdtemp(prefix="netns-"))
        if not self.ipv6:
            for scope in ("all", "default"):
                self.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        else:
            # an address is usable at once, without asking around for duplicates
            self.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            program.kill()
        # daemons that left their parent
        for pid in _run("ip", "netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "del", self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(os.fspath, argv)]

    def ip(self, *argv: str) -> str:
        """An ``ip`` command in here."""
        return _run("ip", "-n", self.name, *argv)

    def run(
        self, *argv: str, check: bool = True, seconds: float = 120, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; its output as text."""
        done = subprocess.run(
            self.command(argv), capture_output=True, text=True, check=False, timeout=seconds, **more
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def popen(self, *argv: str, **popen: Any) -> Program:
        """Start a program; it is killed at the end of the namespace."""
        program = Program(self, argv, self.folder, **popen)
        self.programs.append(program)
        return program

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread, and the threads it starts, in here: sockets made meanwhile belong here for good.

        /sys goes on showing the other network.
        """
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}") as here:  # noqa: PTH123
            _setns(here.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def replay(self, path: str | os.PathLike[str], *options: str, iface: str | None = None) -> int:
        """Send a capture's frames by tcpreplay as fast as it can; how many the interface took, all of them.

        Options: ``--pps=N``, ``--loop=N``, ``--preload-pcap``, ...
        """
        paces = ("--topspeed", "--pps", "--mbps", "--multiplier")
        if not any(option.startswith(paces) for option in options):
            options = ("--topspeed", *options)
        done = self.run("tcpreplay", "--no-flow-stats", "-i", iface or self.iface, *options, os.fspath(path))
        sent = re.search(r"Successful packets:\s+(\d+)", done.stdout)
        failed = re.search(r"Failed packets:\s+(\d+)", done.stdout)
        assert sent and failed, done.stdout + done.stderr
        assert int(failed[1]) == 0, done.stdout + done.stderr
        return int(sent[1])

    def capture(self, path: str | os.PathLike[str], *expression: str, iface: str | None = None) -> Capture:
        """tcpdump -w beside the test; it listens when this returns."""
        argv = [
            "tcpdump",
            "-i",
            iface or self.iface,
            "-Z",
            "root",
            "-B",
            "65536",
            "-s",
            "262144",
            "--immediate-mode",
        ]
        argv += ["-U", "-w", os.fspath(path), *expression]
        beside = Capture(self, argv, self.folder)
        self.programs.append(beside)
        beside.wait_for("listening on")
        return beside


class End(Namespace):
    """One end of a pair: `iface` is its side of the wire, `address` and `address6` are set when asked for."""

    def __init__(self, name: str, number: int, ipv6: bool) -> None:
        super().__init__(name, ipv6)
        self.number = number
        self.iface = f"np{number}"
        self.address = f"10.99.0.{number}"
        self.address6 = f"fd99::{number}"

    def set_up(self, mtu: int, addresses: bool, offloads: bool) -> None:
        """Everything that must be before the link is up."""
        self.ip("link", "set", self.iface, "mtu", str(mtu))
        if not offloads:
            turn_off(self, self.iface)
        if addresses:
            self.ip("address", "add", f"{self.address}/24", "dev", self.iface)
            if self.ipv6:
                self.ip("address", "add", f"{self.address6}/64", "dev", self.iface, "nodad")
        else:
            self.ip("link", "set", self.iface, "arp", "off", "multicast", "off")
        self.ip("link", "set", self.iface, "up")

    def transmitted(self) -> int:
        """Packets that the interface has sent."""
        (link,) = json.loads(self.ip("-j", "-s", "link", "show", self.iface))
        return int(link["stats64"]["tx"]["packets"])


class Wire:
    """A wire in user space for what the kernel may lack (netem): delay, and frames that get lost.

    `drop(frame, direction, number)` says whether a frame is lost: direction 0 is from the first end to the
    second, number counts the frames of that direction from 0. `delay_s` is one way, the same for all frames,
    so that none overtakes another. `lost` counts. Meant for thousands of frames per second, not more.
    """

    def __init__(self, delay_s: float = 0.0, drop: Callable[[bytes, int, int], bool] | None = None) -> None:
        self.delay_s = delay_s
        self.drop = drop
        self.lost = [0, 0]
        self.seen = [0, 0]
        self._taps: list[int] = []
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)

    def connect(self, ends: Sequence[End]) -> None:
        for end in ends:
            with end.inside():
                tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", end.iface.encode(), _IFF_TAP_NO_PI))
            self._taps.append(tap)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        if self._thread.is_alive():
            self._thread.join()
        for fd in (*self._taps, self._stop):
            os.close(fd)

    def _run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []  # due, order, direction, frame
        order = itertools.count()
        watched = select.poll()
        for fd in (*self._taps, self._stop):
            watched.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, direction, frame = heapq.heappop(waiting)
                with contextlib.suppress(OSError):  # the far end is down
                    os.write(self._taps[1 - direction], frame)
            rest = max(0.0, waiting[0][0] - time.monotonic()) * 1000 if waiting else None
            ready = [fd for fd, _ in watched.poll(rest)]
            if self._stop in ready:
                return
            for direction, tap in enumerate(self._taps):
                while tap in ready:
                    try:
                        frame = os.read(tap, 65536)
                    except OSError:
                        break
                    number = self.seen[direction]
                    self.seen[direction] += 1
                    if self.drop and self.drop(frame, direction, number):
                        self.lost[direction] += 1
                        continue
                    heapq.heappush(waiting, (time.monotonic() + self.delay_s, next(order), direction, frame))


def every(nth: int, direction: int | None = None) -> Callable[[bytes, int, int], bool]:
    """A drop rule: each nth frame, of one direction or of both."""
    return lambda _, way, number: (direction is None or way == direction) and number % nth == nth - 1


@contextlib.contextmanager
def pair(
    *,
    addresses: bool = False,
    ipv6: bool | None = None,
    mtu: int = MTU,
    offloads: bool = False,
    wire: Wire | None = None,
) -> Iterator[tuple[End, End]]:
    """Two namespaces joined by a veth pair (np1 to np2), or by a `Wire` of TAP devices. Both ends are up.

    Without addresses nothing but what a test sends is on the wire. `offloads=True` leaves them on: packets of
    up to 64 KiB and unfinished checksums then show up, as on a real machine.
    """
    ipv6 = addresses if ipv6 is None else ipv6
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(End("a", 1, ipv6)), stack.enter_context(End("b", 2, ipv6))
        if wire is not None:
            stack.callback(wire.close)
            wire.connect(ends)
        else:
            veth(ends)
        for end in ends:
            end.set_up(mtu, addresses, offloads)
        for end in ends:
            until(lambda end=end: carrier(end, end.iface), f"{end.iface} is up")
        yield ends


def veth(ends: tuple[End, End]) -> None:
    """Join two ends (anew, after one was deleted): both down, without addresses. See End.set_up."""
    a, b = ends
    a.ip("link", "add", a.iface, "type", "veth", "peer", "name", b.iface, "netns", b.name)


def turn_off(namespace: Namespace, iface: str) -> None:
    """All offloads that the device has off."""
    for offload in OFFLOADS:
        namespace.run("ethtool", "-K", iface, offload, "off", check=False)
    left = namespace.run("ethtool", "-k", iface).stdout
    for name in ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload"):
        assert re.search(rf"^{name}: off", left, re.MULTILINE), left


def carrier(namespace: Namespace, iface: str) -> bool:
    """Is it up, with somebody at the other end?"""
    return "LOWER_UP" in namespace.ip("-o", "link", "show", "dev", iface)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def _remove_left_over() -> None:
    """Namespaces of test runs that were killed."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0] if line.strip() else ""
        match = re.fullmatch(r"np-(\d+)-\d+-\w+", name)
        if match and not Path(f"/proc/{match[1]}").exists():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
