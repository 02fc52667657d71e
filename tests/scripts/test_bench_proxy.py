"""`./scripts/bench proxy` says what it wants of its arguments."""

from __future__ import annotations

import pytest

import bench_proxy


@pytest.mark.parametrize(("asked", "size"), [("10K", 10_000), ("1.5mb", 1_500_000), ("500", 500)])
def test_a_size_may_have_a_unit(asked: str, size: int) -> None:
    assert bench_proxy._arguments(["--sizes", asked]).sizes == [size]


@pytest.mark.parametrize("asked", ["", "K", "10X", "-1", "ten"])
def test_what_is_no_size_is_told_in_a_sentence(
    asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench_proxy.main([f"--sizes={asked}"])
    assert "must be a size such as" in capsys.readouterr().err
