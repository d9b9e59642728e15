"""Shared settings of the tests. `tests/` itself is on sys.path, so a test writes `from reference import softdtw`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def restored_denormals() -> Iterator[None]:
    """Programs of the experiments flush denormal numbers, in the whole process: not for the tests after theirs."""
    yield
    torch.set_flush_denormal(False)
