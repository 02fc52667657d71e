"""What is wrong with the settings is said at the start, or stops it."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from tests.e2e.fixture_types import StartProxy

from loopback.child import NotStarted


@pytest.mark.parametrize(
    "options",
    [
        ("condensation_warning_threshold=0.95", "condensation_critical_threshold=0.9"),
        ("condensation_target=-1",),
        ("condensation_target=nan",),
        ("context_windows=*=many",),
        ("context_max_body=-5MB",),
        ("context_cache_dir=~nobody-of-this-name/kept",),
    ],
    ids="; ".join,
)
def test_what_may_not_be_set_stops_the_start(
    options: tuple[str, ...], start_proxy: StartProxy
) -> None:
    with pytest.raises(NotStarted) as why:
        start_proxy(*options)
    sentence = next(line for line in str(why.value).splitlines() if "mitmcontext: " in line)
    assert options[-1].partition("=")[0] in sentence
    assert "Traceback" not in str(why.value)


def test_a_misspelt_name_is_told_with_the_nearest_one(start_proxy: StartProxy) -> None:
    proxy = start_proxy("condensation_targt=0.4", environment={"CONTEXT_MOOD": "off"})
    said = proxy.said()
    assert "condensation_target" in said
    assert "CONTEXT_MODE" in said


def test_what_only_the_environment_may_say_is_known(
    tmp_path: Path, start_proxy: StartProxy
) -> None:
    """Nobody has to be there at this address: what is shared is away then, and no more."""
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    proxy = start_proxy(
        environment={
            "CONTEXT_KEY_FILE": str(key),
            "CONTEXT_REDIS_URL": "redis://127.0.0.1:1/0",
            "CONDENSATION_API_KEY": "a key",
            "CONTEXT_REDIS_ULR": "redis://127.0.0.1:1/0",
        }
    )
    questions = [line for line in proxy.said().splitlines() if "did you mean" in line]
    assert len(questions) == 1
    assert "CONTEXT_REDIS_ULR; did you mean CONTEXT_REDIS_URL?" in questions[0]


def test_a_key_file_in_the_home_of_nobody_stops_the_start(start_proxy: StartProxy) -> None:
    with pytest.raises(NotStarted) as why:
        start_proxy(environment={"CONTEXT_KEY_FILE": "~nobody-of-this-name/key"})
    assert "CONTEXT_KEY_FILE must not name the home" in str(why.value)
    assert "Traceback" not in str(why.value)
