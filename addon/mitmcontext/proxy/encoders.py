"""The vocabularies: each is loaded once, by whichever thread needs it first."""

from __future__ import annotations

import threading

from mitmcontext.tokens import vocabulary
from mitmcontext.tokens.estimate import Count


class Encoders:
    """Counts by encoding. `tokenizer` is the setting context_tokenizer.

    `kept` outlives a reload, so that its 70 MB are not there twice while requests finish on the old
    code. tiktoken's own objects may do that; the others are wrapped in a class of ours.
    """

    def __init__(self, tokenizer: str, kept: dict[str, vocabulary.Encoder]) -> None:
        self._tokenizer = tokenizer
        self._loading = threading.Lock()
        self._loaded = kept if tokenizer == vocabulary.TIKTOKEN else {}
        self._counts: dict[str, Count] = {}

    def __contains__(self, encoding: str) -> bool:
        """Whether it is loaded."""
        return encoding in self._loaded

    def count(self, encoding: str) -> Count:
        """The count by an encoding; the first use of one takes most of a second."""
        count = self._counts.get(encoding)
        if count is None:
            with self._loading:
                if encoding not in self._loaded:
                    self._loaded[encoding] = vocabulary.load(encoding, self._tokenizer)
                count = self._counts[encoding] = vocabulary.counting(self._loaded[encoding])
        return count
