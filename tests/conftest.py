"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: how long a thing may take is said where it matters.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
