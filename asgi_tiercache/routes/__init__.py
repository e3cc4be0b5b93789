"""Which route a request takes, and which policy goes with it."""

from __future__ import annotations

from asgi_tiercache.routes.table import Choice, RouteTable, Target

__all__ = ["Choice", "RouteTable", "Target"]
