"""The host a request is for, spelled one way."""

from __future__ import annotations

_DEFAULT_PORTS = {"http": b":80", "https": b":443"}


def normal_host(host: bytes, scheme: str) -> bytes:
    """`host`, a `Host` field's value, in lower case and without the default port of `scheme` (RFC 9110, 4.2.3).

    What stands before the port has to be a host: `a:80:80` is none, and must not be made one.
    """
    port = _DEFAULT_PORTS.get(scheme)
    host = host.lower()
    if port and host.endswith(port):
        name = host.removesuffix(port)
        if name and (b":" not in name or (name[:1] == b"[" and name[-1:] == b"]")):
            return name
    return host
