"""The documentation is true: its Python runs, what it shows is what comes out, its lists are complete."""

from __future__ import annotations

import ast
import contextlib
import gzip
import inspect
import io
import json
import pkgutil
import re
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import docopt
import mmdb_writer
import pytest
import zstandard
from netprobe.cli import kprobe, pktvisor_cli, pktvisor_pcap, pktvisord

import netprobe
from netprobe._core.columns import COLUMNS
from netprobe.agent.options import Options, settings
from netprobe.handlers.config import GROUP_KEYS
from netprobe.handlers.registry import HANDLERS

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tests" / "captures" / "demo.pcap"
PAGES = {
    str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"# -> (.*)")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the page on which the text begins."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = PAGES[page].read_text()
    return [Block(m[1], m[2], text[: m.start(2)].count("\n") + 1) for m in FENCE.finditer(text)]


# --- what help() says ---


def test_everything_public_is_described() -> None:
    """Each function, class, method and property that `netprobe` offers."""
    silent = []
    for name in netprobe.__all__:
        thing = getattr(netprobe, name)
        if inspect.isclass(thing):
            for owner in thing.__mro__:
                if owner.__module__.startswith("netprobe"):
                    silent += [
                        f"{name}.{key}"
                        for key, member in vars(owner).items()
                        if not key.startswith("_")
                        and (isinstance(member, property) or callable(member))
                        and not inspect.getdoc(member)
                    ]
        if callable(thing) and not inspect.getdoc(thing):
            silent.append(name)
    assert not silent


# --- examples ---


def shown(block: Block) -> dict[int, str]:
    """Line of the page -> what a comment `# -> …` says that the expression ending there gives."""
    tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
    found = {}
    for token in tokens:
        if token.type == tokenize.COMMENT and (match := SHOWN.fullmatch(token.string)):
            found[token.start[0] + block.line - 1] = match[1]
    return found


class Checked(ast.NodeTransformer):
    """Makes each expression with a comment `# -> …` go through `check(line, function)`."""

    def __init__(self, lines: set[int]) -> None:
        self.lines = lines

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        assert node.end_lineno is not None
        if node.end_lineno not in self.lines:
            return node
        call = ast.parse(f"check({node.end_lineno}, lambda: 0)", mode="eval").body
        assert isinstance(call, ast.Call)
        function = call.args[1]
        assert isinstance(function, ast.Lambda)
        function.body = node.value
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))


def run_page(page: str) -> int:
    """Run the blocks in order, in one namespace; how many results were compared."""
    names: dict[str, Any] = {"__name__": "example"}
    compared = 0
    for block in blocks(page):
        if block.language != "python":
            continue
        wanted = shown(block)
        seen = set()

        def check(
            line: int, function: Callable[[], Any], wanted: dict[int, str] = wanted, seen: set[int] = seen
        ) -> Any:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                value = function()
            text = out.getvalue().strip() if value is None else repr(value)
            assert text == wanted[line], f"{page}, line {line}"
            seen.add(line)
            return value

        names["check"] = check
        tree = ast.parse("\n" * (block.line - 1) + block.text, page)
        exec(compile(Checked(set(wanted)).visit(tree), page, "exec"), names)
        assert seen == set(wanted), f"{page}: these lines show something that was never compared"
        compared += len(seen)
    return compared


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples find: the demo capture under several names, and databases."""
    data = DEMO.read_bytes()
    (tmp_path / "demo.pcap").write_bytes(data)
    (tmp_path / "monday.pcap").write_bytes(data)
    (tmp_path / "tuesday.pcap.zst").write_bytes(zstandard.compress(data))
    (tmp_path / "office.pcap.gz").write_bytes(gzip.compress(data))
    place = {"continent": {"code": "EU"}, "city": {"names": {"en": "Linköping"}}}
    (tmp_path / "city.mmdb").write_bytes(mmdb_writer.build({"10.77.0.0/24": place}))
    asn = {"autonomous_system_number": 64500}
    (tmp_path / "asn.mmdb").write_bytes(mmdb_writer.build({"10.77.0.0/24": asn}, kind="Test-ASN"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "python" for b in blocks(p))])
def test_examples(page: str, folder: Path) -> None:
    compared = run_page(page)
    assert compared or page != "docs/library.md"


def test_a_wrong_example_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = folder / "page.md"
    monkeypatch.setitem(PAGES, "page", page)
    page.write_text("text\n\n```python\nfor i in (1, 2):\n    i + 1  # -> 2\n```\n")
    with pytest.raises(AssertionError, match="page, line 5"):
        run_page("page")
    page.write_text("```python\nif False:\n    1  # -> 1\n```\n")
    with pytest.raises(AssertionError, match="never compared"):
        run_page("page")
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)  # -> 1\nx  # -> 1\n```\n")
    assert run_page("page") == 2


# --- the README's document ---


def test_readme_shows_the_demo(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The lines of the shortened document, in this order, are lines of what the first command prints."""
    (command,) = re.findall(r"^  set -- (.*?) #", (ROOT / "dev").read_text(), re.MULTILINE)
    argv = [str(DEMO) if word.endswith("demo.pcap") else word for word in command.split()]
    assert pktvisor_pcap.main(argv) == 0
    document = json.loads(capfdbinary.readouterr().out)
    printed = iter(line.strip() for line in json.dumps(document, indent=4, ensure_ascii=False).splitlines())
    (block,) = [b for b in blocks("README.md") if b.language == "json"]
    for line in block.text.splitlines():
        wanted = line.split("…")[0].strip()
        if wanted:
            assert any(p == wanted or ("…" in line and p.startswith(wanted.rstrip())) for p in printed), line


# --- lists that must be complete ---


#: page -> the usage text that it explains in a table of flags and defaults
USAGES = {
    "docs/pktvisor-pcap.md": pktvisor_pcap.USAGE,
    "docs/pktvisor-cli.md": pktvisor_cli.USAGE,
}


def usage_flags(usage: str) -> dict[str, bool]:
    """Flags of the usage text -> do they take a value?"""
    return {
        name: bool(option.argcount)
        for option in docopt.parse_options(usage)
        for name in (option.short, option.longer)
        if name
    }


def page_flags(page: str) -> dict[str, bool]:
    """Flags that the page's table explains -> does it show a value?"""
    found = {}
    for row in re.findall(r"^\| (`-.*?) \|", PAGES[page].read_text(), re.MULTILINE):
        for text in re.findall(r"`([^`]*)`", row):
            flag, _, value = text.partition(" ")
            assert flag not in found, f"{flag} is explained twice"
            found[flag] = bool(value)
    return found


@pytest.mark.parametrize("page", USAGES)
def test_flags_of_the_program(page: str) -> None:
    assert page_flags(page) == usage_flags(USAGES[page])


@pytest.mark.parametrize("page", USAGES)
def test_defaults_of_the_program(page: str) -> None:
    text = PAGES[page].read_text()
    for option in docopt.parse_options(USAGES[page]):
        if option.value not in (None, False):
            row = next(r for r in text.splitlines() if r.startswith(f"| `{option.longer or option.short} "))
            assert row.split("|")[2].strip().strip("`").split()[0] == option.value, row


def kprobe_flags() -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", kprobe.USAGE))


def test_kprobe_flags() -> None:
    """Every flag of the usage is in the page's table, and nothing else is."""
    rows = re.findall(r"^\| (`-.*?) \|", PAGES["docs/kprobe.md"].read_text(), re.MULTILINE)
    assert {flag for row in rows for flag in re.findall(r"`(--[a-z-]+)`", row)} == kprobe_flags()


def pktvisord_flags() -> dict[str, bool]:
    """Flags of the agent's usage -> do they take a value?"""
    return {
        name: bool(option.argcount)
        for option in docopt.parse_options(pktvisord.USAGE)
        for name in (option.short, option.longer)
        if name
    }


def test_pktvisord_flags() -> None:
    """The page's table has every flag once, with a value where it takes one, its key, its default."""
    defaults = {setting.flag: getattr(Options(), name) for name, setting in settings()}
    keys = {setting.flag: setting.key for _, setting in settings()}
    found = {}
    for row in re.findall(r"^\| (`-.*?) \|$", PAGES["docs/pktvisord.md"].read_text(), re.MULTILINE):
        flags, named, default, _ = (cell.strip() for cell in row.split("|", 3))
        written = re.findall(r"`(-[^`]*)`", flags)
        for text in written:
            flag, _, value = text.partition(" ")
            assert flag not in found, f"{flag} is explained twice"
            found[flag] = bool(value)
        if "--help" not in flags:
            wanted = [keys[text.split()[0]] for text in written]
            assert re.findall(r"`(\w+)`", named) == [key for key in wanted if key], flags
            shown = [text.strip("`") for text in default.split(", ")] if default else []
            real = [defaults[text.split()[0]] for text in written]
            if real[0] not in (None, False, ""):
                assert shown == [str(value) for value in real], flags
    assert found == pktvisord_flags()


def test_flags_in_running_text() -> None:
    """A long flag that a page mentions exists (those of other programs aside)."""
    others = {"--break-system-packages", "--no-ensure-ascii", *kprobe_flags(), *pktvisord_flags()}
    for usage in USAGES.values():
        others |= set(usage_flags(usage))
    for page, path in PAGES.items():
        mentioned = set(re.findall(r"`(--[a-z-]+)", path.read_text()))
        assert mentioned <= others, page


def test_groups_in_handler_lists() -> None:
    for text in (
        pktvisor_pcap.USAGE,
        PAGES["docs/pktvisor-pcap.md"].read_text(),
        PAGES["docs/library.md"].read_text(),
    ):
        assert "type[:version][+group" in text
        assert "+all" in text


def table_rows(page: str, start: str) -> Iterator[list[str]]:
    """Cells of the table whose head begins so."""
    lines = iter(PAGES[page].read_text().splitlines())
    for line in lines:
        if line.startswith(start):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)", cell)


def test_columns_are_all_there() -> None:
    kinds = {"int64": "i8", "uint32": "u4", "uint16": "u2", "uint8": "u1"}
    found = {}
    for names, types, _ in table_rows("docs/library.md", "| column | numpy type"):
        given = [kinds[kind] for kind in names_in(types)]
        for i, name in enumerate(names_in(names)):
            found[name] = ("16" if "16 ×" in types else "") + given[min(i, len(given) - 1)]
    assert found == {name: kind for name, (kind, _, _) in COLUMNS.items()}


def test_parameters_are_all_there() -> None:
    calls = [
        node
        for block in blocks("docs/library.md")
        if block.language == "python"
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "netprobe.summarize"
    ]
    given = {keyword.arg for call in calls for keyword in call.keywords}
    # `geo` is for databases that are open already
    assert given == set(inspect.signature(netprobe.summarize).parameters) - {"path", "geo"}
    signature = inspect.signature(netprobe.packets)
    (text,) = re.findall(r"`netprobe\.packets\((.*?)\)`", PAGES["docs/library.md"].read_text())
    assert [part.partition("=")[0].strip() for part in text.split(",")] == list(signature.parameters)


def test_stats_are_all_there() -> None:
    stats = netprobe.summarize(DEMO).stats
    keys = [name for row in table_rows("docs/library.md", "| key | meaning") for name in names_in(row[0])]
    assert sorted(keys) == sorted(stats)
    losses = [name for row in table_rows("docs/architecture.md", "| loss |") for name in names_in(row[0])]
    assert sorted(losses) == sorted(stats["losses"])


def test_public_names_are_all_there() -> None:
    text = PAGES["docs/library.md"].read_text()
    assert [n for n in netprobe.__all__ if n != "__version__" and not re.search(rf"\b{n}\b", text)] == []


def test_no_submodule_hides_a_public_name() -> None:
    """Importing a submodule makes it an attribute of the package, in place of a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(netprobe.__path__)}
    assert not modules & set(netprobe.__all__)


def test_every_setting_is_explained() -> None:
    page = PAGES["docs/metrics.md"].read_text()
    for table in HANDLERS:
        for key in (*table.options, *sorted(table.all_groups)):
            assert f"`{key}`" in page, f"{table.title}: {key}"
    assert set(GROUP_KEYS) <= set(names_in(page))


# --- links ---


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = PAGES[page]
    for link in re.findall(r"\]\(([^)]+)\)", here.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (here.parent / name).resolve() if name else here
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    text = PAGES["README.md"].read_text()
    assert [page for page in PAGES if page.startswith("docs/") and page not in text] == []


def test_every_extra_is_named_in_the_readme() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = PAGES["README.md"].read_text()
    assert [name for name in extras if not re.search(rf"(`|[\[,]){name}(`|[\],])", text)] == []
