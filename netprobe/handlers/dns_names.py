"""Names of DNS response codes and query types, as metrics and filters know them (metrics spec 7.4)."""

_RCODES: dict[int, str] = {}
for _first, _names in (
    (0, "NOERROR FORMERR SRVFAIL NXDOMAIN NOTIMP REFUSED YXDOMAIN YXRRSET NXRRSET NOTAUTH NOTZONE DSOTYPENI"),
    (16, "BADVERS BADKEY BADTIME BADMODE BADNAME BADALG BADTRUNC BADCOOKIE"),
):
    _RCODES |= dict(enumerate(_names.split(), _first))

_RCODE_NUMBERS: dict[str, int] = {name: code for code, name in _RCODES.items()}
# the TSIG error of the same number; understood, never written
_RCODE_NUMBERS["BADSIG"] = 16

_QTYPES: dict[int, str] = {0: "Reserved (0)"}
for _first, _names in (
    (1, "A NS MD MF CNAME SOA MB MG MR NULL WKS PTR HINFO MINFO MX TXT RP AFSDB X25 ISDN"),
    (21, "RT NSAP NSAP-PTR SIG KEY PX GPOS AAAA LOC NXT EID NIMLOC SRV ATMA NAPTR KX CERT A6 DNAME SINK"),
    (41, "OPT APL DS SSHFP IPSECKEY RRSIG NSEC DNSKEY DHCID NSEC3 NSEC3PARAM TLSA SMIMEA"),
    (55, "HIP NINFO RKEY TALINK CDS CDNSKEY OPENPGPKEY CSYNC ZONEMD SVCB HTTPS"),
    (99, "SPF UINFO UID GID UNSPEC NID L32 L64 LP EUI48 EUI64"),
    (249, "TKEY TSIG IXFR AXFR MAILB MAILA * URI CAA AVC DOA AMTRELAY"),
    (32768, "TA DLV"),
    (65535, "Reserved"),
):
    _QTYPES |= dict(enumerate(_names.split(), _first))
_QTYPES[65535] = "Reserved (65535)"

_QTYPE_NUMBERS: dict[str, int] = {name.upper(): code for code, name in _QTYPES.items()}


def rcode_name(code: int) -> str:
    """Name of a response code; one without a name renders as its number."""
    return _RCODES.get(code) or str(code)


def rcode_number(name: str) -> int | None:
    """The code of a name in any case, None when it is unknown."""
    return _RCODE_NUMBERS.get(name.upper())


def qtype_name(code: int) -> str:
    """Name of a query type; one without a name renders as its number."""
    return _QTYPES.get(code) or str(code)


def qtype_number(name: str) -> int | None:
    """The number of a query type's name in any case, None when it is unknown."""
    return _QTYPE_NUMBERS.get(name.upper())
