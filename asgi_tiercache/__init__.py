"""A response cache for ASGI apps: served from memory, then Redis, correct by the RFCs, one call to purge."""
