"""The invalidation log, what a worker knows of it, and who is valid (DESIGN section 6, rules I1 to I9)."""
