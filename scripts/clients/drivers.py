"""The clients: how each one is started, and which of its tools is called.

A new client is one more entry here, and one in clients.toml.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from loopback.answers import Call

from .stage import Command, Driver, Scene

PROGRAMS = Path(__file__).with_name("programs")
ANTHROPIC, OPENAI = ("api.anthropic.com",), ("api.openai.com",)
GOOGLE = ("generativelanguage.googleapis.com",)
MESSAGES, CHAT, RESPONSES, GEMINI = (
    "Anthropic Messages",
    "OpenAI Chat",
    "OpenAI Responses",
    "Gemini",
)
CLAUDE, GPT, FLASH = "claude-haiku-4-5", "gpt-4o", "gemini-3.8-flash"
TASK = "Which shelf holds the book that nobody wrote? Look at every shelf, one after the other."
# Nobody's keys. Some clients look at how one begins.
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-api03-" + "0" * 32,
    "OPENAI_API_KEY": "sk-" + "0" * 32,
    "GEMINI_API_KEY": "AIza" + "0" * 35,
}


def lines(shelf: int) -> str:
    """A harmless command of a shell, some 3000 tokens long in its output."""
    return f"seq -f 'shelf {shelf}: a book called title-{shelf}-%03g' 1 200"


def shell(tool: str, **more: str) -> Callable[[int], Call]:
    """A tool that takes a command for a shell."""
    return lambda shelf: Call(tool, {"command": lines(shelf), **more})


def script(shelf: int) -> Call:
    """Codex's tool, which takes a program that may start commands."""
    run = f"const found = await tools.exec_command({{cmd: {json.dumps(lines(shelf))}}});"
    return Call("exec", {"input": f"{run} text(found.output)"})


def look(shelf: int) -> Call:
    """The tool of our own programs."""
    return Call("look", {"shelf": shelf})


def program(name: str, *arguments: str) -> Callable[[Scene], Sequence[Command]]:
    """A program of ours, run by the Python that a library was installed for."""
    return lambda scene: [Command([scene.program, "-m", f"clients.programs.{name}", *arguments])]


def started(*arguments: str) -> Callable[[Scene], Sequence[Command]]:
    """The client's own program, once."""
    return lambda scene: [Command([scene.program, *arguments])]


def curl(scene: Scene) -> Sequence[Command]:
    """A loop around the system's curl."""
    return [Command([sys.executable, "-m", "clients.programs.with_curl", scene.program])]


def llm(scene: Scene) -> Sequence[Command]:
    """A function as a tool, then the same conversation once more from llm's own log."""
    shutil.copy(PROGRAMS / "shelves.py", scene.work / "shelves.py")
    ask = (scene.program, "prompt", "--model", GPT)
    return [
        Command([*ask, "--functions", "shelves.py", "--chain-limit", "0", TASK]),
        Command([*ask, "--continue", "Say that again."]),
    ]


def aider(scene: Scene) -> Sequence[Command]:
    """Questions typed one after the other. Its own summaries are kept out of the way."""
    plain = ("--no-pretty", "--no-fancy-input", "--no-stream", "--no-check-update")
    quiet = ("--no-git", "--yes-always", "--no-show-model-warnings", "--analytics-disable")
    typed = [f"What is on shelf {number}?" for number in range(26)]
    return [
        Command(
            [
                *(scene.program, "--model", GPT, "--chat-mode", "ask", *plain, *quiet),
                *("--max-chat-history-tokens", "1000000"),
            ],
            stdin="\n".join([*typed, "/exit", ""]),
        )
    ]


def codex(*settings: str) -> Callable[[Scene], Sequence[Command]]:
    """One task, without its own sandbox: that needs rights which nobody has everywhere."""
    bare = "--dangerously-bypass-approvals-and-sandbox"
    configured = [word for setting in settings for word in ("--config", setting)]
    return lambda scene: [
        Command([scene.program, "login", "--with-api-key"], stdin=KEYS["OPENAI_API_KEY"]),
        Command([scene.program, "exec", "--skip-git-repo-check", bare, *configured, TASK]),
    ]


DRIVERS: tuple[Driver, ...] = (
    Driver(
        "Claude Code",
        "claude-code",
        MESSAGES,
        ANTHROPIC,
        started("--print", TASK, "--model", CLAUDE, "--allowedTools", "Bash"),
        shell("Bash", description="List a shelf"),
        window=72_000,
    ),
    Driver(
        "Claude Code, Opus",  # whose system prompt stands partly in the messages
        "claude-code",
        MESSAGES,
        ANTHROPIC,
        started("--print", TASK, "--model", "claude-opus-5-5", "--allowedTools", "Bash"),
        shell("Bash", description="List a shelf"),
        window=72_000,
    ),
    Driver(
        "OpenCode",
        "opencode",
        MESSAGES,
        ANTHROPIC,
        started("run", "--model", f"anthropic/{CLAUDE}", TASK),
        shell("bash", description="List a shelf"),
        window=48_000,
    ),
    Driver(
        "OpenCode",
        "opencode",
        RESPONSES,
        OPENAI,
        started("run", "--model", "openai/gpt-5.1", TASK),
        shell("bash", description="List a shelf"),
        window=48_000,
    ),
    Driver(
        "Codex",
        "codex",
        RESPONSES,
        OPENAI,
        codex(),
        script,
        window=64_000,
        options=("context_websocket=fallback",),
    ),
    Driver(
        "Codex",
        "codex",
        f"{RESPONSES}, WebSocket",
        OPENAI,
        codex(),
        script,
        window=64_000,
        options=("context_websocket=condense",),
    ),
    Driver(
        "gemini-cli",
        "gemini-cli",
        GEMINI,
        GOOGLE,
        started("--prompt", TASK, "--model", FLASH, "--yolo", "--skip-trust"),
        shell("run_shell_command", description="List a shelf"),
        window=48_000,
    ),
    Driver("aider", "aider", CHAT, OPENAI, aider, None),
    Driver("llm", "llm", CHAT, OPENAI, llm, look),
    Driver("openai", "openai", CHAT, OPENAI, program("with_openai_chat", GPT), look),
    Driver("openai", "openai", RESPONSES, OPENAI, program("with_openai_responses", GPT), look),
    Driver("google-genai", "google-genai", GEMINI, GOOGLE, program("with_genai", FLASH), look),
    Driver("anthropic", "anthropic", MESSAGES, ANTHROPIC, program("with_anthropic", CLAUDE), look),
    Driver(
        "litellm",
        "litellm",
        MESSAGES,
        ANTHROPIC,
        program("with_litellm", "sync", f"anthropic/{CLAUDE}"),
        look,
    ),
    Driver("litellm", "litellm", CHAT, OPENAI, program("with_litellm", "async", GPT), look),
    Driver("curl", "curl", CHAT, OPENAI, curl, look),
)
