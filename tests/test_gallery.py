"""The gallery draws, and draws the same twice."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from experiments.gallery import __main__ as gallery


@pytest.mark.parametrize("name", ["interpolation", "paths", "lattices", "warps"])
def test_draws_the_same_picture_twice(name, tmp_path):
    first, second = (gallery.draw(tmp_path / folder, [name])[0] for folder in ("first", "second"))
    assert first.name == f"gallery_{name}.png"
    assert first.stat().st_size > 10_000
    assert first.read_bytes() == second.read_bytes()


def test_cells_outside_the_limits_are_those_that_no_path_takes():
    import torch

    from torch_dalign import functional

    cost = torch.rand(9, 12, dtype=torch.float64)
    for options in ({"band": 1.5}, {"itakura": 2.0}, {"band": 2, "itakura": 1.5}):
        allowed = gallery._allowed(cost, **options)
        torch.testing.assert_close(functional.dtw(allowed[None]), functional.dtw(cost[None], **options))
