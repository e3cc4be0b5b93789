"""Requests that share a key: real collisions of xxh3_128, made as an attacker would make them.

A long input is hashed in stripes of 64 bytes, eight lanes of 8 bytes each. A lane adds to its sum the product of its
two halves, each XORed with a public secret, and to the sum beside it the lane itself. Where the upper half of a lane is
that of the secret, the product is 0 whatever the lower half is: then two lower halves of neighbouring stripes can
change places, and every sum, so the whole hash, stays what it was.
"""

from __future__ import annotations

import re

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
    "51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8f"
    "f8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_STRIPE, _LANE, _STRIPES = 64, 8, 16
# What a canonical query leaves as it is.
_PLAIN = re.compile(rb"[A-Za-z0-9\-._~\x80-\xff]{4}")


def colliding(offset: int, one: bytes = b"evil", other: bytes = b"good") -> tuple[bytes, bytes]:
    """Two texts of equal length and equal hash, if they stand at `offset` and 64 bytes or more follow.

    In the first, `one` comes before `other`; in the second behind it. Both have four bytes.
    """
    start = -(-offset // _STRIPE)
    for stripe in range(start, start + _STRIPES):
        for lane in range(8):
            halves = [_upper(stripe, lane), _upper(stripe + 1, lane)]
            if (stripe + 1) % _STRIPES and all(map(_PLAIN.fullmatch, halves)):
                before = b"-" * (stripe * _STRIPE + lane * _LANE - offset)
                between = b"-" * (_STRIPE - _LANE)
                return tuple(  # type: ignore[return-value]
                    before + lower + halves[0] + between + upper + halves[1]
                    for lower, upper in ((one, other), (other, one))
                )
    raise AssertionError("no lane fits")


def _upper(stripe: int, lane: int) -> bytes:
    at = stripe % _STRIPES * _LANE + lane * _LANE
    return _SECRET[at + 4 : at + 8]
