from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from asgi_tiercache import FREQUENT, SESSION, STATIC, TEMPORARY, ConfigError, Policy, Region
from asgi_tiercache.config import LOCK_WAIT


@pytest.mark.parametrize(
    ("preset", "l1", "l2", "entries", "eviction", "compress"),
    [
        (STATIC, 86_400, 604_800, 500, "lru", True),
        (FREQUENT, 1_800, 3_600, 1_000, "lru", True),
        (TEMPORARY, 300, 1_800, 2_000, "ttl", False),
        (SESSION, 3_600, 7_200, 1_000, "lru", False),
    ],
    ids=["STATIC", "FREQUENT", "TEMPORARY", "SESSION"],
)
def test_the_presets_are_what_the_design_says(
    preset: Policy, l1: float, l2: float, entries: int, eviction: str, compress: bool
) -> None:
    region = preset.region
    assert (preset.l1_ttl, preset.ttl) == (l1, l2)
    assert (region.max_entries, region.eviction, preset.compress) == (entries, eviction, compress)


def test_each_preset_has_a_region_of_its_own() -> None:
    assert [preset.region.name for preset in (STATIC, FREQUENT, TEMPORARY, SESSION)] == [
        "static",
        "frequent",
        "temporary",
        "session",
    ]


def test_only_the_session_preset_insists_on_a_user() -> None:
    assert SESSION.per_user
    assert not any(preset.per_user for preset in (STATIC, FREQUENT, TEMPORARY))


@pytest.mark.parametrize(
    ("option", "build"),
    [
        ("max_entries", lambda: Region(max_entries=0)),
        ("max_entries", lambda: Region(max_entries="10")),  # type: ignore[arg-type]
        ("max_bytes", lambda: Region(max_bytes=-1)),
        ("max_bytes", lambda: Region(max_bytes=None)),  # type: ignore[arg-type]
        ("eviction", lambda: Region(eviction="fifo")),  # type: ignore[arg-type]
        ("ttl", Policy),
        ("ttl", lambda: Policy(ttl=0)),
        ("ttl", lambda: Policy(ttl=-1)),
        ("ttl", lambda: Policy(ttl=math.nan)),
        ("ttl", lambda: Policy(ttl=math.inf)),
        ("ttl", lambda: Policy(ttl=True)),
        ("ttl", lambda: Policy(ttl="60")),  # type: ignore[arg-type]
        ("l1_ttl", lambda: Policy(ttl=1, l1_ttl=0)),
        ("retention", lambda: Policy(ttl=1, retention=-1)),
        ("retention", lambda: Policy(ttl=1, retention=math.inf)),
        ("retention", lambda: Policy(ttl=1, retention=math.nan)),
        ("retention", lambda: Policy.http(retention="60")),
        ("retention", lambda: Policy(ttl=1, retention=True)),
        ("status_ttl[404]", lambda: Policy(status_ttl={404: -1})),
        ("status_ttl", lambda: Policy(status_ttl={99: 1})),
        ("status_ttl", lambda: Policy(status_ttl={304: 1})),
        ("status_ttl", lambda: Policy(ttl=1, status_ttl=5)),  # type: ignore[arg-type]
        ("statuses", lambda: Policy(ttl=1, statuses=(206,))),
        ("statuses", lambda: Policy(ttl=1, statuses=("200",))),  # type: ignore[arg-type]
        ("statuses", lambda: Policy(ttl=1, statuses=200)),  # type: ignore[arg-type]
        ("max_body", lambda: Policy(ttl=1, max_body=-1)),
        ("max_body", lambda: Policy(ttl=1, max_body=1.5)),  # type: ignore[arg-type]
        ("files", lambda: Policy(ttl=1, files=-1)),
        ("tags", lambda: Policy(ttl=1, tags=[""])),
        ("tags", lambda: Policy(ttl=1, tags="a*")),
        ("tags", lambda: Policy(ttl=1, tags=["a\n"])),
        ("tags", lambda: Policy(ttl=1, tags=["x" * 257])),
        ("tags", lambda: Policy(ttl=1, tags=[5])),  # type: ignore[list-item]
        ("tags", lambda: Policy(ttl=1, tags=5)),  # type: ignore[arg-type]
        ("query", lambda: Policy(ttl=1, query=[""])),
        ("query", lambda: Policy(ttl=1, query=5)),  # type: ignore[arg-type]
        ("drop_query", lambda: Policy(ttl=1, query=["a"], drop_query=["a"])),
        ("vary_on", lambda: Policy(ttl=1, vary_on=["a b"])),
        ("cookies", lambda: Policy(ttl=1, cookies=[""])),
        ("ignore", lambda: Policy(ttl=1, vary_on=["cookie"], ignore=["Cookie"])),
        ("ignore", lambda: Policy(ttl=1, cookies=["a"], ignore=["cookie"])),
        ("downstream", lambda: Policy(ttl=1, downstream="a\r\nb")),
        ("downstream", lambda: Policy(ttl=1, downstream=None)),  # type: ignore[arg-type]
        ("user", lambda: Policy(ttl=1, user="me")),  # type: ignore[arg-type]
        ("key", lambda: Policy(ttl=1, key=5)),  # type: ignore[arg-type]
        ("dependencies", lambda: Policy(ttl=1, dependencies="never")),  # type: ignore[arg-type]
        ("unverified", lambda: Policy(ttl=1, unverified="maybe")),  # type: ignore[arg-type]
        ("mode", lambda: Policy(ttl=1, mode="ftp")),  # type: ignore[arg-type]
        ("region", lambda: Policy(ttl=1, region="big")),  # type: ignore[arg-type]
        ("version", lambda: Policy(ttl=1, version=2)),  # type: ignore[arg-type]
        ("etag", lambda: Policy(ttl=1, etag="W/")),  # type: ignore[arg-type]
        ("query", lambda: Policy.http(query=["q"])),
        ("drop_query", lambda: Policy.rfc9111(drop_query=["utm_*"])),
        ("stale_while_revalidate", lambda: Policy(ttl=1, stale_while_revalidate=-1)),
        ("stale_while_revalidate", lambda: Policy(ttl=1, stale_while_revalidate=None)),  # type: ignore[arg-type]
        ("stale_while_revalidate", lambda: Policy(ttl=1, stale_while_revalidate=5, dependencies="always")),
        ("stale_if_error", lambda: Policy(ttl=1, stale_if_error=math.inf)),
        ("soft_timeout", lambda: Policy(ttl=1, stale_if_error=9, soft_timeout=0)),
        ("soft_timeout", lambda: Policy(ttl=1, stale_if_error=9, soft_timeout=math.nan)),
        ("soft_timeout", lambda: Policy(ttl=1, stale_if_error=9, soft_timeout=2, hard_timeout=2)),
        ("soft_timeout", lambda: Policy(ttl=1, soft_timeout=1)),
        ("hard_timeout", lambda: Policy(ttl=1, hard_timeout=0)),
        ("hard_timeout", lambda: Policy(ttl=1, hard_timeout=-1)),
        ("hard_timeout", lambda: Policy(ttl=1, hard_timeout=math.inf)),
        ("hard_timeout", lambda: Policy(ttl=1, hard_timeout=10**400)),
        ("early_refresh", lambda: Policy(ttl=1, early_refresh=10**400)),
        ("hard_timeout", lambda: Policy(ttl=1, hard_timeout=True)),
        ("lock", lambda: Policy(ttl=1, lock="fleet")),  # type: ignore[arg-type]
        ("lock_wait", lambda: Policy(ttl=1, lock_wait=0)),
        ("lock_wait", lambda: Policy(ttl=1, lock_wait=math.nan)),
        ("lock_wait", lambda: Policy(ttl=1, lock_wait=None)),  # type: ignore[arg-type]
        ("lock_wait", lambda: Policy(ttl=1, lock=False, lock_wait=2)),
        ("early_refresh", lambda: Policy(ttl=1, early_refresh=-1)),
        ("early_refresh", lambda: Policy(ttl=1, early_refresh=math.inf)),
        ("early_refresh", lambda: Policy(ttl=1, early_refresh=True)),
        ("early_refresh", lambda: Policy(ttl=1, early_refresh=1, dependencies="always")),
        ("jitter", lambda: Policy(ttl=1, jitter=1)),
        ("jitter", lambda: Policy(ttl=1, jitter=-0.1)),
        ("jitter", lambda: Policy(ttl=1, jitter=math.nan)),
        ("refresh_ahead", lambda: Policy(ttl=1, refresh_ahead=1)),  # type: ignore[arg-type]
        ("refresh_ahead", lambda: Policy(ttl=1, refresh_ahead=True, dependencies="always")),
        ("refresh_ahead", lambda: Policy.http(refresh_ahead=True)),
        ("negative", lambda: Policy(ttl=1, negative=LookupError)),  # type: ignore[arg-type]
        ("negative", lambda: Policy(ttl=1, negative={"LookupError": 1})),  # type: ignore[dict-item]
        ("negative", lambda: Policy(ttl=1, negative={KeyboardInterrupt: 1})),  # type: ignore[dict-item]
        ("negative", lambda: Policy(ttl=1, negative={ConfigError: 1})),
        ("negative", lambda: Policy.http(negative={LookupError: 1})),
        ("negative[LookupError]", lambda: Policy(ttl=1, negative={LookupError: -1})),
        ("negative[LookupError]", lambda: Policy(ttl=1, negative={LookupError: math.nan})),
        ("policy", lambda: Policy(ttl=1).but(ttll=2)),
        ("ttl", lambda: STATIC.but(ttl=-2)),
    ],
)
def test_a_wrong_option_is_named(option: str, build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}: ")


def test_a_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="ttl"):
        Policy(ttl=-1)


def test_lists_and_single_texts_become_tuples_and_header_names_lose_their_case() -> None:
    policy = Policy(ttl=1, tags="a", query="q", vary_on=["Accept", "accept"], ignore=["X-Other"], drop_query=["utm_*"])
    assert (policy.tags, policy.query) == (("a",), ("q",))
    assert (policy.vary_on, policy.ignore, policy.drop_query) == (("accept",), ("x-other",), ("utm_*",))


def test_ageing_is_off_unless_asked_for_and_the_lock_is_on() -> None:
    policy = Policy(ttl=1)
    assert (policy.stale_while_revalidate, policy.stale_if_error) == (0, 0)
    assert (policy.soft_timeout, policy.hard_timeout, policy.early_refresh, policy.jitter) == (None, None, 0, 0)
    assert (policy.refresh_ahead, policy.negative, policy.lock, policy.lock_wait) == (False, {}, True, LOCK_WAIT)


def test_what_ages_gracefully_in_every_way_is_a_policy() -> None:
    policy = Policy(
        ttl=60,
        stale_while_revalidate=30,
        stale_if_error=3600,
        soft_timeout=0.5,
        hard_timeout=5,
        lock_wait=1,
        early_refresh=1,
        jitter=0.1,
        refresh_ahead=True,
        negative={LookupError: 10, KeyError: 0},
    )
    assert policy.but(lock=False, lock_wait=LOCK_WAIT).negative == {LookupError: 10, KeyError: 0}


def test_in_http_mode_a_response_may_say_itself_what_a_soft_timeout_serves() -> None:
    assert Policy.http(soft_timeout=1).soft_timeout == 1


def test_the_http_policies_need_no_lifetime_and_are_not_strict() -> None:
    for policy, mode in ((Policy.http(), "http"), (Policy.rfc9111(), "rfc9111")):
        assert (policy.mode, policy.ttl, policy.strict) == (mode, None, False)
    assert Policy.http(strict=True).strict


def test_but_changes_a_copy() -> None:
    changed = STATIC.but(tags=["config"], ttl=5)
    assert (changed.tags, changed.ttl, changed.region) == (("config",), 5, STATIC.region)
    assert (STATIC.tags, STATIC.ttl) == ((), 604_800)


def test_the_lifetime_of_a_status_goes_before_the_general_one() -> None:
    policy = Policy(ttl=60, status_ttl={404: 10, 500: 0})
    assert [policy.ttl_for(status) for status in (200, 404, 500)] == [60, 10, 0]
    assert [policy.stores(status) for status in (200, 404, 500, 503)] == [True, True, False, False]


def test_statuses_with_lifetimes_of_their_own_need_no_general_one() -> None:
    assert Policy(status_ttl={404: 10}).ttl_for(200) is None


def test_entity_tags_are_generated_only_where_a_policy_says_so() -> None:
    assert [policy.etag for policy in (STATIC, Policy.http(), Policy.rfc9111(), Policy.http(etag=True))] == [
        False,
        False,
        False,
        True,
    ]


def test_without_l1_ttl_the_copy_in_memory_lives_as_long_as_the_entry() -> None:
    assert Policy(ttl=5).l1_ttl is None


def test_a_retention_may_be_zero_and_need_not_be_given() -> None:
    assert Policy(ttl=5).retention is None
    assert Policy.http(retention=0).retention == 0
    assert STATIC.but(retention=1.5).retention == 1.5


@pytest.mark.parametrize(("made", "name"), [(Policy(ttl=1), "ttl"), (Region(), "name")])
def test_policies_and_regions_are_frozen(made: Any, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, "x")
    with pytest.raises(TypeError):
        Policy(status_ttl={404: 1}).status_ttl[404] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        Policy(ttl=1, negative={KeyError: 1}).negative[KeyError] = 2  # type: ignore[index]
