"""What holds for all APIs alike."""

from __future__ import annotations

import pytest

from mitmcontext.wire import APIS
from mitmcontext.wire.api import Api
from mitmcontext.wire.ollama import GENERATE

# A prompt and the tokens of what went before it are no messages.
SPEAKING = [api for api in APIS if api is not GENERATE]


@pytest.mark.parametrize("api", SPEAKING, ids=lambda api: api.name)
def test_a_message_of_ours_is_a_users_text(api: Api) -> None:
    said = 'a "b"\n\U0001f600\x00\u2028'
    found = api.parse(api.user_message(said))
    assert (found.role, [p.text for p in found.parts]) == ("user", [said])
