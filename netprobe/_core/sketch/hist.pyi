def boundaries(integer: bool) -> list[float]:
    """The 315 integer or 486 floating boundaries, ascending."""
