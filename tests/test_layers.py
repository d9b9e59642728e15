"""What a training script expects of modules: repr, moves, state, copies, compilation, mixed precision, DDP."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import torch_dalign as dalign


def batch(n: int = 12, m: int = 9, items: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(items, n, 4), torch.randn(items, m, 4)


# ---------------------------------------------------------------- the module as an object


def test_repr_tells_gamma_metric_and_what_is_not_default():
    assert repr(dalign.SoftDTW()) == "SoftDTW(gamma=1, metric='sqeuclidean')"
    loss = dalign.SoftDTW(0.1, "cosine", band=3, divergence=True, step_weights=(1.0, 1.0, 2.0), reduction="sum")
    assert repr(loss) == (
        "SoftDTW(gamma=0.1, metric='cosine', band=3, step_weights=(1.0, 1.0, 2.0), divergence=True, reduction='sum')"
    )
    assert repr(dalign.SoftDTW(metric=torch.cdist)) == "SoftDTW(gamma=1, metric=cdist)"
    assert repr(dalign.SoftDTW(nn.Parameter(torch.tensor(0.5)))) == "SoftDTW(gamma=0.5 (learned), metric='sqeuclidean')"


def test_state_dict_is_empty_and_loads():
    loss = dalign.SoftDTW(0.3)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    dalign.SoftDTW(0.1).load_state_dict(loss.state_dict())


@pytest.mark.parametrize(
    "move", [lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.to("meta"), lambda m: m.to("cpu").train()]
)
def test_moves_and_casts_leave_gamma_on_the_cpu_in_float64(move):
    loss = move(nn.Sequential(dalign.SoftDTW(0.3)))[0]
    assert (loss.gamma.dtype, loss.gamma.device.type, loss.gamma.item()) == (torch.float64, "cpu", 0.3)


def test_gamma_survives_construction_on_another_default_device():
    with torch.device("meta"):
        loss = dalign.SoftDTW(0.3)
    assert loss.gamma.item() == 0.3


def test_copies_and_pickles_are_independent_and_equal():
    x, y = batch()
    loss = dalign.SoftDTW(0.3, "euclidean", band=4)
    stored = io.BytesIO()
    torch.save(loss, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(stored, weights_only=False)):
        assert torch.equal(twin(x, y), loss(x, y))
        twin.gamma = 1.0
        assert loss.gamma.item() == 0.3


def test_gamma_may_be_assigned_and_pending_graphs_keep_theirs():
    x, y = batch()
    x.requires_grad_()
    loss = dalign.SoftDTW(1.0)
    pending = loss(x, y)
    loss.gamma = 0.01
    assert torch.equal(loss(x, y), dalign.SoftDTW(0.01)(x, y))
    (grad,) = torch.autograd.grad(pending, x)
    (expected,) = torch.autograd.grad(dalign.SoftDTW(1.0)(x, y), x)
    assert torch.equal(grad, expected)
    loss.gamma = torch.tensor(0.5)
    assert loss.gamma.item() == 0.5
    assert not loss.gamma.requires_grad


def test_gamma_learns_as_parameter_and_as_function_of_one():
    x, y = batch()
    direct = dalign.SoftDTW(nn.Parameter(torch.tensor(1.0)))
    assert list(direct.state_dict()) == ["gamma"]
    optimizer = torch.optim.SGD(direct.parameters(), lr=0.01)
    before = direct(x, y)
    (-before).backward()
    optimizer.step()
    assert direct.gamma.item() != 1.0
    logarithm = torch.zeros((), requires_grad=True)
    dalign.SoftDTW(logarithm.exp())(x, y).backward()
    torch.testing.assert_close(logarithm.grad, -direct.gamma.grad)
    direct.gamma = 0.5
    assert list(direct.parameters()) == []


# ---------------------------------------------------------------- autocast, checkpointing


def test_autocast_computes_in_float32():
    x, y = batch()
    net = nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        features = net(x)
        value = dalign.SoftDTW(0.5)(features, y)
        sharp = dalign.SoftDTW(0.5, divergence="sharp")(features, y)
    assert features.dtype == torch.bfloat16
    assert value.dtype == sharp.dtype == torch.float32
    assert torch.equal(value, dalign.SoftDTW(0.5)(features.float(), y))
    (value + sharp).backward()
    assert net.weight.grad.isfinite().all()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant):
    x, y = batch()
    x.requires_grad_()
    loss = dalign.SoftDTW(0.5, "euclidean")
    (expected,) = torch.autograd.grad(loss(x, y), x)
    checkpoint(loss, x, y, use_reentrant=use_reentrant).backward()
    assert torch.equal(x.grad, expected)


def test_backward_twice_with_retain_graph_and_accumulation():
    x, y = batch()
    x.requires_grad_()
    value = dalign.SoftDTW(0.5)(x, y)
    value.backward(retain_graph=True)
    once = x.grad.clone()
    value.backward()
    assert torch.equal(x.grad, 2 * once)


# ---------------------------------------------------------------- torch.compile


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compile_and_compare(loss: nn.Module, shapes: list[tuple[int, int, int]], gammas: list[float], **options) -> None:
    """The compiled step gives the eager step's value and gradient, without a second compilation."""
    net = nn.Linear(4, 4)

    def step(x, y, x_lengths, y_lengths):
        return loss(net(x).sigmoid(), y, x_lengths, y_lengths)

    compiled = torch.compile(step, fullgraph=True, **options)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for (items, n, m), gamma in zip(shapes, gammas, strict=True):
            loss.gamma = gamma
            x, y = batch(n, m, items)
            args = (x, y.sigmoid(), torch.randint(1, n + 1, (items,)), torch.randint(1, m + 1, (items,)))
            value, expected = compiled(*args), step(*args)
            torch.testing.assert_close(value, expected)
            (grad,), (expected_grad,) = (torch.autograd.grad(v, net.weight) for v in (value, expected))
            torch.testing.assert_close(grad, expected_grad)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_features_with_changing_gamma(backend, dynamic):
    shapes = [(3, 12, 9), (2, 7, 11), (4, 30, 26)] if dynamic else [(3, 12, 9)] * 3
    compile_and_compare(dalign.SoftDTW(), shapes, [1.0, 0.1, 0.37], backend=backend, dynamic=dynamic)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    "options",
    [
        {"metric": "bce", "band": 5, "step_weights": (0.1, 1.0, float("inf"))},
        {"metric": lambda x, y: torch.cdist(x, y)},
        {"divergence": True},
        {"divergence": "sharp"},
        {"divergence": "mean_cost"},
    ],
    ids=["bce", "callable", "divergence", "sharp", "mean_cost"],
)
def test_compile_options(options):
    compile_and_compare(dalign.SoftDTW(**options), [(3, 12, 9)] * 2, [1.0, 0.1], backend="aot_eager")


@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_learned_gamma():
    x, y = batch()
    loss = dalign.SoftDTW(nn.Parameter(torch.tensor(0.5)))
    loss(x, y).backward()
    expected, loss.gamma.grad = loss.gamma.grad, None
    torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y).backward()
    torch.testing.assert_close(loss.gamma.grad, expected)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_alignment_and_functional():
    cost = torch.rand(2, 6, 5, requires_grad=True)

    def score(cost, gamma):
        align = dalign.functional.alignment(cost, gamma)
        return (align * align).sum() + dalign.functional.soft_dtw(cost, gamma, band=2).sum()

    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(score(cost, gamma), (cost, gamma))
    actual = torch.autograd.grad(torch.compile(score, fullgraph=True, backend="aot_eager")(cost, gamma), (cost, gamma))
    torch.testing.assert_close(actual, expected)


# ---------------------------------------------------------------- data parallelism

DDP_SCRIPT = """
    import sys
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    import torch_dalign as dalign

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.loss = nn.Linear(4, 4), dalign.SoftDTW(nn.Parameter(torch.tensor(0.5)))
            self.other = dalign.SoftDTW(0.25)

        def forward(self, x, y):
            return self.loss(self.net(x), y) + self.other(self.net(x), y)

    torch.manual_seed(0)
    model, x, y = Model(), torch.randn(4, 9, 4), torch.randn(4, 7, 4)
    model(x, y).backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    parallel = DistributedDataParallel(model)
    parallel(x[2 * rank : 2 * rank + 2], y[2 * rank : 2 * rank + 2]).backward()
    for p, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad, expected)
    assert model.other.gamma.dtype == torch.float64 and model.other.gamma.item() == 0.25
    sys.stdout.write(f"rank {rank} agrees\\n")  # one write: print's pieces mix with those of the other rank
    dist.destroy_process_group()
"""


def test_distributed_data_parallel_gives_the_gradient_of_the_whole_batch(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(DDP_SCRIPT))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "rank 0 agrees" in done.stdout
    assert "rank 1 agrees" in done.stdout
