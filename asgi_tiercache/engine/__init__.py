"""The story that middleware and decorators share: look up, judge, fill once, store."""
