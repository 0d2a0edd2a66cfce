"""A short run of each target; `make fuzz N=10000000` is the long one.

protocol.md, section 1: no input raises an error, hangs, or is kept.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import fuzz
from tests.fuzz.targets import Target, targets

TARGETS = targets()


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_mutated_inputs_break_nothing(target: Target) -> None:
    assert fuzz(target, 2000, seed=1).grown < 50_000


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_any_bytes_break_nothing(target: Target) -> None:
    cut = st.floats(0, 1, exclude_max=True)

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.binary(max_size=300), st.lists(cut, max_size=3))
    def check(data: bytes, cuts: list[float]) -> None:
        target.run(data, cuts)

    check()
