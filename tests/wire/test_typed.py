"""What a user's text is: typed by a person, a tool's observation, or a client's own block."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.values import Kind
from mitmcontext.wire.typed import kind_of_user_text

PROSE = (
    "We have a service that takes orders and writes them to a queue, and lately some of them "
    "arrive twice. I think that it began when the retry logic was changed in the spring. "
)

OBSERVATIONS = {
    "mini-swe-agent": "<returncode>0</returncode>\n<output>\nsetup.py\n</output>",
    "an exit code": "<exit_code>1</exit_code>",
    "SWE-agent": "total 12\nsetup.py\n(Open file: n/a)\n(Current directory: /repo)\nbash-$",
    "SWE-agent without prompt": "x\n(Current directory: /repo)\n",
    "ReAct": "Observation: 42",
    "an execution result": "  Execution result:\n1",
    "Terminus": "New Terminal Output:\n\n$ ls\n",
    "Terminus, at first": "Current terminal state:\n$",
    "Cline": "[read_file for 'src/a.py'] Result:\n\n1 | import os",
    "Cline without detail": "[attempt_completion] Result:",
    "a command's output": "<stdout>done</stdout>",
    "Claude Code's own commands": "<local-command-stdout>ok</local-command-stdout>",
    "bash mode": "<bash-stdout>ok</bash-stdout><bash-stderr></bash-stderr>",
    "a tool's response": "<tool_response>{}</tool_response>",
    "Aider": "I ran this command:\n\npytest\n\nAnd got this output:\n1 failed",
    "a diff": "diff --git a/x.py b/x.py\n+1",
    "in capitals": "OBSERVATION: x",
    "space before it": "\n\n  <output>x</output>",
}
ENVIRONMENT = {
    "Cline, Roo and Kilo": "<environment_details>\n# VSCode Visible Files\n</environment_details>",
    "Codex": "<environment_context>\n<cwd>/repo</cwd>\n</environment_context>",
    "Claude Code": "<system-reminder>\nThe date has changed.\n</system-reminder>",
    "a slash command": "<command-name>/init</command-name>",
    "an editor": "<ide_opened_file>a.py</ide_opened_file>",
}
LARGE = {
    "code": "def f(x):\n    return {1: g(x)};\n" * 100,
    "a log": "2026-03-01T12:00:00 INFO worker.pool state=idle\n" * 60,
    "a listing": "src/app/models/user.py\nsrc/app/models/order.py\n" * 60,
    "numbered lines": "".join(f"{n:6}\tsome words of text\n" for n in range(200)),
    "a traceback": 'Traceback:\n  File "/srv/app/main.py", line 3, in f\n    g(x)\n' * 40,
    "JSON": '{\n  "name": "x",\n  "items": [\n    1,\n    2\n  ]\n},\n' * 50,
}
TYPED = {
    "a question": "What does this do?",
    "nothing": "",
    "space": " \n",
    "code, but short": "def f(x):\n    return {1: g(x)};\n" * 5,
    "long prose": PROSE * 20,
    "prose in lines": (PROSE + "\n") * 20,
    "a list": "Please:\n" + "- rename the method and say why\n" * 100,
    "prose with a name in it": "Please look into src/app/models/user.py and fix it.",
    "prose around some code": (PROSE + "\n") * 12 + "\n    f(x)\n    g(x)\n",
    "speaks of observations": "The observation: it fails. Why?",
    "a tag of one's own": "<task>\nFix the login.\n</task>",
    "speaks of outputs": "Output is wrong when I run it, the exit code is 1.",
    "another tag": "<outputs_wanted>",
    "umlauts and emoji": "Größe ändern 🙂 " * 200,
    "one endless word": "x" * 10_000,
}


@pytest.mark.parametrize("text", OBSERVATIONS.values(), ids=OBSERVATIONS.keys())
def test_observations_of_the_common_agents(text: str) -> None:
    assert kind_of_user_text(text) is Kind.RESULT


@pytest.mark.parametrize("text", ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
def test_environment_blocks_of_the_common_clients(text: str) -> None:
    assert kind_of_user_text(text) is Kind.ENVIRONMENT


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_large_machine_shaped_text_counts_as_observation(text: str) -> None:
    assert kind_of_user_text(text) is Kind.RESULT
    assert kind_of_user_text(text[:400]) is Kind.TYPED


@pytest.mark.parametrize("text", TYPED.values(), ids=TYPED.keys())
def test_what_people_type(text: str) -> None:
    assert kind_of_user_text(text) is Kind.TYPED


BESIDE = {
    "a reminder": "<system-reminder>It is late.</system-reminder>\n\nWrite British English.",
    "an open file": "<ide_opened_file>a.py</ide_opened_file>\nPlease do that.",
    "the environment": "<environment_context>\n<cwd>/srv</cwd>\n</environment_context>\nbut typed",
    "a slash command": (
        "<command-message>fix is running</command-message>\n<command-name>/fix</command-name>\n"
        "<command-args>issue 42, but never touch billing</command-args>"
    ),
}


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE.keys())
def test_what_is_typed_behind_a_program_s_block_is_typed(text: str) -> None:
    assert kind_of_user_text(text) is Kind.TYPED


@pytest.mark.parametrize(
    "text",
    [
        "<command-name>/clear</command-name>\n<command-args></command-args>",
        "<system-reminder>a</system-reminder>\n<system-reminder>b</system-reminder>\n",
        "<system-reminder>that never ends",
    ],
)
def test_blocks_alone_are_environment(text: str) -> None:
    assert kind_of_user_text(text) is Kind.ENVIRONMENT


@given(st.text(max_size=300))
def test_any_text_is_one_of_three_kinds(text: str) -> None:
    assert kind_of_user_text(text) in (Kind.TYPED, Kind.RESULT, Kind.ENVIRONMENT)


LONG = {
    "brackets": "[" * 200_000,
    "space": " " * 1_000_000,
    "newlines": "\n" * 500_000,
    "digits": "1" * 500_000,
    "path": "a/" * 500_000,
    "calls": "f(" * 500_000,
    "shell states": "(Current directory: " * 50_000,
    "a call that never ends": "[a for " + "x" * 500_000,
    "blocks": "<ide_a></ide_a>" * 60_000,
    "dashes": ("-" * 299 + "\n") * 3_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()
    kind_of_user_text(text)
    assert time.process_time() - begun < 0.5
