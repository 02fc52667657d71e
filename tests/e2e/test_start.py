"""What is wrong with the settings is said at the start, or stops it."""

from __future__ import annotations

import pytest
from tests.e2e.judging import StartProxy

from loopback.child import NotStarted


@pytest.mark.parametrize(
    "options",
    [
        ("condensation_warning_threshold=0.95", "condensation_critical_threshold=0.9"),
        ("condensation_target=-1",),
        ("condensation_target=nan",),
        ("context_windows=*=many",),
        ("context_max_body=-5MB",),
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
