"""What providers report of their counts, and what is learned from it: here, kept, and shared.

A report belongs to the history as the client sent it, by its last link: that is how the next
request of the conversation finds its anchor, whatever was condensed meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from cachetools import LRUCache, TTLCache

from mitmcontext.proxy.job import EstimatedAs
from mitmcontext.stores.tiers import Tiers
from mitmcontext.tokens.calibration import Anchor, Calibration, Kept, Report, Scale, Shape

_ANCHORS_SIZE: Final = 8 << 20
_ANCHOR: Final = 800  # bytes beside its ratios, with key and place in the cache
_KEYS: Final = 10_000
# What was learned is written at most so often where nobody else reads it, and kept so long.
_SECONDS: Final = 60.0
_KEPT: Final = 30 * 86_400.0  # or less, where frozen edits are kept for less
# A client's next request holds the model's answer and what follows it: a few messages more.
_ANCHORS_ASKED: Final = 12
_KEPT_DECODER: Final = msgspec.msgpack.Decoder(Kept)
_ANCHOR_DECODER: Final = msgspec.msgpack.Decoder(tuple[bytes, Anchor])
_log: Final = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A request that was answered.

    `link` is the last of the history as the client sent it; `expected` is in the provider's
    tokens.
    """

    link: bytes
    report: Report
    expected: int
    scale: Scale


class Reports:
    """Anchors and calibration of one proxy.

    Args:
        far: what outlives the process, or None.
        shared: whether other proxies write there, so that it is asked on every request.
        named: a keyed digest of what a value is kept under.
        kept: for how many seconds, at most.
    """

    def __init__(
        self, far: Tiers | None, shared: bool, named: Callable[[bytes], bytes], kept: float
    ) -> None:
        self._kept = min(_KEPT, kept)
        self._far = far
        self._shared = shared
        self._named = named
        self._calibration = Calibration()
        self._lock = threading.Lock()
        # Plain tuples, which a search for garbage passes over.
        self._anchors: LRUCache[bytes, tuple[Any, ...]] = LRUCache(
            _ANCHORS_SIZE, getsizeof=lambda kept: _ANCHOR + len(Anchor(*kept).ratios)
        )
        self._read: LRUCache[str, bool] = LRUCache(_KEYS)
        self._written: TTLCache[bytes, bool] = TTLCache(_KEYS, _SECONDS)

    def estimated_as(self, key: str, shape: Shape, links: Sequence[bytes]) -> EstimatedAs:
        """What the estimate of a request is to be corrected by."""
        with self._lock:
            anchors = self._anchors
            found = next((anchors[link] for link in reversed(links) if link in anchors), None)
        return EstimatedAs(key, shape, None if found is None else Anchor(*found))

    def scale(self, estimated_as: EstimatedAs, estimated: int, fixed: int) -> Scale:
        """How to turn the estimates of a request into the provider's tokens."""
        key, shape, anchor = estimated_as
        return self._calibration.scale(key, shape, anchor, estimated, fixed)

    def learn(
        self, estimated_as: EstimatedAs, answered: Answered, chain: bytes
    ) -> Callable[[], None] | None:
        """Take note of one answer; what is left to be done off the event loop, if anything.

        Args:
            estimated_as: what the request was estimated by.
            answered: the request and what the provider said of it.
            chain: what the conversation's newest report is kept under.
        """
        key, shape, anchor = estimated_as
        link, report, expected, scale = answered
        found = self._calibration.learn(key, shape, report, scale, expected, anchor)
        with self._lock:
            self._anchors[link] = tuple(found)
        far = self._far
        if far is None:
            return None
        due = [name for name in (key.encode(), chain) if self._shared or name not in self._written]
        if not due:
            return None
        self._written.update(dict.fromkeys(due, True))

        def write() -> None:
            if key.encode() in due:
                kept = msgspec.msgpack.encode(self._calibration.kept(key))
                far.set(self._named_calibration(key), kept, self._kept)
            if chain in due:
                far.set(
                    self._named_anchor(chain), msgspec.msgpack.encode((link, found)), self._kept
                )

        return write

    def read(self, key: str, links: Sequence[bytes]) -> None:
        """Take over what was learned before the last start, or by another proxy."""
        far = self._far
        if far is None:
            return
        with self._lock:
            known = any(link in self._anchors for link in links[-_ANCHORS_ASKED:])
            fresh = key not in self._read
            self._read[key] = True
        calibration, anchor = self._named_calibration(key), self._named_anchor(chain_of(links))
        wanted = [calibration] if fresh or self._shared else []
        wanted += [anchor] if not known or self._shared else []
        found = far.get_latest(wanted) if wanted else {}
        try:
            if calibration in found:
                self._calibration.restore(key, _KEPT_DECODER.decode(found[calibration]))
            if anchor in found:
                link, kept = _ANCHOR_DECODER.decode(found[anchor])
                with self._lock:
                    self._anchors[link] = tuple(kept)
        except msgspec.MsgspecError:
            _log.warning("mitmcontext: what was kept of a provider's counts could not be read")

    def clear(self) -> None:
        """Forget what is known here."""
        self._calibration.clear()
        with self._lock:
            self._anchors.clear()
            self._read.clear()

    def _named_calibration(self, key: str) -> bytes:
        return self._named(b"calibration 3 " + key.encode())

    def _named_anchor(self, chain: bytes) -> bytes:
        return self._named(b"anchor 2 " + chain)


def chain_of(links: Sequence[bytes]) -> bytes:
    """What a conversation's newest report is kept under: how it begins, as its forks do, too."""
    return links[min(1, len(links) - 1)]
