from __future__ import annotations

from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import Answer, Appended
from asgi_tiercache.types import Stamp
from tests.invalidation.scripted import an_entry


def knowing(position: int = 10, *, remembered: int = 100) -> Knowledge:
    """A worker that started when the log stood at `position`."""
    knowledge = Knowledge(remembered=remembered)
    knowledge.start_anew("e", position)
    return knowledge


def test_the_stamp_is_the_epoch_and_the_workers_own_position() -> None:
    assert knowing(10).stamp() == Stamp("e", 10)


def test_an_entry_is_valid_until_one_of_its_tags_is_invalidated_after_its_stamp() -> None:
    knowledge = knowing()
    entry = an_entry(knowledge.stamp(), "a", "b")
    assert knowledge.judge(entry) is Verdict.VALID
    knowledge.appended(Appended("e", 11, 10), ["c"])
    assert knowledge.judge(entry) is Verdict.VALID
    knowledge.appended(Appended("e", 12, 11), ["b"])
    assert knowledge.judge(entry) is Verdict.INVALID


def test_an_entry_stamped_at_the_invalidation_itself_is_valid() -> None:
    knowledge = knowing()
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.VALID


def test_an_entry_of_another_epoch_is_invalid_whatever_its_position() -> None:
    assert knowing().judge(an_entry(Stamp("other", 10**9))) is Verdict.INVALID


def test_an_entry_stamped_below_the_floor_is_invalid_and_one_at_it_is_not() -> None:
    knowledge = knowing()
    knowledge.cleared(Appended("e", 11, 10))
    assert knowledge.judge(an_entry(Stamp("e", 10))) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 11))) is Verdict.VALID


def test_an_entry_checked_below_the_horizon_cannot_be_judged_and_one_checked_at_it_can() -> None:
    knowledge = knowing(10)
    assert knowledge.judge(an_entry(Stamp("e", 9), "a")) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("e", 9), "a", at=10)) is Verdict.VALID


def test_an_invalid_entry_below_the_horizon_is_not_asked_about() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert knowledge.judge(an_entry(Stamp("e", 5), "a")) is Verdict.INVALID


def test_ones_own_invalidations_leave_the_horizon_where_it_is_if_nothing_came_between() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert (knowledge.position, knowledge.horizon) == (11, 10)


def test_an_invalidation_of_others_that_came_between_raises_the_horizon() -> None:
    knowledge = knowing(10)
    old = an_entry(Stamp("e", 10), "b")
    knowledge.appended(Appended("e", 12, 11), ["a"])
    assert (knowledge.position, knowledge.horizon) == (12, 12)
    assert knowledge.judge(old) is Verdict.UNKNOWN


def test_replies_to_ones_own_invalidations_may_arrive_in_any_order() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 11), "a", at=99)
    knowledge.appended(Appended("e", 12, 11), ["b"])
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert knowledge.position == 12
    assert knowledge.judge(an_entry(Stamp("e", 10), "a", at=99)) is Verdict.INVALID
    assert knowledge.judge(entry) is Verdict.VALID


def test_an_older_id_never_replaces_a_newer_one() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 12, 11), ["a"])
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert knowledge.judge(an_entry(Stamp("e", 11), "a", at=99)) is Verdict.INVALID


def test_a_gap_keeps_what_is_known_and_raises_the_horizon() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert knowledge.answered(Answer("e", 20, 0, ()))
    assert (knowledge.position, knowledge.horizon) == (20, 20)
    assert knowledge.judge(an_entry(Stamp("e", 10), "a")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 15), "b")) is Verdict.UNKNOWN


def test_an_answer_with_nothing_new_changes_nothing() -> None:
    knowledge = knowing(10)
    before = knowledge.version
    assert knowledge.answered(Answer("e", 10, 0, ()))
    assert (knowledge.version, knowledge.horizon) == (before, 10)


def test_an_answer_overtaken_by_newer_knowledge_takes_nothing_back() -> None:
    knowledge = knowing(10)
    knowledge.cleared(Appended("e", 11, 10))
    knowledge.answered(Answer("e", 10, 0, ()))
    assert (knowledge.position, knowledge.floor) == (11, 11)


def test_a_floor_raised_elsewhere_is_taken_over() -> None:
    knowledge = knowing(10)
    before = knowledge.version
    knowledge.answered(Answer("e", 10, 8, ()))
    assert knowledge.judge(an_entry(Stamp("e", 7), at=99)) is Verdict.INVALID
    assert knowledge.version > before


def test_another_epoch_in_an_answer_starts_the_worker_anew() -> None:
    knowledge = knowing(10)
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert not knowledge.answered(Answer("f", 20, 3, ()))
    assert knowledge.stamp() == Stamp("f", 20)
    assert (knowledge.horizon, knowledge.floor) == (20, 3)
    assert knowledge.judge(an_entry(Stamp("e", 11), "a", at=99)) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("f", 19), "a")) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("f", 20), "a")) is Verdict.VALID, "ids of the old epoch are forgotten"


def test_another_epoch_met_by_an_invalidation_of_ones_own_starts_the_worker_anew() -> None:
    knowledge = knowing(10)
    assert not knowledge.appended(Appended("f", 11, 10), ["a"])
    assert knowledge.stamp() == Stamp("f", 11)
    assert knowledge.horizon == 11
    assert knowledge.judge(an_entry(Stamp("f", 10), "a", at=99)) is Verdict.INVALID


def test_everything_that_may_turn_a_verdict_raises_the_version() -> None:
    knowledge = knowing(10)
    seen = [knowledge.version]
    knowledge.appended(Appended("e", 11, 10), ["a"])
    seen.append(knowledge.version)
    knowledge.cleared(Appended("e", 12, 11))
    seen.append(knowledge.version)
    knowledge.answered(Answer("e", 13, 12, ()))
    seen.append(knowledge.version)
    knowledge.settle(an_entry(Stamp("e", 12), "b"), Answer("e", 13, 12, (13,)))
    seen.append(knowledge.version)
    knowledge.answered(Answer("f", 13, 0, ()))
    seen.append(knowledge.version)
    assert seen == sorted(set(seen))


def test_an_answer_about_an_entry_lets_it_be_judged_locally_from_then_on() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a", "b")
    answer = Answer("e", 10, 0, (3, 0))
    assert knowledge.settle(entry, answer)
    assert entry.at == 10
    assert knowledge.judge(entry) is Verdict.VALID


def test_an_answer_that_invalidates_is_remembered_for_other_entries() -> None:
    knowledge = knowing(10)
    assert not knowledge.settle(an_entry(Stamp("e", 4), "a"), Answer("e", 10, 0, (7,)))
    assert knowledge.judge(an_entry(Stamp("e", 6), "a")) is Verdict.INVALID


def test_an_answer_below_whose_floor_an_entry_lies_makes_it_invalid() -> None:
    assert not knowing(10).settle(an_entry(Stamp("e", 4), "a"), Answer("e", 10, 5, (0,)))


def test_what_was_learned_while_the_answer_was_under_way_counts() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a")
    knowledge.appended(Appended("e", 11, 10), ["a"])
    assert not knowledge.settle(entry, Answer("e", 10, 0, (0,)))


def test_an_answer_older_than_a_new_horizon_does_not_let_the_entry_be_judged_locally() -> None:
    knowledge = knowing(10)
    entry = an_entry(Stamp("e", 4), "a")
    answer = Answer("e", 10, 0, (0,))
    knowledge.answered(Answer("e", 15, 0, ()))
    knowledge.settle(entry, answer)
    assert knowledge.judge(entry) is Verdict.UNKNOWN


def test_forgetting_a_tag_raises_the_horizon_past_what_it_had_invalidated() -> None:
    knowledge = knowing(10, remembered=2)
    entry = an_entry(Stamp("e", 10), "a")
    for id_, tag in ((11, "a"), (12, "b"), (13, "c")):
        knowledge.appended(Appended("e", id_, id_ - 1), [tag])
    assert knowledge.horizon == 11
    assert knowledge.judge(entry) is Verdict.UNKNOWN
    assert knowledge.judge(an_entry(Stamp("e", 11), "a")) is Verdict.VALID


def test_a_tag_invalidated_again_is_the_last_to_be_forgotten() -> None:
    knowledge = knowing(10, remembered=2)
    for id_, tag in ((11, "a"), (12, "b"), (13, "a"), (14, "c")):
        knowledge.appended(Appended("e", id_, id_ - 1), [tag])
    assert knowledge.horizon == 12
    assert knowledge.judge(an_entry(Stamp("e", 12), "a")) is Verdict.INVALID


def test_memory_is_bounded_however_many_tags_one_invalidation_names() -> None:
    knowledge = knowing(10, remembered=3)
    knowledge.appended(Appended("e", 11, 10), [f"tag {n}" for n in range(50)])
    assert "tags=3" in repr(knowledge)
    assert knowledge.judge(an_entry(Stamp("e", 10), "tag 0")) is Verdict.UNKNOWN
