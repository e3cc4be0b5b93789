"""Which new keys of a route are stored, and what remembering them costs."""

from __future__ import annotations

import random
import sys
import threading
import tracemalloc

import pytest

from asgi_tiercache import ConfigError, Policy
from asgi_tiercache.admission import FIRST_SIGHT, Admission, Doorkeeper, Doorkeepers

HOUR = 3600.0


def an_admission(max_keys: int, *, words: int = 1_000_000) -> Admission:
    return Admission(max_keys, Doorkeepers(words))


def admitted(admission: Admission, keys: range, now: float = 1.0, *, name: str = "", lifetime: float = HOUR) -> int:
    return sum(admission.admits(f"{name}{number}", now, lifetime) for number in keys)


# ---- remembering ----


def test_the_last_keys_are_remembered_for_certain_and_older_ones_are_forgotten() -> None:
    doorkeeper = Doorkeeper(2_000)
    for number in range(20_000):
        doorkeeper.add(f"key {number}")
    assert all(doorkeeper.holds(f"key {number}") for number in range(18_000, 20_000))
    assert sum(doorkeeper.holds(f"key {number}") for number in range(10_000)) < 300


def test_few_keys_are_taken_for_others_even_when_it_is_full() -> None:
    doorkeeper = Doorkeeper(10_000)
    mistaken = 0
    for number in range(40_000):
        mistaken += doorkeeper.holds(f"key {number}")
        doorkeeper.add(f"key {number}")
    assert mistaken < 600


def test_its_memory_grows_with_what_it_is_told_up_to_a_bound() -> None:
    doorkeeper = Doorkeeper(100_000)
    before = doorkeeper.words
    for number in range(300_000):
        doorkeeper.add(str(number))
    assert before <= 16 < doorkeeper.words <= 2 * 65_536


def test_which_keys_are_taken_for_others_nobody_can_know_beforehand() -> None:
    """Even where the hash of a text is known, as with a fixed `PYTHONHASHSEED`: this process knows its own."""
    known, victim = Doorkeeper(400), Doorkeeper(400)
    for number in range(700):
        known.add(f"honest {number}")
        victim.add(f"honest {number}")
    aimed = [key for key in (f"aimed {number}" for number in range(100_000)) if known.holds(key)]
    assert len(aimed) > 20
    assert sum(map(victim.holds, aimed)) < len(aimed) / 2


# ---- admitting ----


def test_new_keys_are_stored_at_first_sight_up_to_a_number_and_then_those_asked_for_before() -> None:
    admission = an_admission(1_000)
    assert admitted(admission, range(500)) == 500
    assert admitted(admission, range(500, 2_500)) < 30
    assert admitted(admission, range(2_400, 2_500)) == 100


def test_a_flood_of_keys_asked_for_once_adds_hardly_any() -> None:
    admission = an_admission(1_000_000)
    assert admitted(admission, range(FIRST_SIGHT)) == FIRST_SIGHT
    assert admitted(admission, range(FIRST_SIGHT, 10 * FIRST_SIGHT)) < FIRST_SIGHT / 10


def test_a_client_who_asks_for_each_key_several_times_stores_no_more_than_max_keys() -> None:
    admission = an_admission(1_000)
    stored = {key for key in range(5_000) for _ in range(4) if admission.admits(f"key {key}", 1.0, HOUR)}
    assert len(stored) <= 1_020  # and the few that are taken for one of these


def test_what_was_stored_is_stored_again_though_the_bound_is_reached() -> None:
    admission = an_admission(100)
    assert admission.admits("hot", 1.0, HOUR)
    for _ in range(3):
        admitted(admission, range(150))
    assert not any(admission.admits("new", 1.0, HOUR) for _ in range(3))
    assert admission.admits("hot", 1.0, HOUR)


def test_a_window_ends_with_the_longest_lifetime_in_it_and_the_next_has_room_again() -> None:
    admission = an_admission(100)
    admission.admits("long", 0.0, 2 * HOUR)
    for _ in range(3):
        admitted(admission, range(150), 1.0)
    assert not admission.admits("new", HOUR + 2, HOUR)
    assert admission.admits("new", 2 * HOUR + 2, HOUR)


def test_a_window_ends_after_a_day_however_long_its_keys_live() -> None:
    admission = an_admission(100)
    for _ in range(3):
        admitted(admission, range(150), 1.0, lifetime=31 * 24 * HOUR)
    assert not admission.admits("new", 23 * HOUR, HOUR)
    assert admission.admits("new", 24 * HOUR + 2, HOUR)


def test_where_what_was_not_stored_comes_again_nearly_everything_is_stored_at_first_sight() -> None:
    """A shop of many pages, of which each is asked for again; while a flood of others comes to little."""
    admission = an_admission(1_000_000)
    chance = random.Random(1)
    seen: set[int] = set()
    refused = 0
    for _ in range(80_000):
        page = chance.randrange(30_000)
        stored = admission.admits(f"page {page}", 1.0, HOUR)
        refused += page not in seen and not stored
        seen.add(page)
    assert len(seen) > 25_000
    assert refused < 0.15 * len(seen)
    flood = admitted(admission, range(100_000), name="random ")
    assert flood < 60_000, "the door is closed again, after a while"
    assert admitted(admission, range(100_000, 150_000), name="random ") < 1_000


# ---- what it costs ----


def test_routes_with_few_keys_cost_little() -> None:
    doorkeepers = Doorkeepers()
    tracemalloc.start()
    try:
        routes = [Admission(1_000_000, doorkeepers) for _ in range(2_000)]
        for route in routes:
            assert admitted(route, range(10)) == 10
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_500 * len(routes)


def test_a_route_that_has_become_quiet_forgets() -> None:
    doorkeepers = Doorkeepers()
    admission = Admission(1_000_000, doorkeepers)
    admitted(admission, range(30_000))
    assert doorkeepers.budget.taken > 10_000
    admission.admits("one", 1.0 + HOUR, HOUR)
    admission.admits("two", 2.0 + 2 * HOUR, HOUR)
    assert doorkeepers.budget.taken < 100


def test_many_routes_under_attack_share_the_memory_that_there_is_and_are_still_bounded() -> None:
    most = 20_000
    doorkeepers = Doorkeepers(most)
    routes = [Admission(1_000, doorkeepers) for _ in range(100)]
    for number, route in enumerate(routes):
        assert admitted(route, range(2_000), name=f"/{number}/") < 700
    assert doorkeepers.budget.taken <= 1.25 * most


class SlowKey(str):
    """A key that lets other threads run whenever it is looked for."""

    __slots__ = ()

    def __hash__(self) -> int:
        return super().__hash__()


def test_threads_store_no_more_together_than_one_would() -> None:
    doorkeepers = Doorkeepers()
    admissions = [Admission(10, doorkeepers) for _ in range(300)]
    together = threading.Barrier(4)

    def work(seed: int) -> None:
        for admission in admissions:
            together.wait()
            for number in range(5):
                for _ in range(3):
                    admission.admits(SlowKey(f"{seed}:{number}"), 1.0, HOUR)

    seldom = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(seldom)
    assert set(map(repr, admissions)) == {"<Admission of 10 keys, at most 10>"}


def test_it_is_told_once_in_a_window_that_keys_are_not_stored() -> None:
    admission = an_admission(100)
    admission.admits("a", 1.0, HOUR)
    assert [admission.tell() for _ in range(3)] == [True, False, False]
    admission.admits("b", 2.0 + HOUR, HOUR)
    assert admission.tell()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "many"])
def test_max_keys_is_a_number_from_1_on_or_none(wrong: object) -> None:
    with pytest.raises(ConfigError, match="max_keys"):
        Policy(ttl=1, max_keys=wrong)  # type: ignore[arg-type]
    assert Policy(ttl=1, max_keys=None).max_keys is None
