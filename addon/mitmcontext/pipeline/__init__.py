"""The way of a request: read, lay, count, assess, plan, finish.

Each step takes values and gives values. Who calls them, on which thread, under which deadline and
what is forwarded when one of them fails is the business of `proxy/`.
"""

from mitmcontext.pipeline.assessing import (
    Assessment,
    assess,
    counts_of,
    is_surely_safe,
    notes_of,
    room_for,
    surely_fits,
    within,
)
from mitmcontext.pipeline.changes import changes_at_birth, changes_of
from mitmcontext.pipeline.reading import (
    Laid,
    Reading,
    first_birth,
    is_laid_already,
    keep,
    lay,
    lay_found,
    read,
    size_to,
    with_births,
)
from mitmcontext.pipeline.step import Market, Step, conversation_of, plan_step

__all__ = [
    "Assessment",
    "Laid",
    "Market",
    "Reading",
    "Step",
    "assess",
    "changes_at_birth",
    "changes_of",
    "conversation_of",
    "counts_of",
    "first_birth",
    "is_laid_already",
    "is_surely_safe",
    "keep",
    "lay",
    "lay_found",
    "notes_of",
    "plan_step",
    "read",
    "room_for",
    "size_to",
    "surely_fits",
    "with_births",
    "within",
]
