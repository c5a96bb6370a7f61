"""All handlers, by type and version."""

from netprobe.errors import ConfigError
from netprobe.handlers.bgp import BGP
from netprobe.handlers.dhcp import DHCP
from netprobe.handlers.dns_v1 import DNS_V1
from netprobe.handlers.dns_v2 import DNS_V2
from netprobe.handlers.input_resources import INPUT_RESOURCES
from netprobe.handlers.net_v1 import NET_V1
from netprobe.handlers.net_v2 import NET_V2
from netprobe.handlers.pcap import PCAP
from netprobe.metrics.table import DEFAULT_VERSION, HandlerTable

HANDLERS: tuple[HandlerTable, ...] = (NET_V1, NET_V2, DNS_V1, DNS_V2, DHCP, BGP, PCAP, INPUT_RESOURCES)

_by_name = {(table.type, table.version): table for table in HANDLERS}


def lookup(type: str, version: str = DEFAULT_VERSION) -> HandlerTable:
    """The table of a handler. ConfigError names an unknown type or version and lists the known ones."""
    table = _by_name.get((type, version))
    if table is not None:
        return table
    versions = [table.version for table in HANDLERS if table.type == type]
    if versions:
        raise ConfigError(f"handler {type} has no version {version!r}; it has {', '.join(versions)}")
    types = ", ".join(sorted({table.type for table in HANDLERS}))
    raise ConfigError(f"there is no handler {type!r}; there are {types}")
