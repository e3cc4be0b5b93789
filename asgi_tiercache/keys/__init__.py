"""What a request or a call is called in the cache: keys, canonical forms, tags, and what a fill may see."""
