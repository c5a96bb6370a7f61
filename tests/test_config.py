"""Handler settings: every rule of metrics spec 3, 6.5, 7.12, and every configuration error of section 16."""

from typing import Any

import pytest

from netprobe.errors import ConfigError
from netprobe.handlers.config import HandlerConfig, HandlerSpec, handler_config, parse_handlers, scalar
from netprobe.handlers.registry import HANDLERS, lookup

NET1, NET2 = lookup("net"), lookup("net", "2.0")
DNS1, DNS2 = lookup("dns"), lookup("dns", "2.0")
DHCP, BGP = lookup("dhcp"), lookup("bgp")


def message(*args: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as error:
        handler_config(*args, **more)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_defaults() -> None:
    config = handler_config(DNS1)
    assert (config.type, config.version, config.name) == ("dns", "1.0", "dns")
    assert config.num_periods == 5
    assert config.deep_sample_rate == 100
    assert (config.topn_count, config.topn_percentile_threshold) == (10, 0)
    assert config.options["xact_ttl_ms"] == 5000
    assert config.options["exclude_noerror"] is False
    assert config.options["only_rcode"] is None
    assert config.table is DNS1


# groups that are on by default, from the table in metrics spec 3.3
@pytest.mark.parametrize(
    ("table", "on", "off"),
    [
        (NET1, "cardinality counters top_geo top_ips", ""),
        (NET2, "cardinality counters quantiles top_geo top_ips", ""),
        (
            DNS1,
            "cardinality counters quantiles dns_transaction top_qnames top_ports",
            "histograms top_ecs top_qnames_details",
        ),
        (
            DNS2,
            "cardinality counters quantiles top_qtypes top_rcodes top_qnames",
            "top_ecs top_size top_ports xact_times",
        ),
        (DHCP, "", ""),
    ],
)
def test_default_groups(table: Any, on: str, off: str) -> None:
    assert handler_config(table).groups == set(on.split())
    assert table.all_groups == set(on.split()) | set(off.split())


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"disable": ["all"], "enable": ["top_ecs"]}, {"top_ecs"}),
        ({"disable": ["all"]}, set()),
        ({"disable": ["counters", "all"], "enable": ["all"]}, set(DNS1.all_groups)),
        ({"enable": ["top_ecs"]}, DNS1.default_groups | {"top_ecs"}),
        ({"disable": ["counters"]}, DNS1.default_groups - {"counters"}),
        # disable comes first, whatever the order in the map
        ({"enable": ["counters"], "disable": ["counters"]}, set(DNS1.default_groups)),
        # "all" ends its list
        ({"disable": ["all", "no such group"]}, set()),
    ],
)
def test_groups(groups: dict[str, Any], expected: set[str]) -> None:
    assert handler_config(DNS1, metric_groups=groups).groups == expected


@pytest.mark.parametrize("key", ["enable", "disable"])
def test_unknown_group(key: str) -> None:
    text = message(DNS1, metric_groups={key: ["rates"]})
    assert "'rates'" in text
    assert key in text
    # the list that the spec gives for dns 1.0 (16.3)
    assert (
        "all, cardinality, counters, dns_transaction, histograms, quantiles, top_ecs, top_ports, "
        "top_qnames, top_qnames_details" in text
    )
    assert "all, cardinality, counters, top_geo, top_ips" in message(NET1, metric_groups={key: ["rates"]})


def test_groups_are_ignored_where_there_are_none() -> None:
    for table in (DHCP, BGP, lookup("pcap")):
        config = handler_config(table, metric_groups={"disable": ["all"], "enable": ["whatever"]})
        assert config.groups == frozenset()


def test_metric_groups_map() -> None:
    assert "'enable'" in message(NET1, metric_groups={"on": ["counters"]})
    assert "'disable'" in message(NET1, metric_groups={"on": ["counters"]})
    assert "'enabel'" in message(NET1, metric_groups={"disable": ["all"], "enabel": ["counters"]})
    assert "a list is given, expected a map" in message(NET1, metric_groups=["counters"])
    assert "'counters' is a string, expected a list" in message(NET1, metric_groups={"enable": "counters"})


@pytest.mark.parametrize("table", HANDLERS, ids=lambda table: table.title)
def test_unknown_key(table: Any) -> None:
    text = message(table, config={"invalid_config": True})
    assert "'invalid_config'" in text
    known = [*table.options, "deep_sample_rate", "num_periods", "topn_count", "topn_percentile_threshold"]
    assert text.endswith(", ".join(known))


def test_option_keys_in_order() -> None:
    """The lists of metrics spec 6.5, 7.12, 8, 9, 10."""
    net = "geoloc_notfound asn_notfound only_geoloc_prefix only_asn_number recorded_stream"
    dns = (
        "exclude_noerror only_rcode only_queries only_responses only_dnssec_response answer_count only_qtype "
        "only_qname only_qname_suffix geoloc_notfound asn_notfound dnstap_msg_type public_suffix_list "
        "recorded_stream xact_ttl_secs xact_ttl_ms"
    )
    assert list(NET1.options) == list(NET2.options) == net.split()
    assert list(DNS1.options) == dns.split()
    without = [key for key in dns.split() if key not in ("only_queries", "only_responses")]
    assert list(DNS2.options) == [*without, "only_xact_directions"]
    assert list(DHCP.options) == ["recorded_stream", "xact_ttl_secs", "xact_ttl_ms"]
    assert list(BGP.options) == list(lookup("pcap").options) == ["recorded_stream"]


def test_keys_of_the_other_version() -> None:
    assert "'only_queries'" in message(DNS2, filter={"only_queries": True})
    assert "'only_xact_directions'" in message(DNS1, filter={"only_xact_directions": ["in"]})


def test_internal_key() -> None:
    assert handler_config(NET1, config={"_internal_tap_name": "eth0"}).num_periods == 5


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("exclude_noerror", "yes", ["'yes' is a string", "true or false"]),
        ("exclude_noerror", 1, ["1 is a number", "true or false"]),
        ("only_queries", None, ["nothing is given", "true or false"]),
        ("only_responses", [True], ["a list is given", "true or false"]),
        ("only_rcode", "1", ["'1' is a string", "a number, or a list"]),
        ("only_rcode", True, ["true is a boolean", "a number, or a list"]),
        ("only_rcode", 133, ["'133'", "rcode"]),
        ("only_rcode", 12, ["'12'", "rcode"]),
        ("only_rcode", ["NXDOMAIN", "nothing"], ["'nothing'", "rcode"]),
        ("only_rcode", ["NXDOMAIN", "-1"], ["'-1'", "rcode"]),
        ("only_rcode", {"a": 1}, ["a map is given"]),
        ("only_qtype", ["AAAA", "TEXT"], ["'TEXT'", "qtype"]),
        ("only_qtype", ["AAAA", "270"], ["'270'", "qtype"]),
        ("only_qtype", ["54"], ["'54'", "qtype"]),
        ("only_qtype", 28, ["28 is a number", "a list"]),
        ("only_qtype", "AAAA", ["'AAAA' is a string", "a list"]),
        ("answer_count", "1", ["'1' is a string", "an integer"]),
        ("answer_count", True, ["true is a boolean", "an integer"]),
        ("answer_count", -1, ["-1 is a number", "an integer"]),
        ("only_qname", "example.com", ["'example.com' is a string", "a list"]),
        ("only_qname", [["example.com"]], ["a list is given", "plain values"]),
        ("only_qname_suffix", "com", ["a list"]),
        ("dnstap_msg_type", "sender", ["'sender'", "auth, client, forwarder, resolver, stub, tool, update"]),
        ("dnstap_msg_type", 1, ["auth, client, forwarder, resolver, stub, tool, update"]),
        ("xact_ttl_ms", "-1", ["'-1' is a string", "a whole number"]),
        ("xact_ttl_ms", -1, ["-1 is a number", "a whole number"]),
        ("xact_ttl_ms", 1 << 63, ["too long"]),
        ("xact_ttl_secs", 1.5, ["1.5 is a number with a fraction", "a whole number"]),
        ("xact_ttl_secs", 10**18, ["too long"]),
        ("recorded_stream", "maybe", ["'maybe' is a string", "true or false"]),
        ("num_periods", "5", ["'5' is a string", "a whole number"]),
        ("deep_sample_rate", True, ["true is a boolean", "a whole number"]),
        ("topn_count", -3, ["-3 is a number", "a whole number"]),
        ("topn_percentile_threshold", 101, ["101", "100"]),
    ],
)
def test_wrong_values(key: str, value: Any, parts: list[str]) -> None:
    text = message(DNS1, config={key: value}, where="policy p, module m")
    assert text.startswith(f"policy p, module m: dns 1.0: {key}: ")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("value", "part"),
    [(["16509/Amazon"], "'16509/Amazon'"), (["١"], "'١'"), ([""], "''"), (["4294967296"], "'4294967296'")],
)
def test_wrong_as_number(value: list[str], part: str) -> None:
    text = message(NET2, filter={"only_asn_number": value})
    assert part in text
    assert "only_asn_number" in text


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("only_rcode", 3, (3,)),
        ("only_rcode", 0, (0,)),
        ("only_rcode", ["nxdomain", "5"], (3, 5)),
        ("only_rcode", ["BADSIG", 0], (0, 16)),
        ("only_rcode", [], ()),
        ("only_qtype", ["aaaa", "65", 1], (1, 28, 65)),
        ("only_qtype", ["Reserved (0)", "*"], (0, 255)),
        ("only_qname", ["Play.GooGle.com", 1], ("play.google.com", "1")),
        ("only_qname_suffix", ["GooGle.com"], ("google.com",)),
        ("answer_count", 0, 0),
        ("dnstap_msg_type", "client", "client"),
        ("public_suffix_list", True, True),
        ("recorded_stream", True, True),
        ("recorded_stream", False, False),
        ("xact_ttl_ms", 1, 1),
    ],
)
def test_values(key: str, given: Any, read: Any) -> None:
    assert handler_config(DNS1, filter={key: given}).options[key] == read


def test_net_values() -> None:
    options = handler_config(
        NET1, filter={"only_geoloc_prefix": ["NA/United States"], "only_asn_number": [16509, "022131"]}
    ).options
    assert options["only_geoloc_prefix"] == ("NA/United States",)
    assert options["only_asn_number"] == ("16509", "22131")
    assert options["geoloc_notfound"] is False


def test_only_xact_directions() -> None:
    assert handler_config(DNS2, filter={"only_xact_directions": ["in"]}).options["only_xact_directions"] == (
        "in",
    )
    text = message(DNS2, filter={"only_xact_directions": ["inwards"]})
    assert "'inwards'" in text
    assert "in, out, unknown" in text


def test_transaction_time() -> None:
    def ttl(**config: int) -> Any:
        return handler_config(DHCP, config=config).options["xact_ttl_ms"]

    assert ttl(xact_ttl_secs=2) == 2000
    assert ttl(xact_ttl_ms=7, xact_ttl_secs=2) == 7
    assert ttl() == 5000
    # also when the loser comes from a later map
    config = handler_config(DNS1, config={"xact_ttl_ms": 7}, filter={"xact_ttl_secs": 2})
    assert config.options["xact_ttl_ms"] == 7


def test_exclude_noerror_wins() -> None:
    config = handler_config(DNS1, filter={"exclude_noerror": True, "only_rcode": 0})
    assert config.options["only_rcode"] is None
    # but a value that cannot be read is still named
    assert "only_rcode" in message(DNS1, filter={"exclude_noerror": True, "only_rcode": 133})


@pytest.mark.parametrize(
    ("given", "periods", "deep"), [(0, 1, 1), (1, 1, 1), (10, 10, 10), (11, 10, 11), (102, 10, 100)]
)
def test_clamps(given: int, periods: int, deep: int) -> None:
    config = handler_config(NET1, window_config={"num_periods": given, "deep_sample_rate": given})
    assert (config.num_periods, config.deep_sample_rate) == (periods, deep)


def test_merge_order() -> None:
    def count(**maps: Any) -> int:
        return handler_config(
            NET1, **{name: {"topn_count": value} for name, value in maps.items()}
        ).topn_count

    assert count(defaults=1) == 1
    assert count(defaults=1, config=2) == 2
    assert count(defaults=1, config=2, window_config=3) == 3
    assert count(defaults=1, config=2, window_config=3, filter=4) == 4
    # groups share the namespace, metric_groups wins
    config = handler_config(NET1, config={"disable": ["all"]}, metric_groups={"disable": ["counters"]})
    assert config.groups == NET1.default_groups - {"counters"}


def test_maps() -> None:
    assert "window_config: 5 is a number, expected a map" in message(NET1, window_config=5)
    assert "the key 5 is not text" in message(NET1, config={5: True})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("007", 7),
        ("TRUE", True),
        ("false", False),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("yes", "yes"),
        ("on", "on"),
        ("", ""),
        ("٣", "٣"),
    ],
)
def test_scalar(text: str, value: Any) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def handlers(*args: Any) -> list[tuple[str, str, str, int | None]]:
    return [(spec.type, spec.version, spec.name, spec.after) for spec in parse_handlers(*args)]


def test_parse_handlers() -> None:
    assert handlers() == [
        ("net", "1.0", "net", None),
        ("dns", "1.0", "dns", None),
        ("dhcp", "1.0", "dhcp", None),
    ]
    assert handlers("net, dns:2.0,dns") == [
        ("net", "1.0", "net", None),
        ("dns", "2.0", "dns_v2", None),
        ("dns", "1.0", "dns", None),
    ]
    assert handlers(["net", "net,bgp"]) == [
        ("net", "1.0", "net", None),
        ("net", "1.0", "net_2", None),
        ("bgp", "1.0", "bgp", None),
    ]


def test_parse_chains() -> None:
    wanted = [["dns:2.0", {"type": "net", "filter": {"geoloc_notfound": True}}, "dns"], "net"]
    specs = parse_handlers(wanted)
    assert [(spec.name, spec.after) for spec in specs] == [
        ("dns_v2", None),
        ("net", 0),
        ("dns", 1),
        ("net_2", None),
    ]
    assert specs[1].filter == {"geoloc_notfound": True}
    assert handlers([["dns,net"]]) == [("dns", "1.0", "dns", None), ("net", "1.0", "net", 0)]


def test_parse_maps() -> None:
    wanted = {
        "type": "dns",
        "version": 2.0,
        "name": "slow",
        "config": {"xact_ttl_secs": 1},
        "metric_groups": {"enable": ["xact_times"]},
    }
    (spec,) = parse_handlers(wanted)
    config = spec.resolve(window_config={"num_periods": 1})
    assert isinstance(config, HandlerConfig)
    assert (config.type, config.version, config.name) == ("dns", "2.0", "slow")
    assert config.options["xact_ttl_ms"] == 1000
    assert "xact_times" in config.groups
    assert config.num_periods == 1
    assert parse_handlers([spec, HandlerSpec("net")])[1].name == "net"


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        ("ns", ["'ns'", "bgp, dhcp, dns, input_resources, net, pcap"]),
        ("dns:3.0", ["dns", "'3.0'", "1.0, 2.0"]),
        ("dhcp:2.0", ["dhcp", "'2.0'", "1.0"]),
        ("", ["''"]),
        ("net,", ["''"]),
        ("dns:", ["'dns:'"]),
        (":2.0", ["':2.0'"]),
        ([], ["none given"]),
        (5, ["5"]),
        ([5], ["5"]),
        ([[5]], ["5"]),
        ({"type": "net", "groups": 1}, ["'groups'", "metric_groups"]),
        ({"name": "net"}, ["'type'"]),
        ({"type": "net", "name": 5}, ["name", "5"]),
        ([{"type": "net", "name": "a"}, {"type": "dns", "name": "a"}], ["'a'", "taken"]),
        ({"type": "net", "config": []}, ["config", "a list"]),
    ],
)
def test_parse_errors(wanted: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_handlers(wanted)
    for part in parts:
        assert part in str(error.value)
