"""Every setting, declared once.

From these declarations come mitmproxy's options, the environment variables (the option's name in
upper case) and the table in the README. What is read here is text, numbers and lists; what comes
out is a `Settings` that nothing else needs to check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Final

from mitmcontext.condense.assess import Thresholds
from mitmcontext.models.windows import SMALLEST, parse_windows

_SIZE: Final = re.compile(r"(\d+)\s*(B|KB|MB|GB)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


_TARGET: Final = 0.50
# The default target as a share of the default warning threshold.
_TARGET_OF_WARNING: Final = 0.625


class BadSetting(ValueError):
    """A setting holds what it may not hold; the message says what is allowed."""


def share(text: str) -> float:
    """A share such as 0.8 or 80 %, to a number above 0 and at most 1."""
    number = text.strip()
    try:
        found = float(number.rstrip("% ")) / (100 if number.endswith("%") else 1)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise BadSetting("must be a share above 0 and at most 1, such as 0.8 or 80%")
    return found


def size(text: str) -> int:
    """A size such as 32MB or 500000 (bytes; 1 KB is 1,024 bytes), to bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise BadSetting("must be a size above 0, such as 32MB or 500000")
    return int(match[1]) * _UNITS[(match[2] or "").upper()]


def at_least(low: int) -> Callable[[str], int]:
    """A reader of whole numbers that are not below `low`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text.strip()) or int(text) < low:
            raise BadSetting(f"must be a whole number of {low} or more")
        return int(text)

    return read


def budget(text: str) -> int:
    """A number of tokens, or 0 for none; less than a small window is a slip of the pen."""
    found = at_least(0)(text)
    if 0 < found < SMALLEST:
        raise BadSetting(f"must be 0 (off), or a whole number of {SMALLEST:,} tokens or more")
    return found


def amount(text: str) -> float:
    """A number that is not below 0, such as 0.25."""
    try:
        found = float(text.strip())
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise BadSetting("must be a number of 0 or more, such as 0.25")
    return found


def if_set[T](read: Callable[[str], T]) -> Callable[[str], T | None]:
    """As `read`; None for nothing."""
    return lambda text: read(text) if text.strip() else None


_ON: Final = ("true", "yes", "on", "1")
_OFF: Final = ("false", "no", "off", "0")
_DAYS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration(text: str) -> float:
    """A time such as 30d, 12h, 90m or 3600s, to seconds."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhd])?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise BadSetting("must be a time above 0, such as 30d, 12h, 90m or 3600s")
    return float(int(match[1]) * _DAYS[match[2] or "s"])


def switch(text: str) -> bool:
    """true or false, also as yes or no, on or off, 1 or 0."""
    word = text.strip().lower()
    if word not in (*_ON, *_OFF):
        raise BadSetting("must be true or false")
    return word in _ON


def text(value: str) -> str:
    """Any text."""
    return value.strip()


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader of one word out of several."""

    def read(text: str) -> str:
        if text.strip().lower() not in choices:
            raise BadSetting(f"must be one of {', '.join(choices)}")
        return text.strip().lower()

    return read


def people(names: Sequence[str]) -> tuple[str, ...]:
    """Names of proxy users, none of them empty."""
    if not all(name.strip() for name in names):
        raise BadSetting("must be names of proxy users, as proxyauth knows them")
    return tuple(name.strip() for name in names)


def globs(texts: Sequence[str]) -> tuple[str, ...]:
    """Host globs, none of them empty."""
    if not all(text.strip() for text in texts):
        raise BadSetting("must be host globs such as *.example.com")
    return tuple(text.strip().lower() for text in texts)


def windows(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """GLOB=TOKENS pairs."""
    try:
        return parse_windows(texts)
    except ValueError:
        raise BadSetting(
            f"must be GLOB=TOKENS with {SMALLEST:,} tokens or more, such as claude-opus-*=200000"
        ) from None


def setting(
    default: str | tuple[str, ...],
    read: Callable[[Any], Any],
    help_: str,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one: its default as a user would write it, how it is read, and what it does."""
    meta = {"default": default, "read": read, "help": help_, "choices": choices}
    return field(default=read(default), metadata=meta)


MODES: Final = ("condense", "observe", "off")
TOKENIZERS: Final = ("tiktoken", "gigatoken")
ATTESTED: Final = ("auto", "condense", "observe")
WEBSOCKET: Final = ("observe", "fallback", "condense")


def tokenizer(text: str) -> str:
    """One of the engines, which has to be installed."""
    name = one_of(*TOKENIZERS)(text)
    if find_spec(name) is None:
        raise BadSetting("may be gigatoken only where that is installed: pip install '.[fast]'")
    return name


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for, checked."""

    context_mode: str = setting(
        "condense",
        one_of(*MODES),
        "condense: shorten histories that get too full. observe: plan it and show what it would "
        "have saved, but forward every request as it came. off: do nothing.",
        MODES,
    )
    context_windows: tuple[tuple[str, int], ...] = setting(
        (),
        windows,
        "GLOB=TOKENS, the input window of the models that match; may be given several times.",
    )
    context_budget: int = setting(
        "0",
        budget,
        "Tokens of input: treat every window as no larger than this, for cheaper or sharper "
        "contexts. Below the model's own critical threshold a history is then condensed only if "
        "that is likely to pay for itself, or if the provider's cache has gone cold. 0: off.",
    )
    context_hosts: tuple[str, ...] = setting(
        (),
        globs,
        "Host globs to look at; may be given several times. Empty: every host with the path and "
        "shape of an LLM request.",
    )
    context_attested: str = setting(
        "auto",
        one_of(*ATTESTED),
        "Requests with the client's attestation over their body (Claude Code's cch line): condense "
        "or observe them. auto: condense with an API key, observe with a subscription login.",
        ATTESTED,
    )
    context_websocket: str = setting(
        "condense",
        one_of(*WEBSOCKET),
        "OpenAI Responses over a WebSocket, as Codex sends it. observe: count it and let every "
        "frame pass. fallback: refuse the WebSocket (426), whereupon the client sends the same by "
        "POST. condense: follow the conversation and send a shortened one when it gets too full.",
        WEBSOCKET,
    )
    context_max_body: int = setting(
        "32MB", size, "Bodies larger than this when decoded pass untouched."
    )
    context_cache_dir: str = setting(
        "",
        text,
        "The folder for what survives a restart, and for the key that it is sealed with. Empty: "
        "the platform's user cache folder. Read at the start.",
    )
    context_ledger_ttl: float = setting(
        "30d", duration, "How long frozen edits are kept after their last use. Read at the start."
    )
    context_tokenizer: str = setting(
        "tiktoken",
        tokenizer,
        "What counts tokens: tiktoken, or gigatoken (to be installed with pip install '.[fast]'), "
        "which is several times faster on new text and holds everything up for most of a second "
        "while it loads. Read at the start.",
        TOKENIZERS,
    )
    tiktoken_cache_size: int = setting(
        "1000",
        at_least(10),
        "How many conversations' token counts are kept in memory, at 48 KB each (a conversation of "
        "a hundred and forty messages). Read at the start.",
    )
    enable_accurate_token_counting: bool = setting(
        "true",
        switch,
        "Count with a real tokenizer. Without, a token is taken for four characters, which is off "
        "by a fifth and more.",
    )
    base_image_tokens: int | None = setting(
        "",
        if_set(at_least(0)),
        "Tokens of an image, to which those of its description come (see the next two). Empty: by "
        "the provider's own formula, from the image's width and height, unless one of the next two "
        "is set; then 85.",
    )
    image_tokens_per_char: float | None = setting(
        "",
        if_set(amount),
        "Tokens for each character of an image's description: the text beside it in the same "
        "message. Empty: as above; then 0.25.",
    )
    enable_dynamic_image_tokens: bool | None = setting(
        "",
        if_set(switch),
        "false: an image costs base_image_tokens, whatever its description. Empty: as above; then "
        "true.",
    )
    context_cache_size: int = setting(
        "100",
        at_least(1),
        "How many assessments of whole requests are kept in memory, at 16 KB each: a request that "
        "is sent again is not added up again. Read at the start.",
    )
    context_analysis_cache_ttl: float = setting(
        "300s", duration, "How long such an assessment is kept. Read at the start."
    )
    cache_enable_logging: bool = setting(
        "true",
        switch,
        "Say in the log how the caches fare, at every clean-up and at the end.",
    )
    cache_cleanup_interval: float = setting(
        "3600s", duration, "How often what has expired is removed from the stores."
    )
    context_keep_flows: int = setting(
        "500",
        at_least(1),
        "How many finished flows mitmweb keeps in memory; the oldest go first, marked ones last.",
    )
    context_team: bool = setting(
        "false",
        switch,
        "Serve many people: each must log in (proxyauth) and sees their own figures only, and "
        "nothing of any request is shown or saved. `./scripts/run --team` sets it. Read at the "
        "start.",
    )
    context_operators: tuple[str, ...] = setting(
        (),
        people,
        "Proxy users who see everybody's counts at http://context.mitm/team; may be given several "
        "times. For a team.",
    )
    context_opt_out: tuple[str, ...] = setting(
        (),
        people,
        "Proxy users whose requests go out as they came; may be given several times. For a team.",
    )
    condensation_caution_threshold: float = setting(
        "0.70", share, "Utilisation of the context window that counts as caution."
    )
    condensation_warning_threshold: float = setting(
        "0.80", share, "Utilisation at which a history is condensed if that frees enough."
    )
    condensation_critical_threshold: float = setting(
        "0.90",
        share,
        "Utilisation that counts as critical; a step still has to free 15 % of the window.",
    )
    condensation_target: float = setting(
        "0.50",
        share,
        "Utilisation to come down to when condensing. Unless set, it follows a lower warning "
        "threshold down.",
    )
    condensation_min_messages: int = setting(
        "3", at_least(1), "Histories with fewer messages than this are never condensed."
    )

    def __post_init__(self) -> None:
        """Refuse thresholds that contradict each other.

        Raises:
            BadSetting: they are not in rising order, or the target is no way down.
        """
        rising = (
            self.condensation_caution_threshold,
            self.condensation_warning_threshold,
            self.condensation_critical_threshold,
        )
        if any(a >= b for a, b in pairwise(rising)):
            raise BadSetting(
                "condensation_caution_threshold, condensation_warning_threshold and "
                "condensation_critical_threshold must be in rising order; they are "
                + ", ".join(f"{value:g}" for value in rising)
            )
        if self.condensation_target >= self.condensation_warning_threshold:
            raise BadSetting("condensation_target must be below condensation_warning_threshold")

    @property
    def thresholds(self) -> Thresholds:
        """The shares that the levels and the target come from."""
        return Thresholds(
            self.condensation_caution_threshold,
            self.condensation_warning_threshold,
            self.condensation_critical_threshold,
            self.condensation_target,
        )


def declared() -> tuple[Field[Any], ...]:
    """The declarations; `metadata` holds default, read, help and choices."""
    return fields(Settings)


def load(options: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from what was set: an option wins over the environment, that over the default.

    Args:
        options: the options that were set, by name; unset ones are not in it.
        environment: environment variables; lists are separated by commas.

    Raises:
        BadSetting: with the setting's name and what it may hold.
    """
    found: dict[str, Any] = {}
    for item in declared():
        variable = item.name.upper()
        raw: Any = environment.get(variable) or None
        name = variable
        if raw is not None and isinstance(item.metadata["default"], tuple):
            raw = [piece for piece in raw.split(",") if piece.strip()]
        if item.name in options:
            name, raw = item.name, options[item.name]
        if raw is not None:
            found[item.name] = _read(name, item, raw)
    warning = found.get("condensation_warning_threshold", 1.0)
    found.setdefault("condensation_target", min(_TARGET, _TARGET_OF_WARNING * warning))
    return Settings(**found)


def _read(name: str, item: Field[Any], raw: Any) -> Any:
    try:
        return item.metadata["read"](raw)
    except BadSetting as error:
        raise BadSetting(f"{name} {error}") from None
