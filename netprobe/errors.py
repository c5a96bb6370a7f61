"""Everything that netprobe raises on purpose. Each message is one line, fit to be shown to a user."""

__all__ = [
    "ConfigError",
    "ExistsError",
    "InputError",
    "NetprobeError",
    "NoMatchError",
    "NotFoundError",
    "PeriodError",
    "TableError",
]


class NetprobeError(Exception):
    """Base of the errors that a caller may want to catch as a family."""


class ConfigError(NetprobeError, ValueError):
    """A setting cannot be used: the message names its place, its key, its value and what would be right."""


class InputError(NetprobeError):
    """Packets cannot be read: no such file, not a capture, an unknown link type, ..."""


class PeriodError(NetprobeError):
    """A time window was asked for that does not exist (metrics spec 2.4, 2.5)."""


class TableError(NetprobeError):
    """A handler's table and its native accumulator disagree: a defect of netprobe, found at first use."""


class NotFoundError(NetprobeError):
    """The agent has no tap or policy of that name."""


class ExistsError(NetprobeError):
    """The agent has one of that name already; the message says "already", as pktvisor's clients expect."""


class NoMatchError(NetprobeError):
    """No tap has the tags that a policy selects by."""
