"""The invalidation log, what a worker knows of it, and who is valid.

The rules that the code refers to by number; `docs/consistency.md` tells users what follows from them:

- I1: one log is the clock; no worker's clock is compared with another's.
- I2: a fill is stamped with its worker's own position, before it reads anything. What it reads through the cache hands
  on its tags, and its stamp where nobody has judged it.
- I3: an entry is valid if its epoch is the current one, and neither the floor nor one of its tags has an id beyond its
  stamp. That is judged on reads; writes are not checked.
- I4: control state that is absent invalidates: a new one has a new epoch. Fields are trimmed after the floor was raised
  past them.
- I5: a worker judges by its own map from its horizon on, and asks about what is older.
- I6: who waits for a flight judges its result like something found.
- I7: local judgement counts within `max_lag` of a question that was answered; then the log is asked, or the policy
  decides.
- I8: a gap in the log raises the horizon; another server than before begins a new epoch.
- I9: an invalidation that the log did not take holds here, is sent again, and is reported.
- I10: a soft invalidation makes stale; a hard one is never served again.
"""
