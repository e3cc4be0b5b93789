"""`CDN-Cache-Control`: what is aimed at caches like this one (RFC 9213)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import DOWN, Answer, World, over_sockets


@pytest.mark.parametrize(
    "others",
    [
        ["Cache-Control: no-store"],
        ["Cache-Control: private, max-age=0"],
        ["Cache-Control: no-cache"],
        ["Cache-Control: max-age=1"],
        ["Cache-Control: max-age=60, s-maxage=120"],
        ["Expires: 0"],
        ["Cache-Control: max-age=1", "Expires: 0"],
        [],
    ],
)
@over_sockets
async def test_it_counts_in_place_of_all_other_fields(w: World, others: list[str]) -> None:
    w.origin.script(Answer("CDN-Cache-Control: max-age=600", *others))
    await w.get()
    w.clock.tick(599)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@pytest.mark.parametrize("directive", ["no-store", "private", "no-cache", "max-age=0", "max-age=600, no-store"])
@over_sockets
async def test_what_forbids_in_it_is_obeyed(w: World, directive: str) -> None:
    assert not await w.reuses(f"CDN-Cache-Control: {directive}", "Cache-Control: public, max-age=600", 'ETag: "a"')


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate"])
@over_sockets
async def test_it_may_forbid_stale_responses(w: World, directive: str) -> None:
    w.origin.script(Answer(f"CDN-Cache-Control: max-age=60, {directive}", 'ETag: "a"', body="one"))
    await w.get()
    w.clock.tick(61)
    w.origin.script(DOWN)
    assert (await w.get()).status >= 500


@over_sockets
async def test_where_it_gives_no_lifetime_the_others_do_not_either(w: World) -> None:
    assert not await w.reuses("CDN-Cache-Control: none", "Cache-Control: max-age=60", f"Expires: {w.date(60)}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        "max-age=600,",
        "max-age=600 foo",
        "max-age=600, , foo",
        "Max-Age=600",
        'max-age="600',
        "max-age=",
        "max-age=600; ",
        "max-age=600;A",
        "max-age=(600",
        "max-age=1234567890123456",
        "no-store, \xe9",
        "no-store,\xa0max-age=1",
        "&",
    ],
)
@over_sockets
async def test_one_that_is_empty_or_does_not_parse_is_ignored(w: World, value: str) -> None:
    w.origin.script(Answer(f"CDN-Cache-Control: {value}", "Cache-Control: max-age=60"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@over_sockets
async def test_one_that_does_not_parse_permits_nothing(w: World) -> None:
    assert not await w.reuses("CDN-Cache-Control: max-age=600,", "Cache-Control: no-store")


@pytest.mark.parametrize(
    "value", ['max-age="600"', "max-age=600.5", "max-age=a", "max-age", "max-age=?1", "max-age=-1"]
)
@over_sockets
async def test_a_lifetime_of_another_type_is_not_taken_for_a_number(w: World, value: str) -> None:
    assert not await w.reuses(f"CDN-Cache-Control: {value}", "Cache-Control: no-store", after=0)


@pytest.mark.parametrize(
    "value",
    [
        "max-age=600;foo",
        'max-age=600;foo="no-store", bar',
        "max-age=1, max-age=600",
        "foo, max-age=600",
        "foo=(no-store), max-age=600",
    ],
)
@over_sockets
async def test_it_is_a_dictionary_whose_parameters_and_unknown_members_do_not_count(w: World, value: str) -> None:
    assert await w.reuses(f"CDN-Cache-Control: {value}", "Cache-Control: no-store", after=599)


@over_sockets
async def test_its_lines_are_one_dictionary(w: World) -> None:
    assert await w.reuses("CDN-Cache-Control: foo", "CDN-Cache-Control: max-age=600", after=599)
    assert not await w.reuses("CDN-Cache-Control: max-age=600", "CDN-Cache-Control: no-store")


@pytest.mark.parametrize(
    "name", ["Example-Cache-Control", "Surrogate-Control", "CDN2-Cache-Control", "X-CDN-Cache-Control"]
)
@over_sockets
async def test_fields_that_are_aimed_at_others_change_nothing_and_pass(w: World, name: str) -> None:
    assert await w.reuses(f"{name}: no-store", "Cache-Control: max-age=60")
    assert not await w.reuses(f"{name}: max-age=60")
    w.origin.script(Answer(f"{name}: no-store", "Cache-Control: max-age=60"))
    await w.get()
    reply = await w.get()
    assert (reply.hit, reply[name.lower()]) == (True, "no-store")


@over_sockets
async def test_it_passes_on_to_caches_like_this_one(w: World) -> None:
    lines = ("CDN-Cache-Control: max-age=600", "Cache-Control: max-age=5")
    w.origin.script(Answer(*lines))
    for _ in range(2):
        reply = await w.get()
        assert (reply["cdn-cache-control"], reply["cache-control"]) == ("max-age=600", "max-age=5")


@over_sockets
async def test_directives_of_extensions_count_in_it_too(w: World) -> None:
    w.origin.script(Answer("CDN-Cache-Control: max-age=60, stale-while-revalidate=600", body="one"))
    await w.get()
    w.clock.tick(61)
    w.origin.script(Answer("CDN-Cache-Control: max-age=60", body="two"))
    assert (await w.get()).text == "one"


@over_sockets
async def test_s_maxage_in_it_is_a_lifetime(w: World) -> None:
    assert await w.reuses("CDN-Cache-Control: max-age=1, s-maxage=600", after=599)


@over_sockets
async def test_it_lets_responses_to_authorization_be_shared_where_it_says_so(w: World) -> None:
    w.origin.script(Answer("CDN-Cache-Control: public, max-age=60", "Cache-Control: private"))
    await w.get("Authorization: Basic YTpi")
    assert (await w.get("Authorization: Basic YzpkCg")).hit
