"""Reading chosen cookies out of the `Cookie` field, and writing it again with only those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def chosen_cookies(lines: Iterable[bytes], names: Sequence[str]) -> dict[str, list[bytes]]:
    """The values that `lines`, each the value of a `Cookie` field, hold for each of `names`, as sent and in order.

    Names and values end where Starlette ends them, so that what is keyed is what the handler will read.
    """
    values: dict[str, list[bytes]] = {name: [] for name in names}
    for line in lines:
        for pair in line.decode("latin-1").split(";"):
            name, equals, value = pair.partition("=")
            if equals and (known := values.get(name.strip())) is not None:
                known.append(value.strip().encode("latin-1"))
    return values


def cookie_line(cookies: Mapping[str, Sequence[bytes]]) -> bytes:
    """The value of a `Cookie` field with these cookies; empty where there are none."""
    pairs = ((name, value) for name, values in cookies.items() for value in values)
    return b"; ".join([name.encode("latin-1") + b"=" + value for name, value in pairs])
