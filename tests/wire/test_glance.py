"""The model that a body names, without reading the body."""

from __future__ import annotations

import json

import pytest

from mitmcontext.wire.glance import model_in

NESTED = {"role": "user", "content": '{"model":"another"}', "model": "a third"}


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "claude-sonnet-4-5", "messages": [NESTED]}, "claude-sonnet-4-5"),
        ({"messages": [NESTED], "model": "gpt-5"}, "gpt-5"),
        ({"contents": [NESTED]}, ""),
        ({"model": "llama3.2", "messages": [], "options": {"num_ctx": 2048}}, None),
        ({"model": 4, "messages": []}, None),
        ([NESTED], None),
    ],
)
def test_only_the_top_level_counts(body: object, model: str | None) -> None:
    assert model_in(json.dumps(body).encode()) == model


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"model":"m"',
        b'{"model":"m"} more',
        b'\xef\xbb\xbf{"model":"m"}',
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":"\xff"}',
        b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\x1f\x8b\x08\x00compressed",
    ],
)
def test_what_is_no_json_names_none(body: bytes) -> None:
    assert model_in(body) is None
