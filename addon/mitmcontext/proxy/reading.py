"""A request is decoded and read, and what is frozen of its conversation laid over it.

This always happens, since without it the client's whole history would go out. Where little is left
to be read it happens at once, otherwise in a thread.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from msgspec.structs import replace

from mitmcontext import pipeline
from mitmcontext.births import Births
from mitmcontext.condense.entries import Found, home
from mitmcontext.condense.ledger import Ledger
from mitmcontext.known import Known
from mitmcontext.pipeline import Laid
from mitmcontext.proxy import bodies, threads
from mitmcontext.proxy.job import Job, Ready, encoded
from mitmcontext.proxy.tenant import keyed, keyed_before
from mitmcontext.recollect import Little, Recollections
from mitmcontext.settings import Settings
from mitmcontext.stretches import Stretch
from mitmcontext.tokens.families import Asked, family_of
from mitmcontext.values import Request, Standing

# Reading so much takes well below a millisecond. In a thread it takes half of one more, since the
# body has to come into another core's cache. Around what is known of a conversation stand tools and
# system prompt, mostly, which are passed over and cost less: those of agents have 40 to 150 KB.
# What it takes goes by the number of values and of messages, of which a body of this size may hold
# thousands: then it goes to a thread, too.
_INLINE: Final = Little(whole=64 << 10, around=256 << 10, values=6_000)
_INLINE_NEW: Final = 100
_INLINE_NEW_VALUES: Final = 1_200
_INLINE_MESSAGES: Final = 3_000
# Laying frozen edits anew over a body of this size takes a few milliseconds.
_INLINE_LAID: Final = 512 << 10
# Far beyond what reading needs: only for a machine that stands still.
_READ_SECONDS: Final = 20.0
# What takes most is a conversation of some hundred messages that was condensed: half a megabyte.
_RECOLLECTIONS_SIZE: Final = 16 << 20


class Reader:
    """Reads requests, and knows the beginnings of recent conversations.

    Args:
        pool: the threads that read. Planning may take seconds, and must not hold up what is frozen
            already, so they are others.
        ledger: what is frozen.
        known: what is known of messages.
        births: what becomes of new results.
        refused: the links of entries that the provider refused.
        key: what tenants are keyed with.
        catch_up: takes over what others learned of a request's conversation, or this proxy before
            its last start. It may take some milliseconds.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        ledger: Ledger,
        known: Known,
        births: Births,
        refused: Container[bytes],
        key: bytes,
        catch_up: Callable[[Ready], None],
    ) -> None:
        self._ledger = ledger
        self._known = known
        self._births = births
        self._refused = refused
        self._key = key
        self._catch_up = catch_up
        self._threads = pool
        self._recollections = Recollections(_RECOLLECTIONS_SIZE, secrets.token_bytes(32))

    async def look(self, job: Job, settings: Settings) -> Ready:
        """Decode, read, and lay over it what is frozen.

        Raises:
            Unreadable: it is not a request that we understand.
            Broken: what is frozen does not fit.
            TimeoutError: the machine stands still.
        """
        read = None
        if "content-encoding" not in job.headers:
            read = self._recollections.read_little(job.api, job.raw, _INLINE)
        if read is None or not _is_little(*read):
            return await self._in_time(lambda: self.lay_far(self._read(job, settings)))
        ready = self._recognised(job, settings, *read)
        sent = ready.laid.sent
        certain, found = self._ledger.near(sent.links)
        little = len(job.raw) <= _INLINE_LAID and (found is None or found.entry.born is None)
        little = little or pipeline.is_laid_already(sent, found, self._births)
        quick = certain and little and not self._may_begin(ready, found)
        if quick or ready.standing == Standing.ALONE:
            return self._lay(ready, found)
        return await self._in_time(partial(self.lay_far, ready))

    def lay_far(self, ready: Ready) -> Ready:
        """Look up what is frozen wherever that may be, and lay it over. Runs in a thread."""
        self._catch_up(ready)
        found = self._ledger.find(ready.laid.sent.links)
        return self._lay(ready, self._begun(ready, found))

    def _may_begin(self, ready: Ready, found: Found | None) -> bool:
        """Whether from this request on new results may have to be reduced."""
        settings = ready.settings
        return (
            settings.reduce_at_birth
            and ready.standing == Standing.TURN
            and (found is None or found.entry.born is None)
            and len(ready.request.spans) >= settings.condensation_min_messages
            and not any(link in self._refused for link in ready.laid.sent.links)
        )

    def _begun(self, ready: Ready, found: Found | None) -> Found | None:
        """What is frozen, and from where on new results are reduced: from here, if not before."""
        if not self._may_begin(ready, found):
            return found
        sent = ready.laid.sent
        entry = pipeline.first_birth(sent, found, self._births)
        if entry is None:
            return found
        size = pipeline.size_to(sent, home(entry, found))
        return self._ledger.freeze(sent.links, entry, found, size)

    def clear(self) -> None:
        """Forget what was read."""
        self._births.clear()
        self._recollections.clear()

    async def _in_time[T](self, work: Callable[[], T]) -> T:
        async with asyncio.timeout(_READ_SECONDS):
            return await threads.run(self._threads, work)

    def _read(self, job: Job, settings: Settings) -> Ready:
        """Decode and read; nothing is laid over the request yet."""
        coding = job.headers.get("content-encoding")
        body = bodies.decode(job.raw, coding, settings.context_max_body)
        return self._recognised(job, settings, *self._recollections.read(job.api, body))

    def _recognised(
        self, job: Job, settings: Settings, request: Request, stretch: Stretch | None
    ) -> Ready:
        """Whose conversation a request belongs to, and what it is to that."""
        if not request.model:
            request = replace(request, model=job.api.model_in_path(job.path))
        standing, why = job.api.standing(job.path, job.headers, request)
        observed = job.observed or _attested(request, job, settings)
        # What is only observed has a ledger of its own, by links of its own.
        names = (job.api.name, request.model, "observed" if observed else "condensed")
        if job.login and (principal := job.api.principal(job.path, request)):
            job = replace(job, tenant=keyed(self._key, [job.place, principal.encode()]))
        seed = keyed_before(self._key, (job.tenant, *[name.encode() for name in names]))
        family = family_of(request.model, job.api.name, asked(settings))
        sent = pipeline.read(job.api, family, request, seed, self._known, stretch)
        return Ready(job, settings, Laid(sent, sent, None), seed, observed, standing, why)

    def _lay(self, ready: Ready, found: Found | None) -> Ready:
        if ready.standing == Standing.ALONE:
            return ready
        laid = pipeline.lay_found(ready.laid.sent, found, ready.seed, self._known, self._births)
        pipeline.keep(laid, ready.seed, self._recollections)
        if laid.forwarded is laid.sent:
            return replace(ready, laid=laid) if laid.found is not None else ready
        ready = replace(ready, laid=laid)
        return replace(ready, raw=encoded(ready))


def _is_little(request: Request, stretch: Stretch | None) -> bool:
    """Whether a request has few messages, and few that are not known, with little in them."""
    known = len(stretch.spans) if stretch is not None else 0
    if len(request.spans) > min(_INLINE_MESSAGES, known + _INLINE_NEW):
        return False
    new = request.spans[known:]
    commas = request.body.count(b",", new[0].start, new[-1].end) if new else 0
    return commas <= _INLINE_NEW_VALUES


def _attested(request: Request, job: Job, settings: Settings) -> str:
    """Why a request with the client's attestation over its body is only observed, or ""."""
    if not request.attested or settings.context_attested == "condense":
        return ""
    if settings.context_attested == "observe":
        return "attested by the client (context_attested is observe)"
    if job.login:
        return (
            "attested by the client, with a subscription login; "
            "set context_attested to condense to change that"
        )
    return ""


def asked(settings: Settings) -> Asked:
    """How the user wants tokens to be counted."""
    return Asked(
        settings.enable_accurate_token_counting,
        settings.base_image_tokens,
        settings.image_tokens_per_char,
        settings.enable_dynamic_image_tokens,
    )
