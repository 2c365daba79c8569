"""The page in a real browser: updates without a reload, the security policy, a lost server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.journal import (
    CoverageChanged,
    CoverageReport,
    MemberPlace,
    PeerDown,
    RewardsReport,
    ServedStage,
)
from protocol.status import Status, fold, status_at
from protocol.status.reference import ReferenceCurve, ReferencePoint
from tests.browser import Browser, chromium, chromium_path
from tests.story import AT, PEERS, certified, day, folded, report, scored

pytestmark = [
    pytest.mark.real,
    pytest.mark.browser,
    pytest.mark.skipif(
        chromium_path() is None, reason="chromium is not installed: apt-get install chromium"
    ),
]


async def browse(story: Callable[[Browser], Any]) -> None:
    """Run a story with a browser in a thread of its own while the server runs."""

    def run_story() -> None:
        with chromium() as browser:
            story(browser)
            assert browser.problems == []

    await trio.to_thread.run_sync(run_story)


async def test_page_shows_a_new_round_without_a_reload() -> None:
    state = folded(day("observer"))
    bridge = Bridge()
    bridge.publish(status_at(state, AT))

    def certify_round_7() -> None:
        fold(state, certified(7, "observed", at=AT, loss=5.4321))
        fold(state, msgspec.structs.replace(report(1, at=AT + 1), name="attic-renamed"))
        bridge.publish(status_at(state, AT + 1))

    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.size(1280, 900)
            browser.open(bound.url)
            assert browser.evaluate("document.querySelectorAll('.strip li').length") == 7
            assert "basement-4090" in browser.evaluate("document.querySelector('.peers').innerText")
            browser.evaluate(
                "window.never_reloaded = true; document.querySelector('details').open = true"
            )
            trio.from_thread.run_sync(certify_round_7)
            browser.wait_for("document.querySelector('.cards').innerText.includes('Round 7')")
            browser.wait_for("document.title.includes('round 7')")
            assert browser.evaluate("document.querySelectorAll('.strip li').length") == 8
            assert "5.432" in browser.evaluate("document.querySelector('.told').textContent")
            assert "attic-renamed" in browser.evaluate("document.querySelector('.peers').innerText")
            assert (
                browser.evaluate("window.never_reloaded && document.querySelector('details').open")
                is True
            )
            assert browser.evaluate("document.getElementById('contact').textContent") == "live"

        await browse(story)


async def test_page_with_hostile_names_runs_no_script_and_fits_each_width() -> None:
    bridge = Bridge()
    bridge.publish(status_at(folded(day()), AT))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            for width in (320, 400, 800, 1280):
                for dark in (False, True):
                    browser.size(width, 900, dark=dark)
                    browser.open(bound.url)
                    assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("document.scripts.length") == 1
            assert "<script>alert('x')</script>" in browser.evaluate(
                "document.querySelector('.peers').innerText"
            )

        await browse(story)


async def test_page_draws_held_out_loss_beside_training_loss_and_reference() -> None:
    state = folded([*day(), *(scored(i, n, 6.2 - 0.1 * n) for i in (0, 1) for n in (2, 4, 6))])
    points = tuple(
        ReferencePoint(seconds=5.0 * i, samples=40 * i, loss=6.5 - 0.02 * i) for i in range(20)
    )
    curve = ReferenceCurve(label="one machine alone", began_at=AT - 120, points=points)
    bridge = Bridge()
    bridge.publish(msgspec.structs.replace(status_at(state, AT), reference=curve))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            for width in (320, 1280):
                browser.size(width, 900)
                browser.open(bound.url)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
                for kind in ("training", "held-out", "reference"):
                    line = f"document.querySelector('.chart .{kind} .line')"
                    assert browser.evaluate(f"{line}.getBoundingClientRect().width") > 50
                words = browser.evaluate("document.querySelector('.curves').innerText")
                assert "one machine alone" in words
                assert "as the members claim" in words
            colors = (
                f"getComputedStyle(document.querySelector('.chart .{kind} .line')).stroke"
                for kind in ("training", "held-out", "reference")
            )
            assert len({browser.evaluate(color) for color in colors}) == 3

        await browse(story)


async def test_page_is_readable_without_javascript() -> None:
    bridge = Bridge()
    status = status_at(folded(day()), AT)
    bridge.publish(status)
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.script(False)
            browser.open(bound.url)
            text = browser.evaluate("document.body.innerText")
            for words in (status.verdict, "Round 6", "kitchen", "as of 22:13:20 UTC"):
                assert words in text

        await browse(story)


async def test_page_says_that_its_server_is_gone() -> None:
    bridge = Bridge()
    bridge.publish(status_at(folded(day()), AT))

    def watch(bound: BoundAddress) -> None:
        with chromium() as browser:
            browser.open(bound.url)
            trio.from_thread.run_sync(leave.set)
            browser.wait_for(
                "document.getElementById('contact').textContent.includes('what is shown is old')",
                timeout_s=15,
            )
            assert all("ERR_CONNECTION_REFUSED" in problem for problem in browser.problems)

    leave = trio.Event()
    async with (
        trio.open_nursery() as nursery,
        web_server(bridge, ObserverSettings(port=0)) as bound,
    ):
        nursery.start_soon(trio.to_thread.run_sync, watch, bound)
        await leave.wait()


async def test_page_moves_one_cursor_over_four_charts_and_tells_each_figure() -> None:
    bridge = Bridge()
    bridge.publish(status_at(folded(day()), AT))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            for width, dark in ((390, True), (1280, False)):
                browser.size(width, 900, dark=dark)
                browser.open(bound.url)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
                assert browser.evaluate("document.querySelectorAll('figure.chart svg').length") == 4
                browser.evaluate(
                    "document.querySelectorAll('.charts .hit')[2].dispatchEvent("
                    "new PointerEvent('pointerover', {bubbles: true}))"
                )
                assert browser.evaluate("document.querySelectorAll('.hit.at').length") == 4
                told = browser.evaluate(
                    "[...document.querySelectorAll('figure.chart p.told')].map(p => p.textContent)"
                )
                # The first round has no time, so the third point of the speed is that of round 4.
                assert all("round 4" in text for text in told), told
                press = (
                    "document.querySelector('.charts svg').dispatchEvent("
                    "new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
                )
                browser.evaluate(press.format(key="ArrowLeft"))
                assert "round 3" in browser.evaluate(
                    "document.querySelector('.charts p.told').textContent"
                )
                browser.evaluate(press.format(key="Escape"))
                assert browser.evaluate("document.querySelectorAll('.hit.at').length") == 0

        await browse(story)


async def test_page_asks_no_other_host_and_shows_how_to_join_without_javascript() -> None:
    bridge = Bridge()
    bridge.publish(status_at(folded(day("observer")), AT))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.open(bound.url)
            loaded = browser.evaluate(
                "performance.getEntriesByType('resource').map(one => new URL(one.name).host)"
            )
            assert set(loaded) <= {f"{bound.host}:{bound.port}"}
            browser.script(False)
            browser.open(bound.url)
            text = browser.evaluate("document.querySelector('section.join').innerText")
            assert "hypergpud start --join /ip4/127.0.0.1/tcp/4002/p2p/" in text
            assert browser.evaluate("document.querySelectorAll('figure.chart svg').length") == 4

        await browse(story)


async def test_page_shows_a_killed_node_within_five_seconds() -> None:
    state = folded(day("observer"))
    bridge = Bridge()
    bridge.publish(status_at(state, AT))

    def kill() -> None:
        fold(state, PeerDown(at=AT + 1, peer=PEERS[1], reason="the connection was reset"))
        bridge.publish(status_at(state, AT + 1))

    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.open(bound.url)
            assert browser.evaluate("document.querySelectorAll('tr.gone').length") == 0
            trio.from_thread.run_sync(kill)
            browser.wait_for("document.querySelector('tr.gone')", timeout_s=5)
            assert "the connection was reset" in browser.evaluate(
                "document.querySelector('tr.gone').innerText"
            )

        await browse(story)


def rich_status(at: float) -> Status:
    """A run that pays, trains in two groups, and serves a model with a gap."""
    first, *others = day()
    places = (
        MemberPlace(group=0, is_measured=True, x_us=0, height_us=900),
        MemberPlace(group=0, is_measured=True, x_us=2_000, height_us=900),
        MemberPlace(group=1, is_measured=True, x_us=80_000, y_us=9_000, height_us=5_000),
        MemberPlace(group=1, is_measured=True, x_us=84_000, height_us=900),
    )
    stage = ServedStage(
        peer=PEERS[1],
        name="kitchen",
        first=0,
        stop=8,
        layer_tokens_per_s=90.0,
        cache_tokens_free=4096,
    )
    events = [
        msgspec.structs.replace(first, chain="hypergpu"),
        *others,
        certified(7, at=at - 14, members=3),
        msgspec.structs.replace(
            certified(8, at=at), places=places, plan="2 groups of 2, about 1.2 s"
        ),
        CoverageReport(at=at, model="ab" * 32, name="tiny", layers=12, stages=(stage,)),
        CoverageChanged(at=at, model="ab" * 32, name="tiny", missing="layers 8 to 11", stages=1),
        RewardsReport(
            at=at,
            profile="hypergpu",
            pool=str(10**21),
            epoch=3,
            epoch_ends_at_s=int(at) + 7200,
            account="0x" + "ab" * 20,
            payout="0x" + "ab" * 20,
            earned=str(10**19),
            claimed="0",
            claimable=str(10**19),
            pending="0",
        ),
    ]
    return status_at(folded(events), at)


CONTRAST = """(selector => {
    const luminance = text => {
        const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(part => {
            const share = part / 255;
            return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const node = document.querySelector(selector);
    const ink = luminance(getComputedStyle(node).color);
    let ground = node;
    while (/rgba\\(0, 0, 0, 0\\)/.test(getComputedStyle(ground).backgroundColor)) {
        ground = ground.parentElement;
    }
    const paper = luminance(getComputedStyle(ground).backgroundColor);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})"""


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)]
)
async def test_page_with_groups_rewards_and_inference_fits_and_is_readable(
    width: int, dark: bool
) -> None:
    bridge = Bridge()
    bridge.publish(rich_status(AT))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.size(width, 900, dark=dark)
            browser.open(bound.url)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            for selector, words in (
                (".groups", "2 groups of 2, about 1.2 s."),
                (".rewards", "type hypergpud rewards claim"),
                (".coverage", "Nobody serves layers 8 to 11"),
                (".events", "Nobody serves layers 8 to 11 of tiny."),
            ):
                text = browser.evaluate(f"document.querySelector('{selector}').innerText")
                assert words in text.replace("\n", " ")
                inside = browser.evaluate(
                    f"document.querySelector('{selector}').getBoundingClientRect().right"
                )
                assert inside <= width
            for selector in (".groups p", ".rewards dd", ".coverage p", ".rewards dt"):
                assert browser.evaluate(f"{CONTRAST}('{selector}')") >= 4.5, selector
            assert browser.evaluate("document.querySelectorAll('.map .member').length") == 4
            assert browser.evaluate("document.querySelectorAll('figure.chart .leave').length") == 4

        await browse(story)


async def test_page_can_be_read_with_the_keyboard_alone() -> None:
    bridge = Bridge()
    bridge.publish(rich_status(AT))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:

        def story(browser: Browser) -> None:
            browser.size(1280, 900)
            browser.open(bound.url)
            reached: list[str] = []
            for _ in range(80):
                browser.press("Tab")
                reached.append(
                    browser.evaluate(
                        "document.activeElement.closest('figure.chart') ? 'chart' :"
                        " document.activeElement.closest('.strip') ? 'strip' :"
                        " document.activeElement.closest('.events') ? 'events' :"
                        " document.activeElement.closest('.join') ? 'join' :"
                        " document.activeElement.nodeName"
                    )
                )
            assert reached.count("chart") >= 4
            assert {"strip", "events", "join", "SUMMARY", "A"} <= set(reached)

        await browse(story)


async def test_page_goes_on_by_itself_when_its_observer_restarts() -> None:
    bridge = Bridge()
    bridge.publish(status_at(folded(day("observer")), AT))
    first_ended, back = trio.Event(), trio.Event()
    bound: list[BoundAddress] = []

    async def serve() -> None:
        async with web_server(bridge, ObserverSettings(port=0)) as first:
            bound.append(first)
            await first_ended.wait()
        again = Bridge()
        # The restarted observer knows only what it has verified again.
        again.publish(status_at(folded(day("observer", rounds=2)), AT))
        async with web_server(again, ObserverSettings(port=bound[0].port)):
            back.set()
            await trio.sleep(0.5)
            state = folded([*day("observer"), certified(7, "observed", at=AT)])
            again.publish(status_at(state, AT))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        while not bound:
            await trio.sleep(0.01)

        def story() -> None:
            with chromium() as browser:
                browser.open(bound[0].url)
                browser.wait_for("document.title.includes('round 6')")
                browser.evaluate("window.never_reloaded = true")
                trio.from_thread.run_sync(first_ended.set)
                browser.wait_for("document.title.includes('round 7')", timeout_s=20)
                browser.wait_for("document.getElementById('contact').textContent === 'live'")
                assert browser.evaluate("window.never_reloaded") is True
                assert all("ERR_" in problem for problem in browser.problems)

        await trio.to_thread.run_sync(story)
        assert back.is_set()
        nursery.cancel_scope.cancel()
