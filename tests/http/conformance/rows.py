"""What a row of the table of conformance is: one sentence of an RFC that carries a keyword of BCP 14."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Keyword: TypeAlias = Literal["MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "MAY", "OPTIONAL"]

BINDING = frozenset({"MUST", "MUST NOT", "REQUIRED"})

REASONS = {
    "client": "It binds who sends a request and uses the answer.",
    "origin": "It binds the handler, or what only the owner of a resource can know or do.",
    "server": "It binds the ASGI server, which does the framing, or the framework.",
    "proxy": "It binds who forwards over the network; the middleware calls the app below it.",
    "private cache": "It speaks to the cache of one user; this one is shared.",
    "vacuous": "What it depends on never arises here.",
    "superseded": "Another sentence says what holds for a cache.",
    "registry": "It binds who registers names.",
    "choice": "It permits or recommends something that is left alone, for the reason given.",
}
"""The first word of a reason why no test shows a sentence; a binding one cannot be a matter of `choice`."""


class Row(NamedTuple):
    """One sentence, or one item of a list in it.

    Attributes:
        rfc: Its number: `"9111"`.
        section: `"4.2.4"`.
        number: Which one of that section it is, from 1.
        keyword: The keyword of BCP 14.
        asks: What it asks, in our words.
        shown_by: The tests that show it: `"http.wire.test_age::test_no_date_is_made_up"`, below `tests`.
        not_ours: Why there is none; begins with one of `REASONS` and a colon.
    """

    rfc: str
    section: str
    number: int
    keyword: Keyword
    asks: str
    shown_by: tuple[str, ...]
    not_ours: str

    @property
    def id(self) -> str:
        """What the row is called: `"9111-4.2.4-1"`."""
        return f"{self.rfc}-{self.section}-{self.number}"


class Sentence(NamedTuple):
    """A row that has no number yet."""

    section: str
    keyword: Keyword
    asks: str
    shown_by: tuple[str, ...] = ()
    not_ours: str = ""


def shown(section: str, keyword: Keyword, asks: str, *tests: str) -> Sentence:
    """A sentence that tests show."""
    return Sentence(section, keyword, asks, shown_by=tests)


def other(section: str, keyword: Keyword, asks: str, reason: str) -> Sentence:
    """A sentence that no test shows, and why."""
    return Sentence(section, keyword, asks, not_ours=reason)


def table(rfc: str, *sentences: Sentence) -> tuple[Row, ...]:
    """The rows of one RFC, numbered within each section."""
    counted: dict[str, int] = {}
    rows = []
    for sentence in sentences:
        counted[sentence.section] = number = counted.get(sentence.section, 0) + 1
        rows.append(Row(rfc, sentence.section, number, *sentence[1:]))
    return tuple(rows)
