"""Run a program under a kernel that has packet sockets, but no rings on them, as some sandboxes do.

``python norings.py PROGRAM ARGUMENT...``: a seccomp filter answers what asks for rings with ENOPROTOOPT.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

SETSOCKOPT, GETSOCKOPT = {"x86_64": (54, 55), "aarch64": (208, 209)}.get(platform.machine(), (0, 0))
SOL_PACKET = 263
PACKET_RX_RING, PACKET_VERSION, PACKET_HDRLEN = 5, 10, 11
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOPROTOOPT
# struct seccomp_data: the call's number, then its arguments of eight bytes from 16 on
NUMBER, LEVEL, OPTION = 0, 24, 32
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06

ROWS = (
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 1, 0, SETSOCKOPT),
    (EQUAL, 0, 6, GETSOCKOPT),
    (LOAD, 0, 0, LEVEL),
    (EQUAL, 0, 4, SOL_PACKET),
    (LOAD, 0, 0, OPTION),
    (EQUAL, 3, 0, PACKET_RX_RING),
    (EQUAL, 2, 0, PACKET_VERSION),
    (EQUAL, 1, 0, PACKET_HDRLEN),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, REFUSE),
)


def forbid_rings() -> None:
    """For this process and its children, for good."""
    rows = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in ROWS))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(ROWS), ctypes.addressof(rows)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    forbid_rings()
    os.execvp(sys.argv[1], sys.argv[1:])
