"""What the doctor concludes from members' calls, and the one thing that it tells a person to do."""

from __future__ import annotations

import pytest

from daemon.cli.terminal.network_text import network_text
from protocol.network.network_report import (
    SENTENCES,
    NetworkReport,
    PeerLine,
    Verdict,
    family_line,
    judge,
    mapping_line,
    port_line,
    remedy_for,
    remedy_for_misnamed,
)
from protocol.network.port_mapping import MappingState, PortMapping
from protocol.network.reachability import DialBackResult

WAN, HOME, SIX = "45.67.89.101", "192.168.1.10", "2a01::10"


def call(observed: str = WAN, *, control: bool = True, bulk: bool | None = True) -> DialBackResult:
    return DialBackResult(by="12D3KooWmember", observed=observed, control=control, bulk=bulk)


def test_both_ports_must_be_open_for_others_to_call() -> None:
    assert judge(0, [], "") == "nobody_answers"
    assert judge(3, [], "") == "not_measured"
    assert judge(3, [call(bulk=False), call(control=False)], "") == "only_by_relay"
    assert judge(3, [call(bulk=False), call()], "") == "callable"
    assert judge(3, [call(bulk=None)], "") == "callable", "an observer has no bulk port"


def test_an_advertised_address_that_leads_elsewhere_is_judged_and_corrected() -> None:
    assert judge(3, [call()], "45.67.89.7") == "misnamed"
    assert judge(0, [], "45.67.89.7") == "nobody_answers"
    said = remedy_for_misnamed("45.67.89.7", WAN, 4001)
    assert f'advertise = ["/ip4/{WAN}/tcp/4001"]' in said
    assert f"/ip6/{SIX}/tcp/4001" in remedy_for_misnamed("2a01::7", SIX, 4001)


def test_each_family_is_judged_by_calls_over_it_alone() -> None:
    results = [call(), call(SIX, control=False, bulk=False)]
    four, six = family_line(4, (HOME, SIX), results), family_line(6, (HOME, SIX), results)
    assert (four.local, four.observed, four.callable) == ((HOME,), WAN, True)
    assert (six.local, six.observed, six.callable) == ((SIX,), SIX, False)
    assert "no IPv6 address" in family_line(6, (HOME,), []).reason
    assert "not measured" in family_line(6, (SIX,), []).reason


def mapping(state: MappingState) -> PortMapping:
    return PortMapping(state=state, reason="why", wan=WAN)


@pytest.mark.parametrize(
    ("verdict", "state", "only_443", "words"),
    [
        ("callable", "mapped", False, ""),
        ("not_measured", "none", None, ""),
        ("nobody_answers", "none", None, "--join"),
        ("only_by_relay", "none", False, f"forward its TCP ports 4001 and 4002 to {HOME}"),
        ("only_by_relay", "none", False, f'advertise = ["/ip4/{WAN}/tcp/4001"]'),
        ("only_by_relay", "refused", None, "forward"),
        ("only_by_relay", "mapped", False, "firewall"),
        ("only_by_relay", "double_nat", False, "public IPv4"),
        ("only_by_relay", "none", True, "port 443"),
    ],
)
def test_the_remedy_is_one_and_names_the_ports(
    verdict: Verdict, state: MappingState, only_443: bool | None, words: str
) -> None:
    said = remedy_for(
        verdict,
        port_line(4001, [False]),
        port_line(4002, [False, False]),
        mapping(state),
        family_line(4, (HOME,), [call()]),
        only_443=only_443,
    )
    assert words in said
    assert bool(words) == bool(said)


def test_only_the_closed_port_is_named_and_one_port_is_named_once() -> None:
    family = family_line(4, (HOME,), [call()])

    def said(control: tuple[int, bool], bulk: tuple[int, bool]) -> str:
        lines = [port_line(port, [opened]) for port, opened in (control, bulk)]
        return remedy_for("only_by_relay", *lines, mapping("none"), family, only_443=False)

    assert "TCP ports 4002 to" in said((4001, True), (4002, False))
    shared = said((443, False), (443, False))
    assert "TCP ports 443 to" in shared
    assert "one_port = true" in shared


def test_the_text_says_what_was_not_measured() -> None:
    report = NetworkReport(
        verdict="not_measured",
        sentence=SENTENCES["not_measured"],
        nat="unknown",
        control=port_line(4001, []),
        bulk=port_line(4002, []),
        mapping=mapping_line(mapping("none"), 0.0),
        pinholes=mapping_line(mapping("off"), 0.0),
        ipv4=family_line(4, (HOME,), []),
        ipv6=family_line(6, (), []),
        only_443=None,
        peers=(PeerLine(peer="12D3KooWpeer", path="libp2p", reason="a\x1b[31m", rtt_s=None),),
        relayed_for_others_bytes=0,
        remedy="",
        took_s=1.0,
    )
    text = network_text(report, {"12D3KooWpeer": "home\x07"}, color=False)
    assert text.count("not measured") >= 5
    assert "\x1b" not in text
    assert "\x07" not in text
