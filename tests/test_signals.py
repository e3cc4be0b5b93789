from __future__ import annotations

import logging

import pytest

from asgi_tiercache.signals import Evicted, Invalidated, Signal, Signals


def test_every_listener_gets_every_signal_in_the_order_of_subscription() -> None:
    signals = Signals()
    seen: list[tuple[str, Signal]] = []
    signals.subscribe(lambda signal: seen.append(("first", signal)))
    signals.subscribe(lambda signal: seen.append(("second", signal)))
    signals.emit(Evicted("r", 1))
    signals.emit(Invalidated("tag", 2, True))
    assert seen == [
        ("first", Evicted("r", 1)),
        ("second", Evicted("r", 1)),
        ("first", Invalidated("tag", 2, True)),
        ("second", Invalidated("tag", 2, True)),
    ]


def test_without_listeners_nothing_happens() -> None:
    signals = Signals()
    signals.emit(Evicted("r", 1))
    seen: list[Signal] = []
    signals.subscribe(seen.append)
    assert seen == []


def test_a_listener_that_raises_is_logged_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    signals = Signals()
    seen: list[Signal] = []

    def broken(signal: Signal) -> None:
        raise LookupError("x")

    signals.subscribe(broken)
    signals.subscribe(seen.append)
    with caplog.at_level(logging.ERROR, logger="asgi_tiercache"):
        signals.emit(Evicted("r", 1))
    assert seen == [Evicted("r", 1)]
    assert "Evicted" in caplog.text


def test_a_listener_that_subscribes_another_is_heard_from_the_next_signal_on() -> None:
    signals = Signals()
    seen: list[Signal] = []

    def once(signal: Signal) -> None:
        if not seen:
            signals.subscribe(seen.append)

    signals.subscribe(once)
    signals.emit(Evicted("r", 1))
    assert seen == []
    signals.emit(Evicted("r", 2))
    assert seen == [Evicted("r", 2)]


def test_a_listener_of_some_kinds_hears_no_others() -> None:
    signals = Signals()
    seen: list[Signal] = []
    signals.emit(Evicted("r", 1))
    signals.subscribe(seen.append, Invalidated)
    signals.emit(Evicted("r", 2))
    signals.emit(Invalidated("tag", 2, True))
    assert seen == [Invalidated("tag", 2, True)]
