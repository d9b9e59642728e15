"""Shared settings of the tests. `tests/` itself is on sys.path, so a test writes `from reference import softdtw`."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
