"""What HTTP itself says about caching: values in, verdict out, `now` an argument.

Nothing here waits, reads a clock or keeps state, and malformed input is never an exception: each rule falls back
as its RFC says, which mostly means to ignore the field or to treat the response as stale.
"""
