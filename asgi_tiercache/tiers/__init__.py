"""Where entries are kept: memory in the process, and the slower places behind it.

Each place is a `Tier`; deadline, circuit breaker and batching are tiers around tiers, so that nobody else needs a
`try` for a Redis that is down.
"""
