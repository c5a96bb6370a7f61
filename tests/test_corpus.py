"""The counts that tshark gave for the corpus of odd captures, when it is there."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netprobe
from netprobe.errors import InputError

# link types that netprobe does not read, and what its error calls them
UNSUPPORTED = {
    "scapy/zigbee-join-authenticate.pcap": "IEEE802_15_4",
    "tcpdump/unsupported-link-type-160.pcap": "USER13",
}
NAMES = [
    *UNSUPPORTED,
    "arkime/80211http.pcap",
    "arkime/IKEv1.pcap",
    "arkime/gtp-iphone.pcap",
    "arkime/ipv6-gtp6.pcap",
    "arkime/mpls-basic.pcap",
    "arkime/ospf.pcap",
    "arkime/smb-smbclient.pcap",
    "arkime/ssh2-moloch-crash.pcap",
    "arkime/twovlan.pcap",
    "arkime/wireshark-dhcp.pcap",
    "gopacket/test_loopback.pcap",
    "libpcap/geneve.pcap",
    "ndpi/4in4tunnel.pcap",
    "ndpi/BGP_Cisco_hdlc_slarp.pcap",
    "ndpi/anydesk.pcapng",
    "ndpi/ospfv2_add_new_prefix.pcap",
    "ndpi/teredo.pcap",
    "pcapplusplus/four_ipv6_http_streams.pcap",
    "pcapplusplus/tcp-reassembly.pcap",
    "suricata-verify/decode-erspan-typeI-02__input.pcap",
    "suricata-verify/http-range-multiflows__input.pcap",
    "tcpdump/e1000g.pcap",
    "tcpdump/heap-overflow-2.pcap",
    "tcpdump/ipoib.pcap",
    "zeek/nflog-http.pcap",
    "zeek/pdp_ctx_messages.pcapng",
]
SUPPORTED = [n for n in NAMES if n not in UNSUPPORTED]
# DNS inside GTP: the truth files count it, netprobe looks no further than the outer datagram
TUNNELLED_DNS = {"arkime/gtp-iphone.pcap", "arkime/ipv6-gtp6.pcap"}


def truth_of(shared: Path, name: str) -> dict[str, Any]:
    path = shared / "corpus" / "truth" / f"{name.replace('/', '__')}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def nanoseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])


def test_the_list_is_complete(shared: Path) -> None:
    """Every file of the corpus is tested one way or the other."""
    files = [p for p in (shared / "corpus").glob("*/*.pcap*") if p.parent.name != "truth"]
    assert sorted(f"{p.parent.name}/{p.name}" for p in files) == sorted(NAMES)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_link_types_are_named(shared: Path, name: str) -> None:
    path = shared / "corpus" / name
    with pytest.raises(InputError, match=UNSUPPORTED[name]) as caught:
        netprobe.summarize(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=UNSUPPORTED[name]):
        list(netprobe.packets(path))


@pytest.mark.parametrize("name", SUPPORTED)
def test_counts(shared: Path, name: str) -> None:
    truth = truth_of(shared, name)
    outer = truth["outermost"]
    summary = netprobe.summarize(shared / "corpus" / name, handlers=["net", "net:2.0", "dns"], periods=1)
    assert summary.warnings == []
    doc = summary.to_dict()["1m"]
    net = doc["packets"]
    got = {k: net[k] for k in ("total", "ipv4", "ipv6", "tcp", "udp", "other_l4")}
    assert got == {
        "total": truth["packets"],
        "ipv4": outer["ipv4"],
        "ipv6": outer["ipv6"],
        "tcp": outer["tcp"],
        "udp": outer["udp"],
        "other_l4": truth["packets"] - outer["tcp"] - outer["udp"],
    }
    assert net["protocol"]["tcp"]["syn"] == outer["tcp_syn"] + outer["tcp_synack"]
    first, last = nanoseconds(truth["first_ts"]), nanoseconds(truth["last_ts"])
    assert net["period"] == {"start_ts": first // 10**9, "length": last // 10**9 - first // 10**9}
    block = doc["net"]["unknown"]
    counts = {r["name"]: r["count"] for r in outer["top_ips"]}
    # the unspecified address is no host (metrics spec 6.2)
    zero = counts.pop("0.0.0.0", None) is not None
    assert block["cardinality"]["ips"] == outer["distinct_ips"] - zero
    tables = [*block["top_ipv4_packets"], *block["top_ipv6_packets"]]
    rows = {r["name"]: r["estimate"] for r in tables}
    # the truth files count a packet from an address to itself once, net 2.0 both ends
    ends = 2 if outer["distinct_ips"] == 1 else 1
    want = {str(ipaddress.ip_address(a)): n * ends for a, n in counts.items()}
    assert {a: rows.get(a) for a in want} == want
    dns = truth.get("dns")
    if name in TUNNELLED_DNS:
        dns = None
    wire = doc["dns"]["wire_packets"]
    assert wire["queries"] == (dns["queries"] if dns else 0)
    assert wire["replies"] == (dns["responses"] if dns else 0)
    assert wire["tcp"] == (dns["frames_over_tcp"] if dns else 0)
    if dns:
        assert doc["dns"]["cardinality"]["qname"] == dns["distinct_qnames"]
        assert wire["noerror"] == dns["rcodes"].get("0", 0)
        names = {r["name"]: r["estimate"] for r in doc["dns"]["top_qname3"]}
        assert sum(names.values()) <= sum(r["count"] for r in dns["top_qnames_all"])


@pytest.mark.parametrize("name", SUPPORTED)
def test_packets(shared: Path, name: str) -> None:
    truth = truth_of(shared, name)
    outer = truth["outermost"]
    chunks = list(netprobe.packets(shared / "corpus" / name))
    column = {key: np.concatenate([c[key] for c in chunks]) for key in chunks[0]}
    assert len(column["ts"]) == truth["packets"]
    assert int(column["wirelen"].sum()) == truth["wire_bytes"]
    assert int(column["caplen"].sum()) == truth["captured_bytes"]
    assert int(column["ts"][0]) == nanoseconds(truth["first_ts"])
    assert int(column["ts"][-1]) == nanoseconds(truth["last_ts"])
    assert int(column["ts"].min()) == nanoseconds(truth["min_ts"])
    assert int(column["ts"].max()) == nanoseconds(truth["max_ts"])
    for l3, key in ((4, "v4"), (6, "v6")):
        protocols = Counter(column["proto"][column["l3"] == l3].tolist())
        want = {int(k): n for k, n in outer[f"l4_by_protocol_number_{key}"].items() if k != "None"}
        if "None" in outer[f"l4_by_protocol_number_{key}"]:  # tshark could not read that far
            protocols = Counter({k: n for k, n in protocols.items() if k in want})
        assert protocols == want
    flags = column["tcp_flags"]
    assert int(((flags & 0x12) == 0x02).sum()) == outer["tcp_syn"]
    assert int(((flags & 0x12) == 0x12).sum()) == outer["tcp_synack"]
    assert int((flags & 0x04 != 0).sum()) == outer["tcp_rst"]
    assert int((flags & 0x01 != 0).sum()) == outer["tcp_fin"]
    assert int((column["flags"] & 8 != 0).sum()) == outer["fragments_later"]
