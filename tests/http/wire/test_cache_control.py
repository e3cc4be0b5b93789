"""How `Cache-Control` is read (RFC 9111, sections 5.2, 5.2.2 and 5.2.3; RFC 8246)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, World, over_sockets


@pytest.mark.parametrize(
    "value",
    [
        "max-age=60",
        "MAX-AGE=60",
        "Max-Age=60",
        " \t max-age=60 \t ",
        ", ,max-age=60,, ",
        "foo,max-age=60",
        "foo , max-age=60 , bar=baz",
        'foo="bar", max-age=60',
        'foo="no-store", max-age=60',
        'foo=",no-store,", max-age=60',
        'foo="\\",no-store", max-age=60',
        "no-store-at-all, max-age=60",
        "xno-store, max-age=60",
        "no-storex, max-age=60",
        "not-private, max-age=60",
        "no-cached, max-age=60",
        "max-ages=0, max-age=60",
        "public, max-age=60, must-revalidate, no-transform",
        "\xe9, max-age=60",
        "@, max-age=60",
        "=60, max-age=60",
    ],
)
@over_sockets
async def test_what_is_not_known_is_ignored_and_what_is_known_is_found(w: World, value: str) -> None:
    assert await w.reuses(f"Cache-Control: {value}", after=59)


@pytest.mark.parametrize("directive", ["no-store", "private", "no-cache"])
@pytest.mark.parametrize(
    "form",
    ["{}", "{upper}", "{title}", "{}=@", '{}=""', "{}=", "foo, {}", "\t{}", "{},", ',"",{}', "{}, {}", 'foo="bar, {}'],
)
@over_sockets
async def test_what_forbids_is_obeyed_however_it_is_written(w: World, directive: str, form: str) -> None:
    written = form.format(directive, directive, upper=directive.upper(), title=directive.title())
    assert not await w.reuses(f"Cache-Control: max-age=60, {written}")


@pytest.mark.parametrize("directive", ["no-store", "private", "no-cache"])
@over_sockets
async def test_what_forbids_is_obeyed_on_a_line_of_its_own(w: World, directive: str) -> None:
    assert not await w.reuses("Cache-Control: max-age=60", f"Cache-Control: {directive}")
    assert not await w.reuses(f"Cache-Control: {directive}", "Cache-Control: max-age=60")


@over_sockets
async def test_directives_are_gathered_over_all_lines(w: World) -> None:
    assert await w.reuses("Cache-Control: foo", "Cache-Control: bar, max-age=60", "Cache-Control:")


@pytest.mark.parametrize("value", ["max-age=60 no-store", "max-age=60; no-store", "max-age=60\tpublic"])
@over_sockets
async def test_what_is_not_set_apart_by_a_comma_spoils_the_lifetime(w: World, value: str) -> None:
    assert not await w.reuses(f"Cache-Control: {value}", after=0)


@over_sockets
async def test_directives_reach_client_and_origin_as_they_were_sent(w: World) -> None:
    """Whatever they mean to us: others may understand them."""
    said = 'max-age=60, foo="bar, baz", immutable, MUST-understand, stale-if-error=x'
    w.origin.script(Answer(f"Cache-Control: {said}"))
    assert (await w.get("Cache-Control: min-fresh=5, foo=bar")).values("cache-control") == [said]
    assert w.origin.last.values("cache-control") == ["min-fresh=5, foo=bar"]
    reply = await w.get()
    assert (reply.hit, reply.values("cache-control")) == (True, [said])


@over_sockets
async def test_a_thousand_directives_are_read(w: World) -> None:
    many = ",".join(f"x{number}=1" for number in range(5_000))
    assert await w.reuses(f"Cache-Control: {many}, max-age=60")
    assert not await w.reuses(f"Cache-Control: max-age=60, {many}, no-store")


# ---- Pragma ----


@over_sockets
async def test_pragma_means_nothing_in_a_response(w: World) -> None:
    assert await w.reuses("Pragma: no-cache", "Cache-Control: max-age=60")
    assert await w.reuses("Pragma: no-cache", f"Expires: {w.date(60)}")


# ---- immutable ----


@pytest.mark.parametrize("form", ["immutable", "immutable=0", 'immutable="no, way"', "immutable, immutable"])
@over_sockets
async def test_immutable_takes_no_argument_and_counts_once(w: World, form: str) -> None:
    w.origin.script(Answer(f"Cache-Control: max-age=60, {form}"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get("Cache-Control: immutable")).hit


@over_sockets
async def test_immutable_ends_with_the_freshness(w: World) -> None:
    assert not await w.reuses("Cache-Control: max-age=60, immutable", 'ETag: "a"', after=60)


@over_sockets
async def test_what_is_immutable_is_validated_where_the_client_asks_for_it(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60, immutable"))
    await w.get()
    assert (await w.get('If-None-Match: "b"')).hit
    assert not (await w.get("Cache-Control: no-cache")).hit
