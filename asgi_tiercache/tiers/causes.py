"""What an error says of the tier that it came from."""

from __future__ import annotations

import enum

from redis.exceptions import (
    AskError,
    AuthenticationWrongNumberOfArgsError,
    ClusterDownError,
    MaxConnectionsError,
    ResponseError,
    TryAgainError,
)

from asgi_tiercache.errors import TierError
from asgi_tiercache.tiers.deadline import BusyError
from asgi_tiercache.tiers.loops import WrongLoopError


class Cause(enum.Enum):
    """Whose fault it is that a call failed."""

    FAILURE = "failure"
    """The tier's: it is out of reach, hangs, or does not make sense."""
    REFUSAL = "refusal"
    """That of this operation: the tier has answered, and will not do it. Others it may."""
    UNASKED = "unasked"
    """Ours: the tier was not even asked. Too much is under way here, or it cannot be asked from this event loop."""


_UNASKED = (BusyError, MaxConnectionsError, WrongLoopError)
_UNABLE = (AskError, AuthenticationWrongNumberOfArgsError, ClusterDownError, TryAgainError)
"""Replies of a server that can do nothing, or nothing for this part of the keys, or lets nobody in. To redis-py `MOVED`
is an `ASK` and `MASTERDOWN` a `CLUSTERDOWN`; `LOADING` and most about passwords are `ConnectionError`s."""
_UNABLE_BY_TEXT = ("BUSY ", "UNKILLABLE ", "DB index is out of range", "ERR DB index is out of range")
"""What such replies begin with that have no class of their own: a script that does not end, no such database."""


def cause_of(error: BaseException) -> Cause:
    """Whose fault `error` is, by itself or by what it was translated from."""
    if isinstance(error, _UNASKED):
        return Cause.UNASKED
    if isinstance(error, TierError) and error.__cause__ is not None:
        return cause_of(error.__cause__)
    if isinstance(error, ResponseError) and not isinstance(error, _UNABLE):
        return Cause.FAILURE if str(error).startswith(_UNABLE_BY_TEXT) else Cause.REFUSAL
    return Cause.FAILURE
