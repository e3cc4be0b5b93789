"""Cache directives: `Cache-Control` (RFC 9111, section 5.2) and the field aimed at us (RFC 9213)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from asgi_tiercache.http.fields import TOKEN, elements, values
from asgi_tiercache.http.structured import BareItem, Item, Member, parse_dictionary
from asgi_tiercache.types import Header

MAX_SECONDS = 2**31
"""What stands for every longer time (RFC 9111, section 1.2.2)."""

_NAME = re.compile(TOKEN)
# A field name is a token. One with an apostrophe is nobody's: it comes from an argument in single quotes, which are
# no quotes (RFC 9110, section 5.6.4), and would leave the fields that were meant unprotected.
_FIELD_NAME = re.compile(TOKEN.replace("'", ""))
_DIRECTIVE = re.compile(rf'(?P<name>{TOKEN})(?:=(?:(?P<token>{TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*+)"))?')
_FIELD_LISTS = frozenset({"no-cache", "private"})
_WITH_SECONDS = frozenset({"max-age", "s-maxage", "stale-if-error", "stale-while-revalidate"})


@dataclass(frozen=True, slots=True)
class Directives:
    """The cache directives of one message; `"no-store" in directives` asks for one by its lower-case name.

    Asked so, a directive counts in whatever form it came: what forbids goes on forbidding when it is malformed. What
    permits is asked for with `grants`.

    Attributes:
        arguments: The arguments of each directive by name, one for each time it occurs: None without one, `""` where
            what follows the name is malformed.
    """

    arguments: Mapping[str, tuple[str | None, ...]]

    @classmethod
    def parse(cls, headers: Iterable[Header], name: bytes = b"cache-control") -> Directives:
        """The directives of all field lines called `name` (lower case). Never raises.

        Names count in any case, arguments in both forms, token and quoted (section 5.2); what no one here knows is
        carried along and never asked for (section 5.2.3). An element that is malformed behind its name counts as that
        directive with a useless argument: something that forbids goes on forbidding, a lifetime becomes 0.
        """
        return cls(_by_name(filter(None, map(_directive, elements(headers, name)))))

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    def grants(self, name: str) -> bool:
        """Whether `name` occurs as section 5.2.2 defines it: nothing malformed permits anything.

        That is with a number of seconds, every time that it occurs, where it takes one; else without an argument.
        """
        arguments = self.arguments.get(name, ())
        if name in _WITH_SECONDS:
            return bool(arguments) and None not in map(delta_seconds, arguments)
        return None in arguments

    def seconds(self, name: str) -> int | None:
        """The argument of `name` in seconds, at most 2**31; None if the directive is absent.

        An argument that is no number counts as 0, and so do several that differ: of the two readings that RFC 9111,
        section 4.2.1 offers for them, first or stale, stale can only cost a miss.
        """
        arguments = self.arguments.get(name)
        if arguments is None:
            return None
        numbers = {delta_seconds(argument) for argument in arguments}
        return (numbers.pop() or 0) if len(numbers) == 1 else 0

    def fields(self, name: str) -> frozenset[str] | None:
        """The field names, lower case, that `no-cache="..."` or `private="..."` is limited to; None if it is not.

        Both are defined in RFC 9111, sections 5.2.2.4 and 5.2.2.7. Where the directive occurs once without field
        names, or with something else among them, it is unlimited: the most restrictive reading (section 4.2.1).
        """
        lists = [_field_names(argument) for argument in self.arguments.get(name, ())]
        return frozenset().union(*lists) if lists and all(lists) else None


def delta_seconds(text: str | None) -> int | None:
    """`text` as seconds, at most 2**31 (RFC 9111, section 1.2.2); None if it is not a row of digits."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")[:11]  # eleven tell that it is too long; int() refuses thousands of them
    return min(int(digits or "0"), MAX_SECONDS)


def targeted(headers: Iterable[Header]) -> Directives | None:
    """The directives of `CDN-Cache-Control`, to be used in place of `Cache-Control` and `Expires` (RFC 9213).

    None if the field is absent, empty, or not a structured field (section 2.1): then it is to be ignored. With any
    member at all, be it one that nobody knows, it is valid and takes its place (section 2.2; the last example of
    section 3.1). Of several members with one name the last counts (RFC 9651, section 4.2.2). Values of a type that
    the directive does not have are not consumed: a number of seconds that is no Integer counts as malformed, which
    makes it 0, and a directive that is False is absent. Parameters are ignored.
    """
    members = parse_dictionary(b", ".join(values(headers, b"cdn-cache-control")))
    return Directives(_by_name(_consumed(members))) if members else None


def _directive(element: str) -> tuple[str, str | None] | None:
    if match := _DIRECTIVE.fullmatch(element):
        quoted: str | None = match["quoted"]
        argument = match["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        return match["name"].lower(), argument
    name = _NAME.match(element)
    return (name[0].lower(), "") if name else None


def _by_name(directives: Iterable[tuple[str, str | None]]) -> dict[str, tuple[str | None, ...]]:
    found: dict[str, list[str | None]] = {}
    for name, argument in directives:
        found.setdefault(name, []).append(argument)
    return {name: tuple(arguments) for name, arguments in found.items()}


def _field_names(argument: str | None) -> frozenset[str]:
    """The members of a list of field names; none at all if one of them is something else."""
    names = [name for text in (argument or "").lower().split(",") if (name := text.strip(" \t"))]
    return frozenset(names) if all(map(_FIELD_NAME.fullmatch, names)) else frozenset()


def _consumed(members: Mapping[str, Member]) -> Iterator[tuple[str, str | None]]:
    for name, member in members.items():
        value = member.value if isinstance(member, Item) else b""  # no directive takes a list
        if value is not False:
            yield name, _argument(name, value)


def _argument(name: str, value: BareItem) -> str | None:
    if value is True:
        return None
    wanted = str if name in _FIELD_LISTS else int
    return str(value) if type(value) is wanted else ""
