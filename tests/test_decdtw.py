"""The layer DecDTW: its bands, slopes and knots, what it learns, paths, and everything that PyTorch does to modules."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from distributed import run_on_two_ranks
from reference import gdtw as reference
from torch import Tensor, nn

import torch_dalign as dalign
from torch_dalign import functional, metrics

INF = math.inf
DOUBLE = torch.float64


def signals(batch: int = 2, n: int = 21, m: int = 26, d: int = 3, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(11)
    sides = ([reference.smooth(rng, length, d) for _ in range(batch)] for length in (n, m))
    x, y = (torch.from_numpy(np.stack(side)).to(dtype) for side in sides)
    return x, y


def stamps() -> tuple[Tensor, Tensor]:
    """Uneven times of the frames of `signals`, from 3 on and from -1 on."""
    rng = np.random.default_rng(5)
    sides = ((21, 3.0, 7.0), (26, -1.0, 11.0))
    x, y = (torch.from_numpy(reference.random_times(rng, size, True, start, end)) for size, start, end in sides)
    return x, y


# ---------------------------------------------------------------- the same as the function


def test_defaults_are_those_of_the_function():
    x, y = signals()
    phi, value = dalign.DecDTW(return_cost=True)(x, y)
    expected = functional.gdtw(x, y)
    assert torch.equal(phi, expected[0])
    assert torch.equal(value, expected[1])
    assert torch.equal(dalign.DecDTW()(x, y), phi)


@pytest.mark.parametrize("subsequence", [False, True, "start", "end"])
@pytest.mark.parametrize("timed", [False, True])
def test_options_are_those_of_the_function(timed, subsequence):
    x, y = signals()
    times = dict(zip(("x_times", "y_times"), stamps(), strict=True)) if timed else {}
    lengths = {"x_lengths": torch.tensor([21, 12]), "y_lengths": torch.tensor([15, 26])}
    kinds = {"loss": ("huber", 0.5), "regularizer": ("p", 3.0), "quality": "fast"}
    layer = dalign.DecDTW(0.01, **kinds, subsequence=subsequence)
    ends = {False: "fixed", True: "free", "start": "free_start", "end": "free_end"}[subsequence]
    expected, _ = functional.gdtw(x, y, reg_weight=0.01, ends=ends, **kinds, **times, **lengths)
    assert torch.equal(layer(x, y, **times, **lengths), expected)


# ---------------------------------------------------------------- slopes and bands


@pytest.mark.parametrize("timed", [False, True])
def test_slope_bounds_multiply_the_nominal_slope(timed):
    x, y = signals()
    tx, ty = stamps() if timed else (torch.linspace(0, 1, 21, dtype=DOUBLE), torch.linspace(0, 1, 26, dtype=DOUBLE))
    times = (tx, ty) if timed else (None, None)
    phi = dalign.DecDTW(1e-4, slope_bounds=(0.7, 1.5))(x, y, None, None, *times)
    nominal = (ty[-1] - ty[0]) / (tx[-1] - tx[0])
    slope = phi.diff(dim=1) / tx.diff() / nominal
    assert slope.min() >= 0.7 - 1e-9
    assert slope.max() <= 1.5 + 1e-9
    assert (slope.min() <= 0.7 + 1e-9, slope.max() >= 1.5 - 1e-9) == (True, True)
    free = dalign.DecDTW(1e-4)(x, y, None, None, *times)
    assert torch.equal(dalign.DecDTW(1e-4, slope_bounds=(None, INF))(x, y, None, None, *times), free)


@pytest.mark.parametrize("timed", [False, True])
def test_sakoe_chiba_band_is_a_share_of_the_duration_of_y(timed):
    x, y = signals()
    times = stamps() if timed else (None, None)
    share = torch.linspace(0, 1, 21, dtype=DOUBLE) if not timed else (times[0] - 3) / 4
    phi = dalign.DecDTW(1e-5, band=0.06)(x, y, None, None, *times)
    start, duration = (-1, 12) if timed else (0, 1)
    off = (phi - start) / duration - share
    assert off.abs().max() <= 0.06 + 1e-12
    assert off.abs().amax(1).tolist() == pytest.approx([0.06, 0.06])
    torch.testing.assert_close(
        dalign.DecDTW(1e-5, band=2.0)(x, y, None, None, *times), dalign.DecDTW(1e-5)(x, y, None, None, *times)
    )


def rk_bounds(widths: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Above the diagonal by R, and to the right of it by R: two polylines through the nodes."""
    node = np.linspace(0, 1, len(widths))
    return np.interp(share, node + widths, node), np.interp(share, node, node + widths)


def test_rk_band_lies_between_its_two_lines():
    x, y = signals()
    tx, ty = stamps()
    widths = torch.tensor([0.05, 0.02, 0.08, 0.08, 0.03], dtype=DOUBLE)
    low, high = (torch.from_numpy(side) for side in rk_bounds(widths.numpy(), ((tx - 3) / 4).numpy()))
    layer, given = dalign.DecDTW(1e-5, band=("rk", widths)), dalign.DecDTW(1e-5, band=(12 * low - 1, 12 * high - 1))
    phi = layer(x, y, None, None, tx, ty)
    torch.testing.assert_close(phi, given(x, y, None, None, tx, ty), rtol=0, atol=1e-12)
    assert ((phi >= 12 * low - 1 - 1e-12) & (phi <= 12 * high - 1 + 1e-12)).all()
    assert not torch.allclose(phi, dalign.DecDTW(1e-5)(x, y, None, None, tx, ty), atol=1e-3)


def test_rk_band_of_one_width_is_that_of_sakoe_and_chiba():
    x, y = signals()
    phi = dalign.DecDTW(1e-5, band=("rk", torch.full((7,), 0.06, dtype=DOUBLE)))(x, y)
    torch.testing.assert_close(phi, dalign.DecDTW(1e-5, band=0.06)(x, y), rtol=0, atol=1e-12)
    each = torch.tensor([[0.06], [0.03]], dtype=DOUBLE).expand(2, 4).clone()
    both = dalign.DecDTW(1e-5, band=("rk", each))(x, y)
    torch.testing.assert_close(both[1:], dalign.DecDTW(1e-5, band=0.03)(x[1:], y[1:]), rtol=0, atol=1e-12)


def test_a_steeply_falling_rk_width_does_not_fold_the_band():
    x, y = signals()
    widths = torch.tensor([0.05, 0.9, 0.05, 0.05, 0.05], dtype=DOUBLE, requires_grad=True)
    phi = dalign.DecDTW(1e-4, band=("rk", widths))(x, y)
    (grad,) = torch.autograd.grad(phi.sum(), widths)
    assert phi.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("lengths", [None, torch.tensor([21, 9])])
def test_bands_and_slopes_know_each_items_own_length(lengths):
    x, y = signals()
    options = {"slope_bounds": (0.5, 2.0), "band": 0.1}
    phi = dalign.DecDTW(1e-4, **options)(x, y, lengths)
    n = 21 if lengths is None else 9
    torch.testing.assert_close(phi[1, :n], dalign.DecDTW(1e-4, **options)(x[1:, :n], y[1:])[0], rtol=0, atol=1e-12)


def test_given_bounds_in_the_time_of_y():
    x, y = signals()
    low, high = torch.full((21,), -INF, dtype=DOUBLE), torch.full((1, 21), INF, dtype=DOUBLE)
    low[10] = 0.6
    phi = dalign.DecDTW(1e-3, band=(low, None))(x, y)
    assert (phi[:, 10] >= 0.6 - 1e-15).all()
    high[0, 10] = 0.6
    phi = dalign.DecDTW(1e-3, band=(low, high))(x, y)
    torch.testing.assert_close(phi[:, 10], torch.full((2,), 0.6, dtype=DOUBLE))


# ---------------------------------------------------------------- knots


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("subsequence", [False, True])
def test_knots_are_x_interpolated_at_uniform_times(subsequence, timed):
    x, y = signals()
    tx, ty = stamps() if timed else (torch.linspace(0, 1, 21, dtype=DOUBLE), torch.linspace(0, 1, 26, dtype=DOUBLE))
    times = {"x_times": tx, "y_times": ty} if timed else {}
    knots = torch.linspace(tx[0].item(), tx[-1].item(), 13, dtype=DOUBLE)
    read = np.stack([[np.interp(knots, tx, x[b, :, d]) for d in range(3)] for b in range(2)]).transpose(0, 2, 1)
    slope = 1.0 if subsequence and timed else 20 / 25 if subsequence else ((ty[-1] - ty[0]) / (tx[-1] - tx[0])).item()
    options = {"reg_weight": 0.01, "nominal_slope": slope, "ends": "free" if subsequence else "fixed"}
    options |= {"x_times": knots, "y_times": ty} if timed else {}
    expected, _ = functional.gdtw(torch.from_numpy(read), y, **options)
    phi = dalign.DecDTW(0.01, n_knots=13, subsequence=subsequence)(x, y, **times)
    torch.testing.assert_close(phi, expected, rtol=0, atol=1e-9)


def test_knots_of_items_with_lengths():
    x, y = signals()
    layer = dalign.DecDTW(0.3, n_knots=8, band=0.2, slope_bounds=(0.3, 3.0))
    wrong = x.clone()
    wrong[1, 9:] = math.nan
    phi = layer(wrong.requires_grad_(), y, torch.tensor([21, 9]))
    assert phi.shape == (2, 8)
    torch.testing.assert_close(phi[1:], layer(x[1:, :9], y[1:]), rtol=0, atol=1e-12)
    (grad,) = torch.autograd.grad(phi.sum(), wrong)
    assert grad[0].any()
    assert grad.isfinite().all()


# ---------------------------------------------------------------- everything is learned


def leaf(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers[0] if len(numbers) == 1 else numbers, dtype=DOUBLE))


SETTINGS = {
    "lambda": lambda p: {"reg_weight": p},
    "lower slope": lambda p: {"slope_bounds": (p, None)},
    "upper slope": lambda p: {"slope_bounds": (None, p)},
    "Sakoe-Chiba": lambda p: {"band": p},
    "R-K": lambda p: {"band": ("rk", p)},
    "lower bound": lambda p: {"band": (p, None)},
    "upper bound": lambda p: {"band": (None, p)},
}
RAMP = torch.linspace(0, 1, 21, dtype=DOUBLE)
VALUES = {
    "lambda": torch.tensor(0.003, dtype=DOUBLE),
    "lower slope": torch.tensor(0.7, dtype=DOUBLE),
    "upper slope": torch.tensor(1.4, dtype=DOUBLE),
    "Sakoe-Chiba": torch.tensor(0.0517, dtype=DOUBLE),  # no bound is a frame of y
    "R-K": torch.tensor([0.05, 0.02, 0.06, 0.03], dtype=DOUBLE),
    "lower bound": RAMP + 0.137 * (math.pi * RAMP).sin() - 0.003,
    "upper bound": RAMP * 0.96 + 0.05,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("timed", [False, True])
def test_gradients_of_settings(timed, name):
    """By the chain through bands, slopes and time stamps, against differences of the layer."""
    x, y = signals()
    tx, ty = stamps()
    weights = torch.randn(2, 21, dtype=DOUBLE)
    scale = VALUES[name] if name not in ("lower bound", "upper bound") or not timed else 12 * VALUES[name] - 1

    def loss(value: Tensor, first: Tensor, second: Tensor) -> Tensor:
        layer = dalign.DecDTW(**({"reg_weight": 1e-3} | SETTINGS[name](value)))
        return (layer(x, y, None, None, *((first, second) if timed else ())) * weights).sum()

    leaves = [tensor.clone().requires_grad_() for tensor in (scale, tx, ty)]
    grads = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True)
    assert grads[0].any()
    for at, grad in enumerate(grads[: 3 if timed else 1]):
        plain, step = [tensor.detach() for tensor in leaves], 1e-6
        expected = torch.zeros_like(grad)
        for k in range(grad.numel()):
            ends = []
            for sign in (1, -1):
                moved = plain[at].clone()
                moved.view(-1)[k] += sign * step
                ends.append(loss(*plain[:at], moved, *plain[at + 1 :]).item())
            expected.view(-1)[k] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(grad, expected, rtol=2e-4, atol=2e-5)


def test_parameters_belong_to_the_module_and_numbers_do_not():
    layer = dalign.DecDTW(leaf(0.1), slope_bounds=(leaf(0.5), 2.0), band=("rk", leaf(0.1, 0.2)))
    assert sorted(layer.state_dict()) == ["band_width", "reg_weight", "slope_min"]
    assert layer.slope_max.item() == 2.0
    layer.to(torch.float32)
    assert layer.reg_weight.dtype == torch.float32
    assert layer.slope_max.dtype == DOUBLE
    layer.reg_weight = 0.2
    assert sorted(layer.state_dict()) == ["band_width", "slope_min"]
    assert layer.reg_weight.item() == 0.2
    bounds = dalign.DecDTW(band=(leaf(0.0, 0.1), leaf(0.9, 1.0)))
    assert sorted(bounds.state_dict()) == ["band_max", "band_min"]


def test_training_on_the_time_error_finds_features_lambda_and_band():
    """A linear map of noisy features, and everything else, learn from the true warp."""
    rng = np.random.default_rng(2)
    time = torch.linspace(0, 1, 40, dtype=DOUBLE)
    truth = time + 0.12 * torch.sin(math.pi * time)
    clean = torch.from_numpy(reference.smooth(rng, 400, 3))
    fine = torch.linspace(0, 1, 400, dtype=DOUBLE)
    x = torch.stack([torch.from_numpy(np.interp(truth, fine, clean[:, d])) for d in range(3)], 1)
    y = torch.stack([torch.from_numpy(np.interp(time, fine, clean[:, d])) for d in range(3)], 1)
    noise = torch.from_numpy(rng.standard_normal((2, 40, 3)))
    x, y = (torch.cat((side, one), 1)[None] for side, one in zip((x, y), noise, strict=True))
    layer = dalign.DecDTW(leaf(0.3), band=leaf(0.2), slope_bounds=(leaf(0.1), leaf(4.0)))
    network = nn.Linear(6, 3, bias=False, dtype=DOUBLE)
    optimizer = torch.optim.Adam([*network.parameters(), *layer.parameters()], lr=0.02)
    losses = []
    for _ in range(40):
        loss = metrics.time_error((time, layer(network(x), network(y))), (time, truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.4 * losses[0]
    assert layer.reg_weight.item() != 0.3


# ---------------------------------------------------------------- paths


def test_paths_join_the_nearest_frames_by_steps():
    x, y = signals()
    lengths = {"x_lengths": torch.tensor([21, 12]), "y_lengths": torch.tensor([15, 26])}
    layer = dalign.DecDTW(0.001)
    phi = layer(x, y, **lengths)
    for b, path in enumerate(layer.path(phi, 26, **lengths)):
        n, m = lengths["x_lengths"][b].item(), lengths["y_lengths"][b].item()
        assert (path.dtype, path[0].tolist(), path[-1].tolist()) == (torch.int64, [0, 0], [n - 1, m - 1])
        steps = path.diff(dim=0)
        assert ((steps >= 0) & (steps <= 1)).all()
        assert steps.any(1).all()
        nearest = (phi[b, :n] * (m - 1) + 0.5).floor().long()
        cells = {tuple(cell) for cell in path.tolist()}
        assert all((i, j) in cells for i, j in enumerate(nearest.tolist()))


def test_paths_with_time_stamps_free_ends_and_nan():
    times = torch.tensor([0.0, 1.0, 4.0, 5.0])
    phi = torch.tensor([[1.2, 2.4, 2.6, 4.2], [math.nan] * 4])
    first, second = dalign.DecDTW().path(phi, 4, y_times=times)
    assert first.tolist() == [[0, 1], [1, 1], [2, 2], [3, 2]]
    assert second.shape == (0, 2)
    cost = dalign.PathCost(reduction="none")(torch.zeros(1, 4, 1), torch.ones(1, 4, 1), [first])
    assert cost.item() == 4


# ---------------------------------------------------------------- modules under PyTorch


def full_layer() -> dalign.DecDTW:
    return dalign.DecDTW(leaf(0.01), slope_bounds=(0.3, leaf(3.0)), band=("rk", leaf(0.3, 0.2, 0.3)), return_cost=True)


def test_pickled_copied_and_loaded():
    x, y = signals()
    layer = full_layer()
    expected = layer(x, y)
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), full_layer()]
    others[2].load_state_dict(layer.state_dict())
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(other(x, y), expected, strict=True))
    assert repr(layer).count("learned") == 3
    assert repr(dalign.DecDTW()) == "DecDTW(reg_weight=0.1, quality='default')"


def test_autocast_computes_in_float32():
    x, y = (side.float() for side in signals())
    net = nn.Linear(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        features = net(x), net(y)
        phi = dalign.DecDTW(0.01)(*features)
    assert (features[0].dtype, phi.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(phi, dalign.DecDTW(0.01)(features[0].float(), features[1].float()))
    phi.square().sum().backward()
    assert net.weight.grad.any()


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_without_a_break(backend):
    """The layer with all of its settings, as a training step with lengths; other settings do not recompile."""
    layer, net = full_layer(), nn.Linear(3, 3, dtype=DOUBLE)

    def step(x, y, lengths):
        phi, value = layer(net(x), net(y), lengths)
        return phi.square().sum() + value.sum()

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    parameters = [*net.parameters(), *layer.parameters()]
    for reg in (0.01, 0.05):
        with torch.no_grad():
            layer.reg_weight.fill_(reg)
        x, y = signals()
        loss = compiled(x, y, torch.tensor([21, 9]))
        expected = step(x, y, torch.tensor([21, 9]))
        torch.testing.assert_close(loss, expected)
        pairs = zip(*(torch.autograd.grad(value, parameters) for value in (loss, expected)), strict=True)
        for grad, other in pairs:
            torch.testing.assert_close(grad, other, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    "options",
    [
        {"n_knots": 9},
        {"band": 0.1, "subsequence": True, "n_knots": 12},
        {"band": (-0.1, torch.ones(21))},
        {"slope_bounds": (0.5, None), "loss": ("huber", 0.2), "quality": "fast"},
    ],
    ids=["knots", "subsequence", "bounds", "slopes"],
)
def test_compiled_options(options):
    x, y = signals()
    tx, ty = (side.expand(2, -1) for side in stamps())
    layer = dalign.DecDTW(0.01, **options)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    stamped = () if isinstance(options.get("band"), tuple) else (None, None, tx, ty)
    torch.testing.assert_close(compiled(x, y, *stamped), layer(x, y, *stamped))


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_code_gives_nan_where_there_is_no_warp():
    x, y = signals()
    layer = dalign.DecDTW(slope_bounds=(1.1, 2.0))
    with pytest.raises(ValueError, match="no warp of item 0"):
        layer(x, y)
    assert torch.compile(layer, fullgraph=True, backend="aot_eager")(x, y).isnan().all()
    assert dalign.DecDTW(slope_bounds=(1.1, 2.0), on_infeasible="nan")(x, y).isnan().all()


def test_data_parallel_gives_the_gradient_of_the_whole_batch(tmp_path):
    run_on_two_ranks(
        """
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Linear(4, 4)
                self.layer = dalign.DecDTW(nn.Parameter(torch.tensor(0.01)), slope_bounds=(0.2, 5.0), band=0.4)

            def forward(self, x, y):
                return self.layer(self.net(x), self.net(y)).square().mean()

        torch.manual_seed(0)
        model, x, y = Model(), torch.randn(4, 12, 4).cumsum(1), torch.randn(4, 15, 4).cumsum(1)
        model(x, y).backward()
        whole = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        parallel = DistributedDataParallel(model)
        parallel(x[2 * rank : 2 * rank + 2], y[2 * rank : 2 * rank + 2]).backward()
        for p, expected in zip(model.parameters(), whole, strict=True):
            torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6)
        """,
        tmp_path,
    )


# ---------------------------------------------------------------- how it fails

MISUSE = {
    "lambda": ({"reg_weight": -1.0}, ValueError, r"reg_weight must be finite and >= 0, got -1"),
    "loss": ({"loss": "abs"}, ValueError, r"loss must be 'sqeuclidean'"),
    "regularizer": ({"regularizer": ("p", 1.0)}, ValueError, r"regularizer must be .*p = 1"),
    "slopes": ({"slope_bounds": 2.0}, TypeError, r"slope_bounds must be a pair \(lo, hi\), got float"),
    "three slopes": ({"slope_bounds": (1.0, 2.0, 3.0)}, ValueError, r"slope_bounds must be a pair .* got 3 entries"),
    "slopes in the wrong order": ({"slope_bounds": (2.0, 1)}, ValueError, r"slope_bounds .* lo <= hi, got \(2.0, 1\)"),
    "bounds in the wrong order": (
        {"band": (0.9, 0.1)},
        ValueError,
        r"band must be a pair .* lo <= hi, got \(0.9, 0.1\)",
    ),
    "slope kind": ({"slope_bounds": ("low", 2.0)}, TypeError, r"slope_bounds must be a number or a tensor, got str"),
    "band kind": ({"band": "wide"}, TypeError, r"band must be a number, \('rk', R\) or .*got str"),
    "band": ({"band": -0.1}, ValueError, r"band must be >= 0, half a width .*got -0.1"),
    "band nan": ({"band": math.nan}, ValueError, r"band must be a number, got nan"),
    "band tensor": ({"band": torch.rand(3)}, ValueError, r"band must be a number, .*got shape \(3,\)"),
    "band name": ({"band": ("itakura", torch.rand(3))}, ValueError, r"band\[0\] .*must be one of 'rk'"),
    "rk widths": ({"band": ("rk", [0.1, 0.2])}, TypeError, r"band\[1\] must be a tensor, got list"),
    "one rk width": (
        {"band": ("rk", torch.rand(1))},
        ValueError,
        r"band\[1\] must have shape \(K,\) or \(B, K\) with K",
    ),
    "subsequence": ({"subsequence": "both"}, ValueError, r"subsequence must be one of False, True, 'start', 'end'"),
    "knots": ({"n_knots": 1}, ValueError, r"n_knots must be at least 2, got 1"),
    "knots kind": ({"n_knots": 2.5}, TypeError, r"n_knots must be a whole number, got float"),
    "quality": ({"quality": "ok"}, ValueError, r"quality must be one of"),
    "on_infeasible": ({"on_infeasible": "ignore"}, ValueError, r"on_infeasible must be one of"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse(name):
    options, error, message = MISUSE[name]
    with pytest.raises(error, match=message):
        dalign.DecDTW(**options)


def test_misuse_in_the_call():
    x, y = signals()
    with pytest.raises(ValueError, match=r"band\[1\] must have shape \(K,\) or \(2, K\), got \(3, 4\)"):
        dalign.DecDTW(band=("rk", torch.rand(3, 4)))(x, y)
    with pytest.raises(ValueError, match=r"slope_max must be a number or broadcast to \(2, 20\), got shape \(1, 21\)"):
        dalign.DecDTW(slope_bounds=(None, torch.rand(1, 21)))(x, y)
    with pytest.raises(ValueError, match=r"band_min must be a number or broadcast to \(2, 21\), got shape \(20,\)"):
        dalign.DecDTW(band=(torch.zeros(20), None))(x, y)
    with pytest.raises(ValueError, match=r"x_times must have shape \(21,\)"):
        dalign.DecDTW()(x, y, x_times=torch.rand(20))
    with pytest.raises(ValueError, match=r"phi must not fall, got 0.9 and then 0.1 in item 0 at knot 0"):
        dalign.DecDTW().path(torch.tensor([[0.9, 0.1]]), 10)
    with pytest.raises(ValueError, match=r"phi must have shape \(B, N\), got \(4,\)"):
        dalign.DecDTW().path(torch.rand(4), 10)
    layer = dalign.DecDTW()
    with pytest.raises(TypeError, match="reg_weight must be a number"):
        layer.reg_weight = "more"
