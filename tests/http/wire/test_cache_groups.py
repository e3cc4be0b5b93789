"""`Cache-Groups` and `Cache-Group-Invalidation` (RFC 9875)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, World, over_sockets

FRESH = "Cache-Control: max-age=600"
HERE = "Host: example.org"


async def _stays(
    w: World, groups: list[str], *lines: str, status: int = 200, method: str = "POST", host: str = HERE
) -> bool:
    """Whether a response of those groups is still used after the origin answered a request for another URI so."""
    w.origin.script(Answer(FRESH, *(f"Cache-Groups: {line}" for line in groups)))
    await w.request("GET", path="/a", host=host)
    w.origin.script(Answer(*lines, status=status))
    await w.request(method, path="/b")
    w.origin.script(Answer(FRESH))
    return (await w.request("GET", path="/a", host=host)).hit


@pytest.mark.parametrize(
    ("groups", "invalidated"),
    [
        (['"one"'], ['"one"']),
        (['"one", "two"'], ['"two"']),
        (['"one"', '"two"'], ['"two"']),
        (['"one"'], ['"two", "one"']),
        (['"one"'], ['"two"', '"one"']),
        (['"one";a=b'], ['"one";c']),
        (['"a b:c*?{}[]"'], ['"a b:c*?{}[]"']),
        (['"a\\"b\\\\"'], ['"a\\"b\\\\"']),
        (['""'], ['""']),
    ],
)
@over_sockets
async def test_an_unsafe_request_may_invalidate_groups(w: World, groups: list[str], invalidated: list[str]) -> None:
    assert not await _stays(w, groups, *(f"Cache-Group-Invalidation: {line}" for line in invalidated))


@pytest.mark.parametrize(
    ("groups", "invalidated"),
    [
        (['"one"'], '"two"'),
        (['"one"'], '"One"'),
        (['"one"'], '"one "'),
        (['"one"'], '"on"'),
        (['"one, two"'], '"two"'),
        (['"one"'], ""),
        (['"one"'], '"one", '),
        (['"one"'], '"one'),
        (['"one"'], '"one" "two"'),
        (['"one", \xe9'], '"one"'),
        (['"one",'], '"one"'),
        ([], '"one"'),
    ],
)
@over_sockets
async def test_what_is_in_no_such_group_stays(w: World, groups: list[str], invalidated: str) -> None:
    assert await _stays(w, groups, f"Cache-Group-Invalidation: {invalidated}")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
@over_sockets
async def test_a_safe_request_invalidates_no_group(w: World, method: str) -> None:
    assert await _stays(w, ['"one"'], 'Cache-Group-Invalidation: "one"', method=method)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
@over_sockets
async def test_every_unsafe_method_may(w: World, method: str) -> None:
    assert not await _stays(w, ['"one"'], 'Cache-Group-Invalidation: "one"', method=method)


@pytest.mark.parametrize("status", [400, 404, 500])
@over_sockets
async def test_a_request_that_fails_invalidates_no_group(w: World, status: int) -> None:
    assert await _stays(w, ['"one"'], 'Cache-Group-Invalidation: "one"', status=status)


@over_sockets
async def test_the_groups_of_one_app_are_those_of_all_its_hosts(w: World) -> None:
    """They are tags, which is more than the RFC lets share a group, and costs no more than a miss."""
    assert not await _stays(w, ['"one"'], 'Cache-Group-Invalidation: "one"', host="Host: example.com")


@over_sockets
async def test_it_does_not_cascade(w: World) -> None:
    """What shares another group with what is invalidated stays."""
    w.origin.script(Answer(FRESH, 'Cache-Groups: "one", "two"'), Answer(FRESH, 'Cache-Groups: "two"'))
    await w.get(path="/a")
    await w.get(path="/c")
    w.origin.script(Answer('Cache-Group-Invalidation: "one"'))
    await w.request("POST", path="/b")
    w.origin.script(Answer(FRESH))
    assert not (await w.get(path="/a")).hit
    assert (await w.get(path="/c")).hit


@pytest.mark.parametrize("number", [1, 16, 32])
@over_sockets
async def test_32_groups_of_32_characters_are_supported(w: World, number: int) -> None:
    groups = ", ".join(f'"{index:032d}"' for index in range(1, 33))
    assert not await _stays(w, [groups], f'Cache-Group-Invalidation: "{number:032d}"')


@pytest.mark.parametrize("number", [1, 16, 32])
@over_sockets
async def test_32_groups_can_be_invalidated_at_once(w: World, number: int) -> None:
    groups = ", ".join(f'"{index:032d}"' for index in range(1, 33))
    assert not await _stays(w, [f'"{number:032d}"'], f"Cache-Group-Invalidation: {groups}")


@over_sockets
async def test_both_fields_pass_on(w: World) -> None:
    w.origin.script(Answer(FRESH, 'Cache-Groups: "one";a'))
    await w.get()
    assert (await w.get())["cache-groups"] == '"one";a'
    w.origin.script(Answer('Cache-Group-Invalidation: "one"'))
    assert (await w.request("POST"))["cache-group-invalidation"] == '"one"'


@over_sockets
async def test_what_was_in_a_group_is_asked_for_anew(w: World) -> None:
    w.origin.script(Answer(FRESH, 'Cache-Groups: "one"', 'ETag: "a"'))
    await w.get(path="/a")
    w.origin.script(Answer('Cache-Group-Invalidation: "one"'))
    await w.request("POST", path="/b")
    w.origin.script(Answer(FRESH))
    await w.get(path="/a")
    assert "if-none-match" not in w.origin.last
