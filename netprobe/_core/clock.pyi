class Clock:
    """The time of day. Given a start, in nanoseconds since 1970, it stands still until somebody moves it."""

    manual: bool
    def __init__(self, start: int | None = None) -> None: ...
    def time_ns(self) -> int: ...
    def set(self, now: int) -> None:
        """Move a clock that was given a start; ValueError for the system's."""
