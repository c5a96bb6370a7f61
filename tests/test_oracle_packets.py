"""netprobe.packets against tshark, frame by frame: every own capture, every framing and decode feature."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generate
import numpy as np
import oracle
import pytest

import netprobe

pytestmark = pytest.mark.tool("tshark")

RECORDED = sorted(p.name for p in (Path(__file__).parent / "captures").glob("*.pcap"))
GENERATED = generate.everything()

# tshark 4.0 or the captures are at fault there; each says why
SKIP_FIELDS: dict[str, set[str]] = {
    # simple packet blocks have no time; tshark prints 0 for it and netprobe carries the last one on
    "format-ng-spb": {"ts"},
    # tshark takes the direction byte off the lengths
    "link-ppp-dir": {"wirelen", "caplen"},
    # nor the four bytes of SunATM
    "link-sunatm": {"wirelen", "caplen"},
    # compared with the same datagrams in another link type, see LIKE
    "link-mpls": {"wirelen", "caplen"},
    "link-c-hdlc-dir": {"wirelen", "caplen"},
    # tshark goes through floating point where the resolution is a power of two, see test_binary_resolution
    "format-ng-tsresol-8a": {"ts"},
    "format-ng-tsresol-94": {"ts"},
    "format-ng-tsresol-a0": {"ts"},
}

# tshark 4.0 reads no xz and not these link types: what is in them is in another capture too
LIKE = {"format-xz": "format-us-le", "link-mpls": "link-raw-101", "link-c-hdlc-dir": "link-raw-101"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a generated capture, written when first asked for."""
    folder = tmp_path_factory.mktemp("generated")

    def path(name: str) -> Path:
        file = folder / f"{name}.pcap"
        if not file.exists():
            file.write_bytes(GENERATED[name])
        return file

    return path


def columns(path: Path, **options: Any) -> dict[str, Any]:
    """All chunks of a capture as one."""
    chunks = list(netprobe.packets(path, **options))
    if not chunks:
        return {}
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def address(row: Any, l3: int) -> str:
    if l3 == 4:
        return str(ipaddress.IPv4Address(row[:4].tobytes()))
    return str(ipaddress.IPv6Address(row.tobytes())) if l3 == 6 else ""


def canonical(text: str) -> str:
    return str(ipaddress.ip_address(text)) if text else ""


def compare(path: Path, skip: set[str], like: Path | None = None) -> None:
    frames = oracle.truth(like or path).frames
    seen = columns(path)
    assert len(seen.get("ts", ())) == len(frames)
    for i, frame in enumerate(frames):
        l3 = int(seen["l3"][i])
        got = {
            "ts": int(seen["ts"][i]),
            "wirelen": int(seen["wirelen"][i]),
            "caplen": int(seen["caplen"][i]),
            "l3": l3,
            "proto": int(seen["proto"][i]),
            "src": address(seen["src"][i], l3),
            "dst": address(seen["dst"][i], l3),
        }
        want: dict[str, Any] = {
            "ts": frame.ts,
            "wirelen": frame.wirelen,
            "caplen": frame.caplen,
            "l3": frame.l3,
            "proto": frame.proto,
            "src": canonical(frame.src),
            "dst": canonical(frame.dst),
        }
        if frame.l3 and not frame.src:
            got["src"] = got["dst"] = ""
        if frame.l3:
            got["fragment"], want["fragment"] = bool(seen["flags"][i] & 4), frame.fragment
            got["later"], want["later"] = bool(seen["flags"][i] & 8), frame.later
        if frame.tcp_flags is not None:
            got["tcp_flags"], want["tcp_flags"] = int(seen["tcp_flags"][i]), frame.tcp_flags
        # a header that the snap length cut has no ports here, even where those are left
        cut = bool(seen["flags"][i] & 16) and frame.caplen < frame.wirelen and seen["l4"][i] == 0
        if frame.sport is not None and not frame.fragment and not cut:
            got["ports"] = (int(seen["sport"][i]), int(seen["dport"][i]))
            want["ports"] = (frame.sport, frame.dport)
        if frame.vlan is not None:
            got["vlan"], want["vlan"] = int(seen["vlan_id"][i]), frame.vlan
        for field in skip:
            got.pop(field, None)
            want.pop(field, None)
        assert got == want, f"frame {i + 1} of {path.name}: {':'.join(frame.protocols)}"


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(captures: Path, name: str) -> None:
    compare(captures / name, set())


@pytest.mark.parametrize("name", GENERATED)
def test_generated(made: Callable[[str], Path], name: str) -> None:
    like = made(LIKE[name]) if name in LIKE else None
    compare(made(name), SKIP_FIELDS.get(name, set()), like)


@pytest.mark.parametrize("resolution", [0x80, 0x8A, 0x94, 0xA0])
def test_binary_resolution(made: Callable[[str], Path], resolution: int) -> None:
    """Stamps in units of 2^-n s: the generator knows them."""
    want = []
    for rec in generate.stamped(generate.ethernet_frames()):
        want.append(generate.units(rec.ts, resolution) * 10**9 >> (resolution & 0x7F))
    seen = columns(made(f"format-ng-tsresol-{resolution:02x}"), columns=["ts"])
    assert seen["ts"].tolist() == want
