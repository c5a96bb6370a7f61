from typing import Any

class Resources:
    def __init__(
        self, config: Any, geo_city: Any = None, geo_asn: Any = None, chained: bool = False
    ) -> None: ...
    @staticmethod
    def fields() -> dict[str, tuple[str, int]]: ...
