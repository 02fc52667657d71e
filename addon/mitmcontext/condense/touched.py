"""Which files an agent read and wrote, by the arguments of its calls.

Agents name their tools and arguments differently, and some have nothing but a shell. What is
recognised: arguments that hold a path (Claude Code, Codex, OpenCode, Gemini, SWE-agent's editor),
tags in a model's text (Cline, Roo, Kilo), commands of a shell (mini-swe-agent, SWE-agent, Codex),
patches with file headers. What is not recognised is neither, and treated as any other call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

_PATHS: Final = (
    "file_path",
    "filePath",
    "path",
    "target_file",
    "absolute_path",
    "relative_path",
    "notebook_path",
    "filename",
    "file",
    "uri",
)
_COMMANDS: Final = ("command", "cmd", "script", "code", "input", "patch")
_WRITES: Final = re.compile(
    r"edit|write|replace|patch|create|insert|update|delete|save|append|undo", re.IGNORECASE
)
_READS: Final = re.compile(r"read|view|open|cat|show|get|export|fetch|file", re.IGNORECASE)
# Cline, Roo and Kilo: <read_file><path>x</path></read_file>, also with <args><file> between.
_TAG: Final = re.compile(
    r"<(read_file|write_to_file|apply_diff|replace_in_file|insert_content|search_and_replace)>"
    r"(.{0,2000}?)</\1>",
    re.DOTALL,
)
_TAG_PATH: Final = re.compile(r"<path>\s*([^<\n]{1,300}?)\s*</path>")
_PATCH: Final = re.compile(r"^\*\*\* (?:Update|Add|Delete) File: ([^\n]{1,300})$", re.MULTILINE)
_FENCED: Final = re.compile(
    r"```(?:bash|sh|shell|mswea_bash_command)?\n(.{1,20000}?)\n```", re.DOTALL
)
_SPLIT: Final = re.compile(r"&&|\|\||[;\n|]")
_READERS: Final = frozenset(
    [
        "cat",
        "head",
        "tail",
        "nl",
        "less",
        "more",
        "sed",
        "grep",
        "egrep",
        "rg",
        "awk",
        "bat",
        "open",
        "view",
    ]
)
_WORD: Final = re.compile(r"'[^']{0,300}'|\"[^\"]{0,300}\"|[^\s'\"]{1,300}")
_REDIRECT: Final = re.compile(r"(?<![0-9&])>{1,2}\s*([\w./~-]{1,300})")
_LONGEST: Final = 20_000


class Touch(NamedTuple):
    """One file that a call touched. `whole` says that a read is of the whole file."""

    path: str
    write: bool
    whole: bool = True


def touched(name: str, text: str) -> tuple[Touch, ...]:
    """The files that a call touched.

    Args:
        name: of the tool; "" where the model's text holds the call.
        text: of the call (its name and its arguments), or the model's text.
    """
    if not name:
        return (*_tags(text), *_in_fences(text))
    given = _arguments(text[len(name) :])
    if isinstance(given, str):
        return tuple(_commands(given))
    return tuple(dict.fromkeys(_by_arguments(name, given)))


def _arguments(text: str) -> dict[str, object] | str:
    try:
        found = msgspec.json.decode(text.strip().encode("utf-8", "replace"))
    except (msgspec.MsgspecError, RecursionError):
        return text[:_LONGEST]
    return found if isinstance(found, dict) else str(found)[:_LONGEST]


def _by_arguments(name: str, given: dict[str, object]) -> Iterator[Touch]:
    action = given.get("command")
    # SWE-agent's and Anthropic's editor: one tool, the command says what it does.
    asked = f"{name} {action}" if isinstance(action, str) and len(action) < 20 else name
    written = bool(
        _WRITES.search(
            asked.replace("str_replace_based_edit_tool", "").replace("str_replace_editor", "")
        )
    )
    whole = not {"offset", "limit", "view_range", "start_line", "line_start", "range"} & set(given)
    for key in _PATHS:
        path = given.get(key)
        if isinstance(path, str) and 0 < len(path) <= 300 and (written or _READS.search(asked)):
            yield Touch(path, written, whole)
    for key in _COMMANDS:
        value = given.get(key)
        if isinstance(value, list):  # Codex: ["bash", "-lc", "..."]
            value = value[-1] if value and isinstance(value[-1], str) else None
        if isinstance(value, str) and len(value) > 3:
            yield from _commands(value)


def _tags(text: str) -> Iterator[Touch]:
    for found in _TAG.finditer(text):
        for path in _TAG_PATH.finditer(found[2]):
            yield Touch(path[1], found[1] != "read_file")


def _in_fences(text: str) -> Iterator[Touch]:
    for found in _FENCED.finditer(text):
        yield from _commands(found[1])


def _commands(script: str) -> Iterator[Touch]:
    """The files of a shell's command line: readers' last words, and what is redirected into."""
    script = script[:_LONGEST]
    for found in _PATCH.finditer(script):
        yield Touch(found[1].strip(), True)
    for redirect in _REDIRECT.finditer(script.partition("\n")[0]):
        yield Touch(redirect[1], True)
    if "<<" in script:
        script = script.partition("\n")[0]
    for command in _SPLIT.split(script):
        words = [word.strip("'\"") for word in _WORD.findall(command)]
        if not words or words[0] not in _READERS:
            continue
        named = [word for word in words[1:] if _is_path(word)]
        if words[0] == "sed" and "-i" in words:
            yield from (Touch(path, True) for path in named[-1:])
        else:
            whole = words[0] in ("cat", "nl", "bat", "less", "more", "open")
            yield from (Touch(path, False, whole) for path in named)


def _is_path(word: str) -> bool:
    return (
        not word.startswith("-")
        and ("/" in word or "." in word[1:-1])
        and not set(word) & set("*(){}^$\\|,<>;=")
    )
