"""Which files a call reads and writes, in the words of the agents that are in use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmcontext.condense.touched import Touch, touched


def call(name: str, **arguments: Any) -> tuple[Touch, ...]:
    return touched(name, f"{name} {json.dumps(arguments)}")


READS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "Claude Code": ("Read", {"file_path": "/srv/app/main.py"}, True),
    "Claude Code, a part": ("Read", {"file_path": "/srv/app/main.py", "offset": 10}, False),
    "OpenCode": ("read", {"filePath": "/srv/app/main.py"}, True),
    "Gemini": ("read_file", {"absolute_path": "/srv/app/main.py"}, True),
    "an editor": ("str_replace_editor", {"command": "view", "path": "/srv/app/main.py"}, True),
    "Codex": ("shell", {"command": ["bash", "-lc", "cat /srv/app/main.py"]}, True),
    "Codex, a part": ("shell", {"command": ["bash", "-lc", "sed -n 1,9p /srv/app/main.py"]}, False),
    "a shell": ("bash", {"command": "cd /srv && nl -ba /srv/app/main.py"}, True),
}
WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "Claude Code": ("Edit", {"file_path": "/srv/app/main.py", "old_string": "a"}),
    "Claude Code, whole": ("Write", {"file_path": "/srv/app/main.py", "content": "a"}),
    "OpenCode": ("edit", {"filePath": "/srv/app/main.py"}),
    "Gemini": ("replace", {"file_path": "/srv/app/main.py"}),
    "an editor": ("str_replace_editor", {"command": "str_replace", "path": "/srv/app/main.py"}),
    "a shell": ("bash", {"command": "cat > /srv/app/main.py <<'EOF'\nx = 1\nEOF"}),
    "a patch": (
        "apply_patch",
        {"input": "*** Begin Patch\n*** Update File: /srv/app/main.py\n@@\n-a\n+b"},
    ),
    "sed": ("bash", {"command": "sed -i s/a/b/ /srv/app/main.py"}),
}


@pytest.mark.parametrize("agent", READS)
def test_reads_are_recognised(agent: str) -> None:
    name, arguments, whole = READS[agent]
    assert call(name, **arguments) == (Touch("/srv/app/main.py", False, whole),)


@pytest.mark.parametrize("agent", WRITES)
def test_writes_are_recognised(agent: str) -> None:
    name, arguments = WRITES[agent]
    found = call(name, **arguments)
    assert {touch.path for touch in found if touch.write} == {"/srv/app/main.py"}


def test_calls_in_a_model_s_text_are_recognised() -> None:
    cline = "I look at it.\n<read_file>\n<path>src/main.py</path>\n</read_file>"
    assert touched("", cline) == (Touch("src/main.py", False),)
    kilo = "<read_file>\n<args>\n<file>\n<path>src/main.py</path>\n</file>\n</args>\n</read_file>"
    assert touched("", kilo) == (Touch("src/main.py", False),)
    roo = "<apply_diff>\n<path>src/main.py</path>\n<diff>...</diff>\n</apply_diff>"
    assert touched("", roo) == (Touch("src/main.py", True),)
    mini = "THOUGHT: look.\n\n```bash\ncat src/main.py\n```"
    assert touched("", mini) == (Touch("src/main.py", False),)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bash", {"command": "pytest -q tests"}),
        ("WebSearch", {"query": "what is new"}),
        ("TodoWrite", {"todos": []}),
        ("bash", {"command": "ls -la"}),
    ],
)
def test_what_touches_no_file_is_neither(name: str, arguments: dict[str, Any]) -> None:
    assert call(name, **arguments) == ()


@given(st.text(max_size=20), st.text(max_size=2_000))
def test_no_text_is_too_odd(name: str, text: str) -> None:
    assert all(touch.path for touch in touched(name, text))
