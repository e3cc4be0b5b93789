from __future__ import annotations

from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Answer, Appended, Purge, Record
from asgi_tiercache.types import Stamp
from tests.invalidation.scripted import an_entry


def knowing(position: int = 10, *, remembered: int = 100) -> Knowledge:
    """A worker that started when the log stood at `position`."""
    knowledge = Knowledge(remembered=remembered)
    knowledge.start_anew("e", position)
    return knowledge


def record(epoch: str, id_: int, previous: int, *tags: str, everything: bool = False, soft: bool = False) -> Record:
    return Record(epoch, id_, previous, Purge(tags, everything=everything, soft=soft))


def test_the_stamp_is_the_epoch_and_the_workers_own_position() -> None:
    assert knowing(10).stamp() == Stamp("e", 10)


def test_an_entry_is_valid_until_one_of_its_tags_is_invalidated_after_its_stamp() -> None:
    knowledge = knowing()
    entry = an_entry(knowledge.stamp(), "a", "b")
    assert knowledge.judge(entry) is Verdict.FRESH
    knowledge.apply(record("e", 11, 10, *["c"]))
    assert knowledge.judge(entry) is Verdict.FRESH
    knowledge.apply(record("e", 12, 11, *["b"]))
    assert knowledge.judge(entry) is Verdict.INVALID


def test_an_entry_stamped_at_the_invalidation_itself_is_valid() -> None:
    knowledge = knowing()
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.FRESH


def test_an_entry_of_another_epoch_is_invalid_whatever_its_position() -> None:
    assert knowing().judge(an_entry(Stamp("other", 10**9))) is Verdict.INVALID


def test_an_entry_stamped_below_the_floor_is_invalid_and_one_at_it_is_not() -> None:
    knowledge = knowing()
    knowledge.apply(record("e", 11, 10, everything=True))
    assert knowledge.judge(an_entry(Stamp("e", 10))) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 11))) is Verdict.FRESH


def test_an_entry_checked_below_the_horizon_cannot_be_judged_and_one_checked_at_it_can() -> None:
    knowledge = knowing(10)
    assert knowledge.judge(an_entry(Stamp("e", 9), "a")) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("e", 9), "a", at=10)) is Verdict.FRESH


def test_an_invalid_entry_below_the_horizon_is_not_asked_about() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert knowledge.judge(an_entry(Stamp("e", 5), "a")) is Verdict.INVALID


def test_ones_own_invalidations_leave_the_horizon_where_it_is_if_nothing_came_between() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert (knowledge.position, knowledge.horizon) == (11, 10)


def test_a_record_whose_predecessor_was_not_applied_raises_the_horizon() -> None:
    knowledge = knowing(10)
    old = an_entry(Stamp("e", 10), "b")
    knowledge.apply(record("e", 12, 11, "a"))
    assert (knowledge.position, knowledge.horizon) == (12, 12)
    assert knowledge.judge(old) is Verdict.UNKNOWN


def test_a_record_that_was_applied_already_changes_nothing() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, "a"))
    before = knowledge.version
    assert knowledge.apply(record("e", 11, 10, "a"))
    assert (knowledge.position, knowledge.version) == (11, before)


def test_ones_own_invalidation_counts_at_once_but_the_position_waits_for_what_came_between() -> None:
    knowledge = knowing(10)
    old = an_entry(Stamp("e", 10), "a")
    knowledge.appended(Appended("e", 12, 11), Purge(("a",)))
    assert (knowledge.position, knowledge.horizon) == (10, 10)
    assert knowledge.judge(old) is Verdict.INVALID
    knowledge.apply(record("e", 11, 10, "b"))
    knowledge.apply(record("e", 12, 11, "a"))
    assert (knowledge.position, knowledge.horizon) == (12, 10)


def test_replies_to_ones_own_invalidations_may_arrive_in_any_order() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 12, 11), Purge(("b",)))
    knowledge.appended(Appended("e", 11, 10), Purge(("a",)))
    assert knowledge.judge(an_entry(Stamp("e", 10), "a", at=99)) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 11), "b", at=99)) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 11), "a", at=99)) is Verdict.FRESH


def test_an_older_id_never_replaces_a_newer_one() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 12, 11), Purge(("a",)))
    knowledge.appended(Appended("e", 11, 10), Purge(("a",)))
    assert knowledge.judge(an_entry(Stamp("e", 11), "a", at=99)) is Verdict.INVALID


def test_a_gap_keeps_what_is_known_and_raises_the_horizon() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert knowledge.heard(Answer("e", 20, 0, ()))
    assert knowledge.position == 11, "what lies between was not seen"
    knowledge.skip_to(20)
    assert (knowledge.position, knowledge.horizon) == (20, 20)
    assert knowledge.judge(an_entry(Stamp("e", 10), "a")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 15), "b")) is Verdict.UNKNOWN


def test_an_answer_with_nothing_new_changes_nothing() -> None:
    knowledge = knowing(10)
    before = knowledge.version
    assert knowledge.heard(Answer("e", 10, 0, ()))
    assert (knowledge.version, knowledge.horizon) == (before, 10)


def test_an_answer_overtaken_by_newer_knowledge_takes_nothing_back() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, everything=True))
    knowledge.heard(Answer("e", 10, 0, ()))
    assert (knowledge.position, knowledge.floor) == (11, 11)


def test_a_floor_raised_elsewhere_is_taken_over() -> None:
    knowledge = knowing(10)
    before = knowledge.version
    knowledge.heard(Answer("e", 10, 8, ()))
    assert knowledge.judge(an_entry(Stamp("e", 7), at=99)) is Verdict.INVALID
    assert knowledge.version > before


def test_another_epoch_in_an_answer_starts_the_worker_anew() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert not knowledge.heard(Answer("f", 20, 3, ()))
    assert knowledge.stamp() == Stamp("f", 20)
    assert (knowledge.horizon, knowledge.floor) == (20, 3)
    assert knowledge.judge(an_entry(Stamp("e", 11), "a", at=99)) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("f", 19), "a")) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("f", 20), "a")) is Verdict.FRESH, "ids of the old epoch are forgotten"


def test_another_epoch_met_by_an_invalidation_of_ones_own_starts_the_worker_anew() -> None:
    knowledge = knowing(10)
    assert not knowledge.apply(record("f", 11, 10, *["a"]))
    assert knowledge.stamp() == Stamp("f", 11)
    assert knowledge.horizon == 11
    assert knowledge.judge(an_entry(Stamp("f", 10), "a", at=99)) is Verdict.INVALID


def test_everything_that_may_turn_a_verdict_raises_the_version() -> None:
    knowledge = knowing(10)
    seen = [knowledge.version]
    knowledge.apply(record("e", 11, 10, *["a"]))
    seen.append(knowledge.version)
    knowledge.apply(record("e", 12, 11, everything=True))
    seen.append(knowledge.version)
    knowledge.heard(Answer("e", 13, 13, ()))
    seen.append(knowledge.version)
    knowledge.learn(an_entry(Stamp("e", 12), "b"), Answer("e", 13, 12, (13,)))
    seen.append(knowledge.version)
    knowledge.heard(Answer("f", 13, 0, ()))
    seen.append(knowledge.version)
    assert seen == sorted(set(seen))


def test_an_answer_about_an_entry_lets_it_be_judged_locally_from_then_on() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a", "b")
    answer = Answer("e", 10, 0, (3, 0))
    assert knowledge.learn(entry, answer) is Verdict.FRESH
    assert entry.at == 10
    assert knowledge.judge(entry) is Verdict.FRESH


def test_an_answer_that_invalidates_is_remembered_for_other_entries() -> None:
    knowledge = knowing(10)
    assert knowledge.learn(an_entry(Stamp("e", 4), "a"), Answer("e", 10, 0, (7,))) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 6), "a")) is Verdict.INVALID


def test_an_answer_below_whose_floor_an_entry_lies_makes_it_invalid() -> None:
    assert knowing(10).learn(an_entry(Stamp("e", 4), "a"), Answer("e", 10, 5, (0,))) is Verdict.INVALID


def test_what_was_learned_while_the_answer_was_under_way_counts() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a")
    knowledge.apply(record("e", 11, 10, *["a"]))
    assert knowledge.learn(entry, Answer("e", 10, 0, (0,))) is Verdict.INVALID


def test_an_answer_older_than_a_new_horizon_does_not_let_the_entry_be_judged_locally() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a")
    answer = Answer("e", 10, 0, (0,))
    knowledge.skip_to(15)
    assert knowledge.learn(entry, answer) is Verdict.FRESH, "the answer was right when it was given"
    assert knowledge.judge(entry) is Verdict.UNKNOWN


def test_forgetting_tags_raises_the_horizon_past_what_they_had_invalidated() -> None:
    knowledge = knowing(10, remembered=2)
    entry = an_entry(Stamp("e", 10), "a")
    for id_, tag in ((11, "a"), (12, "b"), (13, "c")):
        knowledge.apply(record("e", id_, id_ - 1, tag))
    assert knowledge.horizon == 12, "the older half is forgotten at once"
    assert knowledge.judge(entry) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("e", 12), "a")) is Verdict.FRESH


def test_a_tag_invalidated_again_is_the_last_to_be_forgotten() -> None:
    knowledge = knowing(10, remembered=3)
    for id_, tag in ((11, "a"), (12, "b"), (13, "c"), (14, "a"), (15, "d")):
        knowledge.apply(record("e", id_, id_ - 1, tag))
    assert knowledge.horizon == 13
    assert knowledge.judge(an_entry(Stamp("e", 13), "a")) is Verdict.INVALID


def test_an_entry_in_use_outlasts_the_forgetting_of_ever_so_many_other_tags() -> None:
    knowledge = knowing(10, remembered=10)
    used, unused = an_entry(Stamp("e", 10), "a"), an_entry(Stamp("e", 10), "b")
    for id_ in range(11, 1_011):
        knowledge.apply(record("e", id_, id_ - 1, f"tag {id_}"))
        assert knowledge.judge(used) is Verdict.FRESH
    assert knowledge.judge(unused) is Verdict.UNKNOWN
    knowledge.apply(record("e", 1_011, 1_010, "a"))
    assert knowledge.judge(used) is Verdict.INVALID


# ---- soft invalidations ----


def test_a_soft_invalidation_makes_stale_and_never_revives_what_is_invalid() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, "a", soft=True))
    assert knowledge.judge(an_entry(Stamp("e", 10), "a")) is Verdict.STALE
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.FRESH
    knowledge.apply(record("e", 12, 11, "a"))
    knowledge.apply(record("e", 13, 12, "a", soft=True))
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 12), "a")) is Verdict.STALE


def test_a_soft_clear_makes_everything_before_it_stale() -> None:
    knowledge = knowing(10)
    knowledge.apply(record("e", 11, 10, everything=True, soft=True))
    assert knowledge.judge(an_entry(Stamp("e", 10), "a")) is Verdict.STALE
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.FRESH


def test_a_stale_entry_is_not_taken_for_fresh_once_its_soft_id_is_forgotten() -> None:
    knowledge = knowing(10, remembered=2)
    entry = an_entry(Stamp("e", 10), "a")
    knowledge.apply(record("e", 11, 10, "a", soft=True))
    assert knowledge.judge(entry) is Verdict.STALE
    for id_ in range(12, 20):
        knowledge.apply(record("e", id_, id_ - 1, f"tag {id_}", soft=True))
    assert knowledge.judge(entry) is Verdict.UNKNOWN


def test_an_answer_tells_of_soft_invalidations_and_of_patterns() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a", "*key:user:1")
    assert knowledge.learn(entry, Answer("e", 10, 0, (0, 0), 0, (7, 0))) is Verdict.STALE
    assert knowledge.judge(entry) is Verdict.UNKNOWN, "its soft id may be forgotten here, so the log is asked again"
    assert knowledge.learn(entry, Answer("e", 10, 0, (0, 0), 0, (), (("us*", 7, 0),))) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 6), "*key:user:2", at=99)) is Verdict.INVALID


# ---- patterns ----


def test_a_pattern_concerns_the_keys_that_it_matches_and_what_was_made_from_them() -> None:
    knowledge = knowing(10)
    knowledge.apply(Record("e", 11, 10, Purge(patterns=("user:*:likes",))))
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:user:1:likes")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:page", "*key:user:1:likes")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:user:1:name", "user:1:likes")) is Verdict.FRESH
    assert knowledge.judge(an_entry(Stamp("e", 11), "*key:user:1:likes")) is Verdict.FRESH


def test_a_soft_pattern_makes_stale() -> None:
    knowledge = knowing(10)
    knowledge.apply(Record("e", 11, 10, Purge(patterns=("user:?",), soft=True)))
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:user:1")) is Verdict.STALE
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:user:12")) is Verdict.FRESH


def test_patterns_are_bounded_and_what_was_forgotten_is_unknown() -> None:
    knowledge = knowing(10)
    for number in range(MAX_PATTERNS + 1):
        knowledge.apply(Record("e", 11 + number, 10 + number, Purge(patterns=(f"p{number}*",))))
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:p0")) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("e", 10), "*key:p1", at=99)) is Verdict.INVALID


def test_memory_is_bounded_however_many_tags_one_invalidation_names() -> None:
    knowledge = knowing(10, remembered=3)
    knowledge.apply(record("e", 11, 10, *[f"tag {n}" for n in range(50)]))
    assert "tags=0" in repr(knowledge)
    assert knowledge.judge(an_entry(Stamp("e", 10), "tag 0")) is Verdict.UNKNOWN
