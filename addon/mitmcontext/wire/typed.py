"""Who wrote a user's text: a person, or a program on the person's behalf.

Agents that do without tool calling send what their tools said as the user's text, and many put
blocks of their own beside it. Only what a person typed is kept word for word and starts a turn.
"""

from __future__ import annotations

import re
from typing import Final

from mitmcontext.values import Kind

# How the common agents begin an observation: mini-swe-agent (<returncode>, <output>), SWE-agent
# and ReAct loops (Observation:), Terminus (New Terminal Output:, Current terminal state), Cline,
# Roo and Kilo ([read_file for 'x'] Result:), Aider (lint and test output), OpenHands.
_OBSERVATION: Final = re.compile(
    r"\s*+(?:<(?:returncode|exit_code|output|stdout|stderr|command_output|tool_response|tool_result"
    r"|function_results?|observation|user_shell_command|local-command-stdout|bash-stdout|bash-stderr)\b"
    r"|(?:observation|execution result|command output|tool output|exit code|stdout)s?:"
    r"|new terminal output:|current terminal (?:state|screen)|previous response had|loaded skill:"
    r"|\[the command completed|your command ran|\[[a-z_]+(?: for [^\]\n]{0,200})?\] result:"
    r"|i ran this command:|base directory for this skill:|diff --git a/)",
    re.IGNORECASE,
)
# SWE-agent ends its observations with the state of its shell.
_SHELL_STATE: Final = re.compile(r"\(Current directory: [^\n]*\)\s*(?:bash-)?\$?\s*\Z")
_ENVIRONMENT: Final = re.compile(
    r"\s*+<(environment_details|environment_context|system-reminder|command-message"
    r"|command-name|user_instructions|turn_aborted|ide_[a-z_]+)\b",
    re.IGNORECASE,
)
# What follows a slash command of Claude Code, as somebody typed it.
_ARGUMENTS: Final = re.compile(r"\s*+<command-args>")
# A line that people seldom type: indented, numbered, dated, or dense with signs of code and paths.
_MACHINE_LINE: Final = re.compile(
    r"(?:[ \t]{2,}\S|\t|\s*\d+[:|\u2192\t]|[\[(]?\d{4}-\d\d-\d\d[T ]|[+\-@]{1,3}[^\s\-]"
    r"|.*(?:[{};=]\s*$|[\w.-]++/[\w.-]++/|\w\(.*\)|[=!<>]=|::|->|[|\\$^~]))"
)
# Below this length nobody would gain from calling a text anything but typed.
_LARGE: Final = 2_000
_MACHINE_SHARE: Final = 0.6


def kind_of_user_text(text: str) -> Kind:
    """TYPED, RESULT (a tool's observation sent as text) or ENVIRONMENT.

    A large text counts as an observation when most of its lines have the shape of code, a log or
    a listing: in doubt a person's paste may be shortened like any other large result, since the
    first message of a conversation is kept whole in any case. A block that a program put before
    what a person typed makes nothing else of it.
    """
    typed = _behind_environment(text)
    if typed is None:
        return Kind.ENVIRONMENT
    text = typed
    if _OBSERVATION.match(text) or _SHELL_STATE.search(text[-300:]):
        return Kind.RESULT
    if len(text) >= _LARGE and _machine_share(text) >= _MACHINE_SHARE:
        return Kind.RESULT
    return Kind.TYPED


def _behind_environment(text: str) -> str | None:
    """What stands behind the environment blocks at the beginning of a text; None if nothing."""
    at = 0
    while (block := _ENVIRONMENT.match(text, at)) is not None:
        closing = f"</{block[1]}>"
        end = text.find(closing, block.end())
        if end < 0:
            return None
        at = end + len(closing)
    if not at:
        return text
    rest = text[at:]
    if args := _ARGUMENTS.match(rest):
        rest = rest[args.end() :].removesuffix("</command-args>")
    return rest if rest.strip() else None


def kind_of_text(role: str, text: str) -> Kind:
    """What a text is by the role of the message that holds it, and a user's by its looks."""
    match role:
        case "user":
            return kind_of_user_text(text)
        case "assistant":
            return Kind.PROSE
        case "tool" | "function":
            return Kind.RESULT
        case _:
            return Kind.SYSTEM


def _machine_share(text: str) -> float:
    lines = [line for line in text[:20_000].splitlines() if line.strip()]
    return sum(1 for line in lines if _MACHINE_LINE.match(line[:300])) / max(1, len(lines))
