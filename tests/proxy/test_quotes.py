"""mitmproxy's log keeps its words and loses what it quotes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mitmcontext.proxy import quotes

LOG = logging.getLogger("mitmproxy.proxy.server")
INSTEAD = "[bytes, left out by mitmcontext]"


@pytest.fixture(autouse=True)
def left_out() -> Iterator[None]:
    quotes.leave_out()
    yield
    quotes.quote_again()


def written(caplog: pytest.LogCaptureFixture, message: object, *values: object) -> str:
    with caplog.at_level(logging.DEBUG, logger=LOG.name):
        LOG.info(message, *values)
    return caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"x-api-key: secret\r\n",
        b"it's",
        b'"',
        b"'\"\\",
        b"\\",
        b"\x00\xff'",
        bytes(range(256)),
    ],
)
def test_bytes_are_left_out(caplog: pytest.LogCaptureFixture, held: bytes) -> None:
    assert written(caplog, f"Unexpected: {held!r}") == f"Unexpected: {INSTEAD}"
    several = f"{bytearray(held)!r}, then {held!r}."
    assert written(caplog, several) == f"bytearray({INSTEAD}), then {INSTEAD}."


@pytest.mark.parametrize(
    "said", ["client disconnect", "the lamb's b", "blob'bed'", "b'without an end", "100 %"]
)
def test_words_stay(caplog: pytest.LogCaptureFixture, said: str) -> None:
    assert written(caplog, said) == said


def test_what_is_put_together_later_or_no_text_stays(caplog: pytest.LogCaptureFixture) -> None:
    assert written(caplog, "%s and b'%d'", "b'x'", 7) == "b'x' and b'7'"
    assert written(caplog, 7) == "7"


def test_nothing_is_left_out_once_the_addon_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    quotes.quote_again()
    assert written(caplog, "b'x'") == "b'x'"
