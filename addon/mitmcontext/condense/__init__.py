"""When a conversation is condensed, what may be cut, and what takes its place."""
