from collections.abc import Collection, Sequence

def classify(
    tcp: bool,
    sport: int,
    dport: int,
    decoders: Collection[str] = (),
    dns_port: int = 53,
    http: Sequence[int] = (),
    radius: Sequence[int] = (1812, 1813),
) -> int: ...
