from typing import Any

class Pcap:
    def __init__(
        self, config: Any, geo_city: Any = None, geo_asn: Any = None, chained: bool = False
    ) -> None: ...
    @staticmethod
    def fields() -> dict[str, tuple[str, int]]: ...
    def on_stats(self, received: int, os_drops: int, if_drops: int) -> None:
        """Take a reading of the capture's running totals; the first one is the baseline."""
