"""Templates such as `"video:{video_id}"`: one tag or key per set of values."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import re
import uuid
from collections.abc import Callable, Mapping

from asgi_tiercache.config import MAX_TAG_BYTES, check_tag
from asgi_tiercache.errors import ConfigError, KeyingError
from asgi_tiercache.keys.escape import Digest, digest, escape, shorten

_FIELD = re.compile(r"\{([^{}]*)\}")
MAX_WHOLE = 1_024
"""Characters that a key may have for patterns to find it by what it was before it was cut."""
# The least that a field needs, once it is cut: some of its beginning, "#" and the hash.
_MIN_FIELD_BYTES = 40

_WRITTEN: dict[type, Callable[..., str]] = {
    int: str,
    str: lambda value: value,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "none",
    bytes: lambda value: value.decode("utf-8", "surrogateescape"),
    decimal.Decimal: str,
    uuid.UUID: str,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
}


class Template:
    """A text with fields in braces, `"user:{user_id}:{part}"`, that values fill.

    Values are escaped, so that none can become a pattern or reach into the next; where the result would be longer
    than 256 bytes, it is cut and ends in its hash. What stands at the end keeps its `:`, since nothing follows that it
    could be mistaken for: `f"user:{user_id}"` names what `"user:{user_id}"` does. A pattern may have 1,024 bytes, and
    then its long values are cut.

    Args:
        text: The template.
        option: The option that holds it, for messages.
        glob: Whether a `*` of the template's own stands for any characters; that of a value never does.
        digest: Names what is cut.

    Raises:
        ConfigError: braces do not pair, a field is not a plain name, or the text itself cannot be a tag.
    """

    def __init__(self, text: str, *, option: str = "tags", glob: bool = False, digest: Digest = digest) -> None:
        self.text = text
        self._digest = digest
        self._glob = glob
        check_tag(option, text.replace("*", "-") if glob and isinstance(text, str) else text)
        # Literal texts at even places, names of fields at odd ones.
        self._parts = _FIELD.split(text)
        self._plain = tuple(self._parts)
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(self._parts[1::2]))
        literal = "".join(self._parts[::2])
        if "{" in literal or "}" in literal:
            raise ConfigError(option, f"the braces in {text!r} do not pair")
        for field in self.fields:
            if not field.isidentifier():
                raise ConfigError(option, f"{{{field}}} in {text!r} is not the plain name of a value")
        cleaned = _glob if glob else _literal
        self._parts[::2] = map(cleaned, self._parts[::2])
        self._limit = MAX_WHOLE if glob else MAX_TAG_BYTES
        literal = cleaned(literal)
        self._room = self._limit - len(literal)
        if self.fields and MAX_TAG_BYTES - len(literal) < _MIN_FIELD_BYTES * (len(self._parts) // 2):
            raise ConfigError(option, f"{text!r} leaves too little of {MAX_TAG_BYTES} bytes to its values")

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    @property
    def shape(self) -> str:
        """The template without the names of its fields: two that share it make the same texts."""
        return _FIELD.sub("{}", self.text)

    def render(self, values: Mapping[str, object]) -> str | None:
        """The text for `values`; None where one is missing, None, or has no canonical text."""
        if any(values.get(field) is None for field in self.fields):
            return None
        try:
            return self._filled([_written(values[field]) for field in self._parts[1::2]])
        except KeyingError:
            return None

    def render_strict(self, values: Mapping[str, object], *, function: str = "") -> str:
        """The text for `values`, where None is a value, too.

        Raises:
            KeyingError: a value is missing or has no canonical text; the message names `function`, field and type.
        """
        return self._filled(self._all_written(values, function))

    def render_whole(self, values: Mapping[str, object], *, function: str = "") -> tuple[str, str]:
        """The same, and what it was before it was cut, if that has at most 1,024 characters; else the same twice.

        Raises:
            KeyingError: a value is missing or has no canonical text; the message names `function`, field and type.
        """
        whole = self._joined(self._all_written(values, function))
        text = self._cut(whole)
        return text, whole if len(whole) <= MAX_WHOLE else text

    def render_plain(self, values: Mapping[str, object], *, function: str = "") -> str:
        """The same with everything as it is, neither escaped nor cut: for paths and users, which never are a pattern.

        Raises:
            KeyingError: a value is missing or has no canonical text; the message names `function`, field and type.
        """
        parts = list(self._plain)
        parts[1::2] = self._all_written(values, function)
        return "".join(parts)

    def _all_written(self, values: Mapping[str, object], function: str) -> list[str]:
        written = []
        for field in self._parts[1::2]:
            try:
                written.append(_written(values[field]))
            except KeyError:
                raise KeyingError(f"{function or self.text}: no value for {field!r}") from None
            except KeyingError as error:
                raise KeyingError(f"{function or self.text}: {field!r}: {error}") from None
        return written

    def _filled(self, written: list[str]) -> str:
        return self._cut(self._joined(written))

    def _cut(self, whole: str) -> str:
        # As a whole: so a text is cut in the same way wherever its fields begin, or where it has none.
        return shorten(whole, self._limit, digest=self._digest)

    def _joined(self, written: list[str]) -> str:
        values = [escape(value) for value in written]
        if values and not self._parts[-1]:
            values[-1] = values[-1].replace("%3A", ":")  # as of a literal
        if self._glob and sum(map(len, values)) > self._room:  # what means something in it has to stay
            share = self._room // len(values)
            values = [shorten(value, share, digest=self._digest) for value in values]
        parts = list(self._parts)
        parts[1::2] = values
        return "".join(parts)


def tag(template: str, /, **values: object) -> str:
    """The tag that `template` gives `values`: `tag("video:{video_id}", video_id=42)`.

    Raises:
        ConfigError: the template is malformed, or holds what no tag may hold.
        KeyingError: a value is missing or has no canonical text.
    """
    return Template(template, option="tag").render_strict(values)


def literal_tag(text: str, *, option: str = "tag") -> str:
    """The tag written out as `text`, in which braces mean nothing; `option` is what messages call it.

    Raises:
        ConfigError: it is empty, longer than 256 bytes, or holds `*` or a control character.
    """
    return tolerant_tag(check_tag(option, text))


def tolerant_tag(text: str) -> str:
    """The tag that `tag` makes of `text`, and one for any other text, too: long ones are cut and end in their hash.

    For tags that may have been put together from what a client sent, which must not fail its request.
    """
    return shorten(_literal(text), MAX_TAG_BYTES)


def _literal(text: str) -> str:
    """What stands in a tag or key for a text between the values; the same as for a value, but for the colons."""
    return escape(text).replace("%3A", ":")


def _glob(text: str) -> str:
    """The same of a pattern, where `*` keeps its meaning."""
    return _literal(text).replace("%2A", "*")


def _written(value: object) -> str:
    """The one text of a single value.

    Raises:
        KeyingError: there is none, as for lists and objects.
    """
    if write := _WRITTEN.get(type(value)):
        return write(value)
    if isinstance(value, enum.Enum):
        return _written(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))
    raise KeyingError(f"a {type(value).__qualname__} has no canonical text")
