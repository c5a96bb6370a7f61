class PacketSource:
    """A source of packet batches for the core."""

    name: str
    ended: int
    error: int
    silent: int
    @property
    def how_ended(self) -> str:
        """Empty while reading, else clean, cut, damaged or io."""
    @property
    def error_text(self) -> str: ...
    def read(self) -> list[tuple[int, bytes, int, int, int]]:
        """The next batch as (ns, bytes, original length, link type, interface); [] when there is none now."""
