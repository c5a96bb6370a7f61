"""Public suffixes against the publicsuffixlist package and the algorithm's own examples."""

import random

import publicsuffixlist
import pytest

from netprobe._core.suffix import SuffixSet, icann_rules, public_suffixes
from netprobe._core.wire.dns import aggregate


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("www.google.co.uk", ".co.uk"),
        ("www.example.com", ".com"),
        ("a.b.c.d.com", ".com"),
        ("foo.ck", ".foo.ck"),  # *.ck
        ("a.foo.ck", ".foo.ck"),
        ("www.ck", ".ck"),  # !www.ck
        ("a.www.ck", ".ck"),
        ("x.co.za", ".co.za"),
        ("x.y.ac.za", ".ac.za"),
        ("x.kobe.jp", ".x.kobe.jp"),
        ("a.x.kobe.jp", ".x.kobe.jp"),
        ("city.kobe.jp", ".kobe.jp"),
        ("www.city.kobe.jp", ".kobe.jp"),
        ("notco.uk", ".uk"),  # no label border before co.uk
        ("a.no-such-tld", ".no-such-tld"),
        ("a.xn--p1ai", ".xn--p1ai"),
        ("a.xn--85x722f.xn--55qx5d.cn", ".xn--55qx5d.cn"),
        ("foo.blogspot.com", ".com"),  # listed among the private ones only
        ("com", ""),
        ("localhost", ""),
        ("example.com.", ""),
        ("", ""),
    ],
)
def test_known_names(name, suffix):
    assert public_suffixes().suffix_length(name.encode()) == len(suffix)


def test_levels_with_public_suffix():
    def both(name: str) -> tuple[bytes, bytes | None]:
        return aggregate(name.encode(), public_suffixes().suffix_length(name.encode()))

    assert both("www.google.co.uk") == (b".google.co.uk", b"www.google.co.uk")
    assert both("a.www.google.co.uk") == (b".google.co.uk", b".www.google.co.uk")
    assert both("a.b.shop.foo.ck") == (b".shop.foo.ck", b".b.shop.foo.ck")
    assert both("a.b.www.ck") == (b".www.ck", b".b.www.ck")
    assert both("co.uk") == (b"co.uk", None)
    assert both("sirius.mwbsys.com") == (b".mwbsys.com", b"sirius.mwbsys.com")


def test_against_the_package():
    oracle = publicsuffixlist.PublicSuffixList(only_icann=True)
    with open(publicsuffixlist.PSLFILE, encoding="utf-8") as source:  # noqa: PTH123
        rules = list(icann_rules(source.read()))
    assert len(rules) > 5000
    assert all(rule.isascii() for rule in rules)
    # the package takes `x` for a suffix when there is `*.x`; the algorithm does not
    open_ended = {rule[2:] for rule in rules if rule.startswith("*.")}
    rng = random.Random(11)
    tried = 0
    for _ in range(30_000):
        rule = rng.choice(rules).lstrip("!").replace("*.", rng.choice(["", "x.", "y.x."]))
        name = ".".join([*rng.choices(["a", "www", "x-y", "co"], k=rng.randrange(3)), rule])
        if rng.random() < 0.3:
            name = name.partition(".")[2] or name
        expected = oracle.publicsuffix(name)
        if "." not in name or expected in open_ended:
            continue
        tried += 1
        assert public_suffixes().suffix_length(name.encode()) == len(expected) + 1, name
    assert tried > 20_000


def test_rules():
    mine = SuffixSet(["uk", "co.uk", "*.ck", "!www.ck", "a.b.c.d"])
    assert mine.suffix_length(b"x.co.uk") == 6
    assert mine.suffix_length(b"x.y.ck") == 5
    assert mine.suffix_length(b"x.www.ck") == 3
    assert mine.suffix_length(b"x.a.b.c.d") == 8
    assert mine.suffix_length(b"x.b.c.d") == 2
    assert SuffixSet([]).suffix_length(b"x.y.z") == 2
    with pytest.raises(ValueError, match="known form"):
        SuffixSet(["a.*.b"])


def test_only_the_icann_section():
    begin, end = "// ===BEGIN ICANN DOMAINS===", "// ===END ICANN DOMAINS==="
    text = "\n".join(["private0", begin, "// note", "com", "*.ck // x", "бг", end, "private"])
    assert list(icann_rules(text)) == ["com", "*.ck", "xn--90ae"]
