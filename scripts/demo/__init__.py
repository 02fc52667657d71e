"""A coding-agent session, made here, that shows the main job without a key."""
