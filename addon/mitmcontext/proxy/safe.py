"""Other people's words made safe to show: on a terminal, in a log, in a page.

Whatever could steer a terminal, hide text or turn its direction is made visible.
"""

from __future__ import annotations

import re

_BIDI_AND_HIDDEN = "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_BIDI_AND_HIDDEN}]")


def line(text: str) -> str:
    """One short line of it, safe to show."""
    text = text[:200]
    if text.isascii() and text.isprintable():
        return text
    return neutral(text).replace("\n", " ").replace("\t", " ")


def neutral(text: str) -> str:
    """The text with everything visible that would act on a terminal or deceive a reader.

    Control characters become what one types to get them: ^[ for escape.
    """
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"^{chr(code ^ 0x40)}" if code < 0x80 else "\ufffd"
