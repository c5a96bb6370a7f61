from typing import Protocol

from netprobe._core.source import PacketSource

class _Source(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def fd(self) -> int: ...
    @property
    def prefix(self) -> bytes: ...

class CaptureReader(PacketSource):
    """Frames one capture: pcap or pcapng bytes from a descriptor."""

    def __init__(self, source: _Source) -> None: ...
    def open(self) -> None:
        """Read the file header. ValueError: not a capture. OSError: reading failed."""
    def interfaces(self) -> list[tuple[int, int]]:
        """(link type, packets) for each interface seen so far."""
    @property
    def bytes_read(self) -> int: ...
    @property
    def orphan_packets(self) -> int:
        """Packets of interfaces that the file does not describe."""
    @property
    def format_name(self) -> str: ...
