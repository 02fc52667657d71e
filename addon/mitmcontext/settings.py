"""Every setting, declared once.

From these declarations come mitmproxy's options, the environment variables (the option's name in
upper case) and the table in the README. What is read here is text, numbers and lists; what comes
out is a `Settings` that nothing else needs to check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Final

from mitmcontext.condense.assess import Thresholds
from mitmcontext.condense.summaries.selection import STRATEGIES
from mitmcontext.profiles import PROFILES, profile
from mitmcontext.readers import (
    BadSetting,
    address,
    amount,
    at_least,
    budget,
    duration,
    globs,
    if_set,
    one_of,
    people,
    plain,
    share,
    size,
    switch,
    text,
    windows,
)

__all__ = ["ENVIRONMENT", "BadSetting", "Settings", "declared", "load"]

KEY_FILE: Final = "CONTEXT_KEY_FILE"
REDIS_URL: Final = "CONTEXT_REDIS_URL"
API_KEY: Final = "CONDENSATION_API_KEY"
ENVIRONMENT: Final = (KEY_FILE, REDIS_URL, API_KEY)
"""Variables that are no options: they are or lead to secrets, and mitmweb shows every option."""

_TARGET: Final = 0.50
# The default target as a share of the default warning threshold.
_TARGET_OF_WARNING: Final = 0.625


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
CHOSEN: Final = ("auto", *STRATEGIES)
WAIT: Final = ("warning", "critical", "never")


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
    context_profile: str = setting(
        "",
        one_of("", *PROFILES),
        "One of the specification's named presets: values for several of the settings below, where "
        f"they are not set themselves. {', '.join(PROFILES)}.",
        ("", *PROFILES),
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
    reduce_at_birth: bool = setting(
        "false",
        switch,
        "Shorten new tool results before they are first sent, which costs no cache: escape "
        "sequences, repeated lines, runs of blank lines and the spacing of JSON go; of more than "
        "8,000 characters head, tail and errors stay. What was read of a file stays whole, and so "
        "does the same call's next result.",
    )
    condensation_min_messages: int = setting(
        "3", at_least(1), "Histories with fewer messages than this are never condensed."
    )
    enable_context_performance_logging: bool = setting(
        "false", switch, "Say in the log how long each LLM request was looked at."
    )
    enable_token_counting_logging: bool = setting(
        "false",
        switch,
        "Say in the log how many tokens each LLM request was estimated at, and how many its "
        "provider then counted.",
    )
    enable_ai_condensation: bool = setting(
        "true",
        switch,
        "May a model be asked to summarise what is condensed. Without, and wherever that is not "
        "allowed or fails, condensing is local.",
    )
    condensation_default_strategy: str = setting(
        "auto",
        one_of(*CHOSEN),
        "How histories are condensed. auto: key points of code and technical talk, a progressive "
        "summary of more than twenty messages, else a plain one; above 95 % smart_truncation, "
        "which is local.",
        CHOSEN,
    )
    condensation_model: str = setting(
        "",
        text,
        "The model that is asked, at the request's own provider or at condensation_endpoint. "
        "Empty: the request's own.",
    )
    condensation_endpoint: str = setting(
        "",
        address,
        "Where to ask in place of the request's own provider: the address of an API like OpenAI's "
        "or Anthropic's, such as http://localhost:11434/v1. Its key is CONDENSATION_API_KEY, in "
        "the environment only. Needs condensation_model.",
    )
    condensation_use_login: bool = setting(
        "false", switch, "May a subscription's login be used for our own questions."
    )
    condensation_max_cost: float = setting(
        "0.10",
        share,
        "Our questions cost at most this share of what the conversation itself has cost.",
    )
    condensation_wait: str = setting(
        "critical",
        one_of(*WAIT),
        "From which level on a request may wait for a model's answer: warning, critical, or never.",
        WAIT,
    )
    condensation_max_messages: int = setting(
        "10",
        at_least(1),
        "How many messages go into one question. What is longer is asked about in parts, side by "
        "side.",
    )
    condensation_timeout: float = setting(
        "30s", duration, "How long a request waits for a model at the most, for all questions."
    )
    condensation_quality_threshold: float = setting(
        "0.8",
        share,
        "Of the names, paths and numbers that recur, the share that a summary and the index behind "
        "it must hold. What holds less is not used.",
    )
    condensation_cache_ttl: float = setting(
        "3600s", duration, "How long a summary is kept that was made ahead of need."
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
        if self.condensation_endpoint and not self.condensation_model:
            raise BadSetting("condensation_endpoint needs condensation_model")
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
    """Settings from what was set: options, environment, profile, default, the first that is.

    Args:
        options: the options that were set, by name; unset ones are not in it.
        environment: environment variables; lists are separated by commas.

    Raises:
        BadSetting: with the setting's name and what it may hold.
    """
    found: dict[str, Any] = {}
    preset: Mapping[str, str] = {}
    for item in sorted(declared(), key=lambda item: item.name != "context_profile"):
        name, raw = _given(item, options, environment)
        if raw is None:
            raw = preset.get(item.name)
        if raw is not None:
            found[item.name] = _read(name, item, raw)
        if item.name == "context_profile":
            preset = profile(found.get(item.name, ""))
    warning = found.get("condensation_warning_threshold", 1.0)
    found.setdefault("condensation_target", min(_TARGET, _TARGET_OF_WARNING * warning))
    return Settings(**found)


def _given(
    item: Field[Any], options: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[str, Any]:
    """What was set of one, and under which name; None where nothing was."""
    if item.name in options:
        return item.name, options[item.name]
    variable = item.name.upper()
    raw: Any = environment.get(variable) or None
    if raw is not None and isinstance(item.metadata["default"], tuple):
        raw = [piece for piece in raw.split(",") if piece.strip()]
    return variable, raw


def _read(name: str, item: Field[Any], raw: Any) -> Any:
    try:
        clean = plain(raw) if isinstance(raw, str) else [plain(piece) for piece in raw]
        return item.metadata["read"](clean)
    except BadSetting as error:
        raise BadSetting(f"{name} {error}") from None
