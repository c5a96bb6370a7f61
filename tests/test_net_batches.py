"""What the net handler counts does not depend on where batches end, also when its tables are full."""

import struct
from pathlib import Path

import numpy as np
import pytest

import netprobe

PACKETS = 200_000
HOSTS = {4: "10.0.0.1/32", 6: "fd00::1/128"}


def frames(version: int, rng: np.random.Generator) -> np.ndarray:
    """UDP datagrams to one host, as bytes: most from some thousand addresses, the others from anywhere."""
    if version == 4:
        head = struct.pack("!HBBHHHBBH", 0x0800, 0x45, 0, 28, 0, 0, 64, 17, 0)
        source, to = 4, bytes([10, 0, 0, 1])
    else:
        head = struct.pack("!HIHBB", 0x86DD, 6 << 28, 8, 17, 64)
        source, to = 16, bytes.fromhex("fd000000000000000000000000000001")
    tail = to + struct.pack("!HHHH", 1024, 9, 8, 0)
    made = np.zeros((PACKETS, 12 + len(head) + source + len(tail)), np.uint8)
    made[:, 12 : 12 + len(head)] = np.frombuffer(head, np.uint8)
    made[:, -len(tail) :] = np.frombuffer(tail, np.uint8)
    known = rng.integers(1, 256, (9000, source), np.uint8)
    anywhere = rng.integers(1, 256, (PACKETS, source), np.uint8)
    usual = known[np.minimum(rng.zipf(1.2, PACKETS), len(known)) - 1]
    at = 12 + len(head)
    made[:, at : at + source] = np.where(rng.random((PACKETS, 1)) < 0.7, usual, anywhere)
    return made


def write(path: Path, made: np.ndarray, rng: np.random.Generator | None) -> None:
    """As a capture of 50 s; with a generator, other frames stand between them here and there."""
    n, size = made.shape
    head = np.zeros((n, 4), "<u4")
    head[:, 0] = 1_700_000_040 + np.arange(n) * 50 // n
    head[:, 2] = head[:, 3] = size
    rows = np.concatenate([head.view(np.uint8), made], axis=1)
    if rng is not None:
        other = rows.copy()
        other[:, 28:30] = 0x08, 0x06
        rows = np.stack([rows, other], axis=1)[np.stack([np.ones(n, bool), rng.random(n) < 0.3], axis=1)]
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + rows.tobytes())


@pytest.mark.parametrize("version", [4, 6])
def test_addresses_do_not_depend_on_batches(tmp_path: Path, version: int) -> None:
    rng = np.random.default_rng(version)
    made = frames(version, rng)
    write(tmp_path / "plain.pcap", made, None)
    write(tmp_path / "others.pcap", made, rng)
    found = []
    for name in ("plain.pcap", "others.pcap"):
        handlers = [{"type": "net", "version": v, "config": {"topn_count": 8000}} for v in ("1.0", "2.0")]
        summary = netprobe.summarize(tmp_path / name, handlers=handlers, hosts=HOSTS[version], filter="udp")
        found.append(summary.to_dict()["5m"])
    assert found[0]["packets"]["total"] == PACKETS
    assert found[0] == found[1]
    # estimates of the heaviest are near the truth, and never above it by more than the bound
    rows = found[0]["packets"][f"top_ipv{version}"]
    source = {4: slice(26, 30), 6: slice(22, 38)}[version]
    addresses, counts = np.unique(made[:, source], axis=0, return_counts=True)
    heaviest = sorted(counts.tolist(), reverse=True)
    assert len(addresses) > 6144 * 2
    assert len(rows) > 3000
    assert [row["estimate"] for row in rows[:20]] == pytest.approx(heaviest[:20], rel=0.02)
