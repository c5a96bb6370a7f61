"""Gives up every privilege that capturing does not need, before the first thread starts.

What stays: CAP_NET_RAW (sockets for interfaces that come later) and CAP_NET_ADMIN (promiscuous mode, large
buffers). Capabilities belong to threads, not to the process, so this must come first; `drop` refuses when it
does not. Numbers are those of linux/capability.h and linux/prctl.h.
"""

from __future__ import annotations

import os
from pathlib import Path

from netprobe.errors import ConfigError

__all__ = [
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "KEPT",
    "User",
    "drop",
    "find_user",
    "held",
]

CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
KEPT = (CAP_NET_RAW, CAP_NET_ADMIN)

PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522


class User:
    """Who the agent becomes."""

    def __init__(self, name: str, uid: int, gid: int) -> None:
        self.name, self.uid, self.gid = name, uid, gid


def find_user(text: str) -> User:
    """A user by name or number, `USER` or `USER:GROUP`. ConfigError when there is none."""
    import grp
    import pwd

    name, _, group = text.partition(":")
    try:
        found = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        gid = found.pw_gid
    except (KeyError, OverflowError):
        raise ConfigError(f"--user {text!r}: there is no user {name!r}") from None
    if group:
        try:
            gid = (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
        except (KeyError, OverflowError):
            raise ConfigError(f"--user {text!r}: there is no group {group!r}") from None
    return User(found.pw_name, found.pw_uid, gid)


def drop(user: User | None = None, keep: tuple[int, ...] = KEPT) -> tuple[int, ...]:
    """Become `user` (None: stay who we are) with no capability but those of `keep`, for good.

    Nothing that this process starts later can get more (no_new_privs). The result is the capabilities that
    are left, which are fewer than `keep` when we had fewer. ConfigError when `user` cannot be had.
    """
    # native threads too, of which Python does not know
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("privileges must be dropped before any thread starts")
    libc = _Libc()
    before = held()
    mask = before & _mask(keep)
    # the bounding set first: it takes a capability that is about to go
    if before >> CAP_SETPCAP & 1:
        for number in range(64):
            if not _mask(keep) >> number & 1 and libc.prctl(PR_CAPBSET_READ, number, check=False) == 1:
                libc.prctl(PR_CAPBSET_DROP, number)
    if user is not None and (user.uid, user.gid) != (os.geteuid(), os.getegid()):
        libc.prctl(PR_SET_KEEPCAPS, 1)
        try:
            os.initgroups(user.name, user.gid)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            raise ConfigError(f"--user {user.name}: {reason}; only root can become another user") from None
        libc.prctl(PR_SET_KEEPCAPS, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, check=False)
    libc.capset(mask)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    return tuple(number for number in keep if mask >> number & 1)


def held() -> int:
    """The capabilities that this process may use, as a mask (the kernel's CapPrm)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


def _mask(numbers: tuple[int, ...]) -> int:
    return sum(1 << number for number in numbers)


class _Libc:
    """The two calls that Python does not have."""

    def __init__(self) -> None:
        import ctypes

        self._ctypes = ctypes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, what: int, value: int, *, check: bool = True) -> int:
        zero = self._ctypes.c_ulong(0)
        done = self._libc.prctl(what, self._ctypes.c_ulong(value), zero, zero, zero)
        if done < 0 and check:
            raise self._problem("prctl")
        return int(done)

    def capset(self, mask: int) -> None:
        """Permitted and effective become `mask`, inheritable becomes empty."""
        words = self._ctypes.c_uint32
        header = (words * 2)(CAPABILITY_VERSION_3, 0)
        low, high = mask & 0xFFFFFFFF, mask >> 32
        data = (words * 6)(low, low, 0, high, high, 0)
        if self._libc.capset(header, data) < 0:
            raise self._problem("capset")

    def _problem(self, call: str) -> ConfigError:
        number = self._ctypes.get_errno()
        return ConfigError(f"privileges cannot be dropped: {call}: {os.strerror(number).lower()}")
