"""How entries and function values become bytes, and what bytes of unknown origin may become again."""

from __future__ import annotations

from asgi_tiercache.codec.entries import MAX_BODY, Rejected, decode, encode
from asgi_tiercache.codec.failures import FailureCodec
from asgi_tiercache.codec.values import ValueCodec, codec_for

__all__ = ["MAX_BODY", "FailureCodec", "Rejected", "ValueCodec", "codec_for", "decode", "encode"]
