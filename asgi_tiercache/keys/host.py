"""The host a request is for, spelled one way."""

from __future__ import annotations

_DEFAULT_PORTS = {"http": b":80", "https": b":443"}


def normal_host(host: bytes, scheme: str) -> bytes:
    """`host`, a `Host` field's value, in lower case and without the default port of `scheme` (RFC 9110, 4.2.3)."""
    port = _DEFAULT_PORTS.get(scheme)
    return host.lower().removesuffix(port) if port else host.lower()
