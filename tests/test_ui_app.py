"""The screen of pktvisor-cli, driven by Textual's pilot against a small HTTP server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import agent_server
import pytest
from agent_server import AgentServer, per_policy, policy_object, serve
from ptykit import Patience
from textual import events
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import OptionList

import netprobe
from netprobe.ui.app import AgentApp, table_columns
from netprobe.ui.client import Address, AgentClient
from netprobe.ui.panels import TablePanel
from netprobe.ui.picture import TITLES

HOSTS = "10.77.0.2/32,fd77::2/128"
APP = "/api/v1/metrics/app"
POLICIES = "/api/v1/policies"
WINDOW = "/api/v1/policies/{}/metrics/window/5"
KEYS = "q quit  p policy"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    summary = netprobe.summarize(
        agent_server.CAPTURES / "demo.pcap", hosts=HOSTS, handlers="net,dns,dhcp,pcap"
    )
    return per_policy(summary, live=7)


@pytest.fixture
def agent(document: dict[str, Any]) -> Iterator[AgentServer]:
    """Policies default, second (version 2.0) and single (one period)."""
    second = netprobe.summarize(agent_server.CAPTURES / "demo.pcap", hosts=HOSTS, handlers="net:2.0,dns:2.0")
    routes: dict[str, Any] = {
        APP: (200, {"app": {"version": netprobe.__version__, "up_time_min": 0.5}}),
        WINDOW.format("default"): (200, document),
        WINDOW.format("second"): (200, per_policy(second, "second", live=8)),
        WINDOW.format("single"): (425, {"error": "invalid metrics period, specify [2, 1]"}),
        "/api/v1/policies/single/metrics/bucket/0": (200, {"single": document["default"]}),
        POLICIES: (
            200,
            {
                "default": policy_object("packets", "dns", "dhcp", "pcap"),
                "second": policy_object("net", "dns"),
                "single": policy_object("packets", periods=1),
                "eth0-resources": policy_object("input_resources"),
            },
        ),
    }
    with serve(routes) as server:
        yield server


def screen(app: AgentApp) -> list[str]:
    """The text of the screen, line by line."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


async def seen(pilot: Pilot[int], *texts: str) -> str:
    """The screen, as soon as all these texts stand on it."""
    app = pilot.app
    assert isinstance(app, AgentApp)
    patience = Patience()
    while True:
        await pilot.pause(0.02)
        now = "\n".join(screen(app))
        missing = [text for text in texts if text not in now]
        if not missing:
            return now
        assert patience.lasts, f"{missing} not in\n{now}"


def drive(
    server: AgentServer | int,
    size: tuple[int, int],
    play: Callable[[AgentApp, Pilot[int]], Awaitable[None]],
    policy: str = "default",
) -> AgentApp:
    """Run the app without a terminal, asking often."""
    port = server if isinstance(server, int) else server.port
    app = AgentApp(Address("127.0.0.1", port), policy, interval=0.02)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await play(app, pilot)

    asyncio.run(run())
    return app


# --- layout ---


def test_classic_layout(agent: AgentServer) -> None:
    """44 rows and enough columns: every box of 5.2 in its place, and nothing to scroll."""

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        page = app.query_one("#page", VerticalScroll)
        assert page.max_scroll_y == 0
        header = app.query_one("#header").region
        assert (header.y, header.height, header.width) == (0, 8, 200 - 2)
        for i, panel in enumerate(app.query(TablePanel)):
            row, column = divmod(i, 4)
            assert panel.border_title == TITLES[i]
            # y 8, 17, 26, 35 and so on; a frame of W/4 - 1 between its lines, counted as the spec counts
            assert (panel.region.x, panel.region.y) == (column * 50, 8 + row * 9)
            assert (panel.region.width, panel.region.height) == (50, 9)
            assert panel.content_size.height == 7
        lines = screen(app)
        assert len(lines) == 44
        assert all(title in lines[8 + i // 4 * 9] for i, title in enumerate(TITLES))
        # the keys stand in the free corner
        assert any(KEYS in line for line in lines[35:])

    drive(agent, (200, 44), play)


@pytest.mark.parametrize(
    ("size", "columns"),
    [
        ((200, 50), 4),
        ((160, 44), 4),
        ((80, 44), 4),
        ((80, 24), 2),
        ((120, 24), 4),
        ((100, 30), 3),
        ((50, 60), 1),
    ],
)
def test_columns(size: tuple[int, int], columns: int) -> None:
    assert table_columns(*size) == columns


@pytest.mark.parametrize(
    "size", [(200, 50), (170, 44), (80, 44), (120, 30), (100, 30), (80, 24), (40, 10), (20, 7)]
)
def test_everything_can_be_reached(agent: AgentServer, size: tuple[int, int]) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        width, height = size
        await seen(pilot, "Pkts 408"[: width - 3])
        found: set[str] = set()
        await pilot.press("home")
        page = app.query_one("#page", VerticalScroll)
        while True:
            await pilot.pause(0.01)
            lines = screen(app)
            assert len(lines) == height
            # 80 by 44 has columns of 19 cells, and 20 by 5 one of 18: less than the longest title takes
            found |= {title for title in TITLES if any(f"─ {title}"[:13] in line for line in lines)}
            if page.scroll_y >= page.max_scroll_y:
                break
            await pilot.press("pagedown")
        assert found == set(TITLES)

    drive(agent, size, play)


def test_80_by_24(agent: AgentServer) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        top = await seen(
            pilot, "Pkts 408 | UDP 91 (22.3%)", "Deep Samples 408 (100.0%)", KEYS, "live window/5"
        )
        page = app.query_one("#page", VerticalScroll)
        assert "Top QName 2" in top
        assert ".example.test              84 (84.0%)" in top
        assert "Top ASN" not in top
        for keys, moved in (
            (["down"], 1),
            (["up"], 0),
            (["pagedown"], page.size.height),
            (["pageup"], 0),
            (["end"], None),
            (["home"], 0),
        ):
            await pilot.press(*keys)
            await settled(pilot, page, moved)
        await pilot.press("end")
        assert "Top ASN" in await seen(pilot, "Top GeoLoc")
        await pilot.press("home")
        await settled(pilot, page, 0)
        await pilot._post_mouse_events([events.MouseScrollDown], offset=(10, 10))
        await moved_down(pilot, page)
        # new figures do not take the reader elsewhere
        before, asked = page.scroll_y, len(agent.requests)
        while len(agent.requests) < asked + 5:
            await pilot.pause(0.02)
        assert page.scroll_y == before

    drive(agent, (80, 24), play)


async def settled(pilot: Pilot[int], page: VerticalScroll, row: int | None) -> None:
    """None: the end, and figures that come in may have moved it since the key was pressed."""
    patience = Patience()
    while page.scroll_y != (page.max_scroll_y if row is None else row):
        assert patience.lasts, (page.scroll_y, row)
        await pilot.pause(0.2)
        if row is None:
            await pilot.press("end")


async def moved_down(pilot: Pilot[int], page: VerticalScroll) -> None:
    patience = Patience()
    while page.scroll_y == 0 or page.scroll_y != page.scroll_target_y:
        assert patience.lasts
        await pilot.pause(0.02)


def test_resizing(agent: AgentServer) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        for size, where in (((80, 24), (0, 39)), ((200, 44), (0, 50)), ((120, 24), (0, 29))):
            await pilot.resize_terminal(*size)
            patience = Patience()
            while [panel.region.x for panel in app.query(TablePanel)][:2] != list(where):
                assert patience.lasts, [panel.region for panel in app.query(TablePanel)]
                await pilot.pause(0.02)

    drive(agent, (200, 50), play)


# --- figures ---


def test_live_rates_move(agent: AgentServer, document: dict[str, Any]) -> None:
    count = 0

    def answer() -> tuple[int, Any]:
        nonlocal count
        count += 1
        packets = document["default"]["default-packets"]["packets"]
        rates = {**packets["rates"], "pps_total": {**packets["rates"]["pps_total"], "live": 1000 + count}}
        handlers = {**document["default"], "default-packets": {"packets": {**packets, "rates": rates}}}
        return 200, {"default": handlers}

    agent.routes[WINDOW.format("default")] = answer

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkt Rates Total 1003/s 2/20/68/117 pps")
        await seen(pilot, "Pkt Rates Total 1006/s")

    drive(agent, (200, 50), play)


def test_title(agent: AgentServer) -> None:
    version = netprobe.__version__

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, f"pktvisor-cli (client: {version} | server: {version}) Policy: default")

    drive(agent, (200, 50), play)


def test_version_mismatch_is_said(agent: AgentServer) -> None:
    agent.routes[APP] = (200, {"app": {"version": "77.1"}})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        text = f"WARNING version mismatch: client {netprobe.__version__}, server 77.1"
        await seen(pilot, "server: 77.1", text, "Pkts 408")

    drive(agent, (200, 50), play)


def test_names_are_shown_as_they_are(agent: AgentServer, document: dict[str, Any]) -> None:
    """Neither the terminal's nor Textual's own markup gets through."""
    dns = document["default"]["default-dns"]["dns"]
    names = ["\x1b[2J\x1b[31mred", "[bold]b[/bold]", "[/]", "[@click=app.exit]x[/]", "東京.test"]
    hostile = {**dns, "top_qname2": [{"name": name, "estimate": 9} for name in names]}
    agent.routes[WINDOW.format("default")] = (200, {"default": {"d": {"dns": hostile}}})
    agent.routes[APP] = (200, {"app": {"version": "[red]\x1b[2J"}})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        shown = await seen(pilot, "\\x1b[2J\\x1b[31mred", *names[1:], "server: [red]\\x1b[2J")
        assert "\x1b" not in shown

    drive(agent, (200, 50), play)


# --- errors ---


def test_the_old_picture_stays_when_the_agent_fails(agent: AgentServer, document: dict[str, Any]) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        agent.routes[WINDOW.format("default")] = (500, {"error": "out of [order]"})
        shown = await seen(pilot, "ERROR 500", "picture of", "500 Internal Server Error: out of [order]")
        assert "Pkts 408" in shown
        assert "www.example.test" in shown
        agent.routes[WINDOW.format("default")] = (200, document)
        while "ERROR 500" in await seen(pilot, "Pkts 408"):
            pass

    drive(agent, (200, 50), play)


def test_nobody_there_at_first(document: dict[str, Any]) -> None:
    with serve({}) as server:
        port = server.port
    # closed again; nobody listens there now

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "waiting for the agent", "ERROR connection refused", "server: unknown")
        await pilot.press("p")
        await seen(pilot, "connection refused (Esc closes)")
        await pilot.press("escape")
        await seen(pilot, "waiting for the agent")

    drive(port, (80, 24), play)


def test_unknown_policy_points_to_the_others(agent: AgentServer) -> None:
    agent.routes[WINDOW.format("nope")] = (404, {"error": "policy does not exist"})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "404 Not Found: policy does not exist", "p lists those that do")
        await pilot.press("p")
        await seen(pilot, "default  (dhcp dns packets pcap, 5 periods)")
        await pilot.press("enter")
        await seen(pilot, "Pkts 408", "Policy: default")

    drive(agent, (200, 50), play, policy="nope")


# --- policies ---


def test_choosing_a_policy(agent: AgentServer) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        await pilot.press("p")
        shown = await seen(
            pilot,
            "default  (dhcp dns packets pcap, 5 periods)",
            "second  (dns net, 5 periods)",
            "single  (packets, one period: no window)",
        )
        assert "resources" not in shown
        await pilot.press("down", "enter")
        await seen(pilot, "Policy: second", "DNS Xacts", "8/s")
        await pilot.press("p")
        await seen(pilot, "single  (packets")
        # where one is, is where the list opens
        assert app.screen.query_one(OptionList).highlighted == 1
        await pilot.press("down", "enter")
        await seen(pilot, "Policy: single", "bucket/0", "Pkts 408")

    drive(agent, (200, 50), play)


def test_figures_of_another_policy_are_not_shown_under_its_name(agent: AgentServer) -> None:
    agent.routes[WINDOW.format("second")] = (500, {"error": "not today"})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        await pilot.press("p")
        await seen(pilot, "second  (")
        await pilot.press("down", "enter")
        shown = await seen(pilot, "Policy: second", "ERROR 500", "waiting for the agent")
        assert "408" not in shown
        assert "www.example.test" not in shown

    drive(agent, (200, 50), play)


@pytest.mark.parametrize("key", ["escape", "p", "q"])
def test_leaving_the_list(agent: AgentServer, key: str) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        await pilot.press("p")
        await seen(pilot, "Enter shows, Esc closes")
        await pilot.press(key)
        while "Enter shows" in await seen(pilot, "Policy: default"):
            pass
        assert app.is_running

    drive(agent, (80, 24), play)


def test_an_agent_without_policies(agent: AgentServer) -> None:
    agent.routes[POLICIES] = (200, {})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await pilot.press("p")
        await seen(pilot, "the agent has no policy that can be shown")

    drive(agent, (80, 24), play)


def test_many_policies_scroll(agent: AgentServer) -> None:
    agent.routes[POLICIES] = (200, {f"policy-{i:03}": policy_object("dns") for i in range(1000)})

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await pilot.press("p")
        await seen(pilot, "policy-000")
        await pilot.press("end")
        await seen(pilot, "policy-999")

    drive(agent, (80, 24), play)


# --- keys ---


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["p", "ctrl+c"], ["p", "q", "q"]])
def test_leaving(agent: AgentServer, keys: list[str]) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        await pilot.press(*keys)

    assert drive(agent, (80, 24), play).return_value == 0


def test_leaving_does_not_wait_for_the_agent() -> None:
    """Not even for one that takes a connection and then says nothing for an hour."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        app = AgentApp(address, "default", client=AgentClient(address, timeout=3600))

        async def run() -> None:
            async with app.run_test(size=(80, 24)) as pilot:
                await seen(pilot, "waiting for the agent")
                listener.accept()
                await pilot.press("q")

        asyncio.run(run())
    assert app.return_value == 0


def test_pause(agent: AgentServer, document: dict[str, Any]) -> None:
    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        await pilot.press("space")
        await seen(pilot, "PAUSED")
        agent.routes[WINDOW.format("default")] = (200, {"default": {"n": {"packets": {"total": 999}}}})
        asked = len(agent.requests)
        while len(agent.requests) < asked + 5:
            await pilot.pause(0.02)
        await seen(pilot, "PAUSED", "Pkts 408")
        await pilot.press("space")
        await seen(pilot, "Pkts 999")

    drive(agent, (80, 24), play)


# --- colour ---


def colours(app: AgentApp) -> set[str]:
    """The names of all colours on the screen, as they go to the terminal."""
    found = set()
    for strip in app.screen._compositor.render_strips():
        for line_filter in app._filters:
            if line_filter.enabled:
                strip = strip.apply_filter(line_filter, app.screen.background_colors[1])
        for segment in strip:
            for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                if colour is not None and not colour.is_default:
                    found.add(colour.name)
    return found


@pytest.mark.parametrize("plain", [False, True])
def test_colours(agent: AgentServer, monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    """One, of the terminal's own, for titles and the scroll bar; none with NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")

    async def play(app: AgentApp, pilot: Pilot[int]) -> None:
        await seen(pilot, "Pkts 408")
        assert colours(app) == (set() if plain else {"color(6)"})
        await pilot.press("p")
        await seen(pilot, "second")
        assert colours(app) <= (set() if plain else {"color(6)"})

    drive(agent, (80, 24), play)
