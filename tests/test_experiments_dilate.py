"""Forecasts of shape and time: what is forecast, the networks and their training, tables, and a whole small run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")
from experiments.data import ucr
from experiments.data.ucr import DataError
from experiments.dilate import __main__ as command
from experiments.dilate import data, evaluation, paper, plots, tables, training
from experiments.dilate.networks import MLP, NETWORKS, Seq2Seq
from experiments.dilate.settings import ALPHAS, SCALES, SWEEP, Scale, Settings, parse
from experiments.softdtw.store import read

SMALL = Scale(n_seeds=2, sweep_seeds=1, most=20, hidden={"mlp": 8, "gru": 4}, epochs=2, patience=5, batch_size=20)


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads are no faster for networks as small as these, and much slower where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few(monkeypatch):
    """Less synthetic series."""
    monkeypatch.setattr(data, "N_SYNTHETIC", 40)


def settings(folder, **others):
    chosen = {"data": ("synthetic",), "seeds": (0, 1), "sweep": (0.0, 0.5), "threads": 1, **others}
    return Settings(scale_name="tiny", scale=SMALL, out=folder / "out", **chosen)


# ---------------------------------------------------------------- synthetic series


def steps(n=4000, seed=0):
    return data.step_series(n, np.random.default_rng(seed))


def test_same_seed_same_series():
    np.testing.assert_array_equal(steps(50).series, steps(50).series)
    assert not np.array_equal(steps(50).series, steps(50, seed=1).series)


def test_peaks_and_steps_are_where_they_should_be():
    made = steps()
    first, second = made.places.T
    assert set(first) == set(range(1, 11))
    assert set(second) == set(range(10, 19))
    assert set(made.onsets - second - (second - first)) == set(range(-3, 4))
    assert made.heights.min() >= 0
    assert made.heights.max() < 1


def test_series_are_peaks_step_and_noise():
    made = steps(200)
    for series, places, heights, onset in zip(*made, strict=True):
        clean = np.zeros(40)
        clean[onset:] = heights[1] - heights[0]
        for place, height in zip(places, heights, strict=True):
            clean[place] += height
        noise = series - clean
        assert noise.min() >= 0
        assert noise.max() <= 0.01
    noise = steps(4000).series[:, 0]  # before peaks and steps
    assert noise.mean() == pytest.approx(0.005, abs=3e-4)
    assert noise.std() == pytest.approx(0.01 / 12**0.5, rel=0.05)


def test_parts_of_the_synthetic_task():
    task = data.synthetic(30)
    assert [tuple(part.seen.shape) for part in (task.train, task.validation, task.test)] == [(30, 20, 1)] * 3
    assert (task.n_seen, task.n_future) == (20, 20)
    whole = torch.cat([torch.cat(part, dim=1) for part in (task.train, task.validation, task.test)])[..., 0]
    made = data.step_series(90, np.random.default_rng(0)).series
    np.testing.assert_allclose(whole.numpy(), made, rtol=0, atol=1e-6)


def test_no_forecast_of_many_series_is_better_than_the_least_error():
    """The conditional mean by counting: of series with the same peaks, how many have stepped by each frame."""
    made = steps(50_000)
    frames = np.arange(20, 40)
    stepped = made.onsets[:, None] <= frames
    group = made.places[:, 0] * 100 + made.places[:, 1] + 10_000 * (made.onsets < 20)
    forecast = np.empty(stepped.shape)
    for name in np.unique(group):
        forecast[group == name] = stepped[group == name].mean(axis=0)
    rise = (made.heights[:, 1] - made.heights[:, 0])[:, None]
    # What has been seen to step has stepped in all its frames: its forecast is exact.
    errors = ((stepped - forecast) * rise) ** 2
    assert errors.mean() == pytest.approx(data.least_squared_error(), rel=0.03)


# ---------------------------------------------------------------- other series


def archive(n_train, n_test, length=10):
    rng = np.random.default_rng(0)
    series = [torch.from_numpy(rng.standard_normal((length, 1))) for _ in range(n_train + n_test)]
    parts = [ucr.Split(part, np.zeros(len(part), int)) for part in (series[:n_train], series[n_train:])]
    return ucr.Dataset("Set", *parts)


def rows(part):
    return {tuple(row) for row in torch.cat(part, dim=1)[..., 0].tolist()}


def test_a_large_set_keeps_its_test_part():
    dataset = archive(200, 30)
    task = data.split_archive(dataset)
    assert [len(part.seen) for part in (task.train, task.validation, task.test)] == [160, 40, 30]
    assert rows(task.test) == {tuple(one[:, 0].float().tolist()) for one in dataset.test.series}
    assert len(rows(task.train) | rows(task.validation)) == 200
    assert task.n_seen == 6


def test_a_small_set_is_mixed():
    dataset = archive(10, 90)
    task = data.split_archive(dataset)
    assert [len(part.seen) for part in (task.train, task.validation, task.test)] == [60, 20, 20]
    assert len(rows(task.train) | rows(task.validation) | rows(task.test)) == 100
    again = data.split_archive(dataset)
    assert rows(again.train) == rows(task.train)


def test_sets_that_cannot_be_forecast():
    dataset = archive(10, 10)
    dataset.test.series[0] = dataset.test.series[0][:-1]
    with pytest.raises(DataError, match="one length"):
        data.split_archive(dataset)


def test_windows_stay_within_their_part():
    series = np.stack([np.arange(50.0), 100 + np.arange(50.0)])
    train, validation, test = data.windows(series, 4, 2)
    assert train.seen.shape == (2 * 25, 4, 1)
    assert train.future.shape == (2 * 25, 2, 1)
    assert train.seen[1, :, 0].tolist() == [1, 2, 3, 4]
    assert train.future[1, :, 0].tolist() == [5, 6]
    for part, (low, high) in zip((train, validation, test), ((0, 30), (30, 40), (40, 50)), strict=True):
        times = torch.cat(part, dim=1) % 100
        assert times.min() == low
        assert times.max() == high - 1
    with pytest.raises(DataError, match="too few"):
        data.windows(series[:, :20], 4, 2)


def test_normalised_by_what_is_trained_on_alone():
    def task(far):
        parts = [data.Part(torch.arange(8.0).view(2, 4, 1) + shift, torch.ones(2, 2, 1)) for shift in (0, far, far)]
        return data.Task("any", *parts).normalised()

    one, other = task(10), task(1000)
    values = torch.cat([one.train.seen.flatten(), one.train.future.flatten()])
    assert values.mean().item() == pytest.approx(0, abs=1e-6)
    assert values.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(one.train.seen, other.train.seen)
    assert other.test.seen.mean() > one.test.seen.mean() > one.train.seen.mean()
    constant = data.Part(torch.ones(2, 4, 1), torch.ones(2, 2, 1))
    with pytest.raises(DataError, match="equal"):
        data.Task("flat", constant, constant, constant).normalised()


def test_thinned_parts_keep_both_ends():
    part = data.Part(torch.arange(10.0).view(10, 1, 1), torch.arange(10.0).view(10, 1, 1))
    assert part.thinned(4).seen.flatten().tolist() == [0, 3, 6, 9]
    assert part.thinned(None) is part


def weather_file(folder, days=250):
    values = np.random.default_rng(0).normal(10, 5, (3, 2, days)).astype(np.float32)
    values[1, 1, 5] = np.nan
    np.savez(folder / "weather35_daily.npz", values=values, variables=np.array(["RR", "TM"]))
    return values


def test_weather(tmp_path):
    weather_file(tmp_path)
    for path in (tmp_path, tmp_path / "weather35_daily.npz"):
        task = data.load("weather", 30, (), path)
        assert (task.n_seen, task.n_future) == (28, 14)
        assert len(task.train.seen) == 30
        assert torch.cat([task.train.seen.flatten(), task.test.future.flatten()]).isfinite().all()
    for path in (None, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="--weather"):
            data.load("weather", 30, (), path)


@pytest.mark.parametrize("name", ["ItalyPowerDemand", "pulse"])
def test_sets_inside_aeon(name):
    if importlib.util.find_spec("aeon") is None:  # found, not imported: only its files are read
        pytest.skip("the package aeon is not installed")
    task = data.load(name, None, (ucr.AEON,), None)
    assert (task.n_seen, task.n_future) == {"ItalyPowerDemand": (14, 10), "pulse": (40, 20)}[name]
    assert min(len(part.seen) for part in (task.train, task.validation, task.test)) > 100


# ---------------------------------------------------------------- networks, losses, measures


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_networks(name):
    network = NETWORKS[name](7, 5, 8)
    assert network(torch.randn(3, 7, 1)).shape == (3, 5, 1)


def test_the_decoder_is_fed_with_its_own_values():
    torch.manual_seed(0)
    long, short = Seq2Seq(7, 5, 4), Seq2Seq(7, 3, 4)
    short.load_state_dict(long.state_dict())
    seen = torch.randn(2, 7, 1)
    torch.testing.assert_close(long(seen)[:, :3], short(seen))
    state = long.encoder(seen)[1][0]
    first = long.output(long.decoder(seen[:, -1], state))
    second = long.output(long.decoder(first, long.decoder(seen[:, -1], state)))
    torch.testing.assert_close(long(seen)[:, 1], second)


def test_losses():
    forecast, future = torch.randn(4, 6, 1), torch.randn(4, 6, 1)
    found = {name: training.make_loss(name, 1.0)(forecast, future) for name in training.LOSSES}
    torch.testing.assert_close(found["mse"], (forecast - future).square().mean())
    torch.testing.assert_close(found["dilate"], found["softdtw"])  # alpha 1: the shape alone
    assert training.make_loss("dilate", 0.3).alpha == 0.3


def test_measures():
    early, truth = torch.tensor([[[0.0], [1.0], [3.0], [3.0]]]), torch.tensor([[[0.0], [0.0], [1.0], [3.0]]])
    found = evaluation.judge(early, truth)  # the path (0,0) (0,1) (1,2) (2,3) (3,3)
    assert found == {"mse": 1.25, "dtw": 0.0, "tdi": pytest.approx(3 / 16)}
    step = torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])
    assert evaluation.judge(step + 2, step) == {"mse": 4.0, "dtw": pytest.approx(4.0), "tdi": 0.0}
    both = evaluation.judge(torch.cat([early, step + 2]), torch.cat([truth, step]))
    assert both == {"mse": 2.625, "dtw": pytest.approx(2.0), "tdi": pytest.approx(3 / 32)}


def test_last_value_and_the_series_shown():
    part = data.Part(torch.arange(10.0).view(5, 2, 1), torch.zeros(5, 3, 1))
    assert evaluation.last_value(part)[:, :, 0].tolist() == [[k] * 3 for k in (1, 3, 5, 7, 9)]
    for index, size in enumerate((3, 1, 5, 2, 4)):
        part.future[index, 1] = size
    assert evaluation.shown(part) == 4


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", training.LOSSES)
def test_training_lowers_the_loss_and_keeps_the_best(network, loss):
    task, chosen = data.synthetic(60), dataclasses.replace(SMALL, epochs=12, learning_rate=0.01)
    function = training.make_loss(loss, 0.5)
    result = training.train(task, network, function, 0, chosen)
    assert result.train_losses[-1] < result.train_losses[0]
    assert result.validation_losses[result.best - 1] == min(result.validation_losses)
    assert training.evaluate(result.network, function, task.validation) == min(result.validation_losses)


def test_training_ends_without_progress():
    task = data.synthetic(20)
    chosen = dataclasses.replace(SMALL, epochs=50, patience=3, learning_rate=10.0)  # nothing gets better at this rate
    result = training.train(task, "mlp", training.make_loss("mse", 0.5), 0, chosen)
    assert len(result.validation_losses) == result.best + 3


def test_training_is_reproducible_and_losses_share_their_start():
    task, first_steps = data.synthetic(20), dataclasses.replace(SMALL, learning_rate=0.0)
    mse, soft = (training.make_loss(name, 0.5) for name in ("mse", "softdtw"))
    weights = [training.train(task, "gru", loss, 3, first_steps).network.state_dict() for loss in (mse, soft)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
    again = [training.train(task, "gru", mse, 3, SMALL).train_losses for _ in range(2)]
    assert again[0] == again[1]
    assert training.train(task, "gru", mse, 4, SMALL).train_losses != again[0]


def test_a_loss_that_is_no_number_is_an_error():
    with pytest.raises(RuntimeError, match="smaller learning rate"):
        training.train(data.synthetic(20), "mlp", lambda x, y: (x - y).sum() * float("nan"), 0, SMALL)


# ---------------------------------------------------------------- tables


def test_best_are_all_that_a_test_does_not_tell_apart():
    found = {"a": [1.0, 1.1, 0.9], "b": [1.05, 1.2, 0.9], "c": [2.0, 2.1, 1.9]}
    assert tables.best(found) == {"a", "b"}
    assert tables.best({"a": [1.0], "b": [1.1]}) == {"a"}
    assert tables.best({"a": [1.0, 1.0], "b": [1.1, 1.1]}) == {"a"}


def test_figures_of_the_paper_have_the_form_of_ours():
    for networks in paper.TABLE.values():
        assert set(networks) == set(NETWORKS)
        for measures in networks.values():
            assert tuple(measures) == evaluation.MEASURES
            for figures in measures.values():
                assert tuple(figures) == training.LOSSES
                for figure in figures.values():
                    mean, deviation = map(float, figure.split(" ± "))
                    assert 0 < deviation < mean


def content(**methods):
    """Results on the synthetic series: by method, the MSE of each seed; twice as much DTW, three times as much TDI."""
    entries = {
        f"{network} {name} {seed}": {"mse": mse, "dtw": 2 * mse, "tdi": 3 * mse, "seconds": 1.0, "epochs": 3}
        for name, found in methods.items()
        for network in NETWORKS
        for seed, mse in enumerate(found)
    }
    facts = {"sizes": [3, 2, 1], "n_seen": 3, "n_future": 2, "last_value": {"mse": 1.0, "dtw": 1.0, "tdi": 0.0}}
    facts |= {"seen": [0.0, 1.0, 0.0], "future": [1.0, 1.0]}
    return {
        "settings": Settings().as_dict(),
        "machine": {"cpu": "any", "dalign": {"threads": 1}, "packages": {}, "load_before": [0.0]},
        "entries": {"tasks": {"synthetic": facts}, "synthetic": entries},
    }


def test_report():
    text = tables.markdown(content(mse=[0.01, 0.011], softdtw=[0.02, 0.021], **{"dilate 0.5": [0.0101, 0.0112]}))
    row = next(line for line in text.splitlines() if line.startswith("| MSE x 100"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[:3] == ["**1.05 ± 0.07** (1.65 ± 0.14)", "2.05 ± 0.07 (4.82 ± 0.40)", "**1.06 ± 0.08** (1.67 ± 0.184)"]
    assert cells[-1] == "100"
    assert "DILATE's alpha" not in text
    swept = tables.markdown(content(**{"dilate 0.5": [0.01, 0.012], "dilate 0": [0.3]}))
    assert "1 seed, but 2 seeds for the alpha" in swept
    assert "| 0 | 30.0 | 60.0 | 9.00 |" in swept
    assert "| 0.5 | 1.10 ± 0.14 |" in swept


def test_pictures_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    few = content(mse=[0.01], **{"dilate 0.5": [0.01]})
    few["entries"]["synthetic"]["gru mse 0"]["forecast"] = [0.5, 0.6]
    assert [path.name for path in plots.draw(few, tmp_path)] == ["forecasts.png"]
    both = content(**{"dilate 0.5": [0.01, 0.012], "dilate 0": [0.3]})
    assert [path.name for path in plots.draw(both, tmp_path)] == ["forecasts.png", "alpha.png"]


# ---------------------------------------------------------------- whole runs


def test_a_whole_run_and_its_continuation(tmp_path, monkeypatch, few):
    pytest.importorskip("matplotlib")
    chosen = settings(tmp_path)
    store = command.run(chosen)
    assert {path.name for path in chosen.out.iterdir()} == {"results.json", "results.md", "forecasts.png", "alpha.png"}
    names = {f"{net} {loss} {seed}" for net in NETWORKS for loss in ("mse", "softdtw", "dilate 0.5") for seed in (0, 1)}
    assert set(store.content["entries"]["synthetic"]) == names | {"mlp dilate 0 0", "gru dilate 0 0"}
    text = (chosen.out / "results.md").read_text()
    assert read(store.path) == json.loads(json.dumps(store.content))
    assert tables.markdown(read(store.path)) == text
    for part in ("scale tiny", "2 seeds", "(1.10 ± 0.17)", "DILATE's alpha", "40 / 40 / 40"):
        assert part in text

    def fail(*_):
        raise AssertionError("done already")

    monkeypatch.setattr(command, "measure", fail)
    assert command.run(chosen).content["entries"] == store.content["entries"]
    more = dataclasses.replace(chosen, seeds=(0, 1, 2))
    with pytest.raises(AssertionError, match="done already"):
        command.run(more)
    with pytest.raises(ValueError, match="made with other settings"):
        command.run(dataclasses.replace(chosen, scale=dataclasses.replace(SMALL, epochs=3)))


def test_a_run_that_is_stopped_keeps_what_is_done(tmp_path, monkeypatch, few):
    chosen, measure, done = settings(tmp_path, networks=("mlp",)), command.measure, []

    def two_only(job, task, asked):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.key)
        return measure(job, task, asked)

    monkeypatch.setattr(command, "measure", two_only)
    with pytest.raises(KeyboardInterrupt):
        command.run(chosen)
    assert list(read(chosen.out / "results.json")["entries"]["synthetic"]) == done == ["mlp mse 0", "mlp softdtw 0"]


def test_numbers_do_not_depend_on_what_ran_before(few, tmp_path):
    chosen = settings(tmp_path)
    (task,) = command.load(chosen)
    jobs = list(chosen.jobs(["synthetic"]))[:2]
    forth = [command.measure(job, task, chosen) for job in jobs]
    back = [command.measure(job, task, chosen) for job in jobs[::-1]][::-1]
    assert [{**one, "seconds": 0} for one in forth] == [{**one, "seconds": 0} for one in back]


def test_sources_that_are_missing(tmp_path, few, capsys):
    found = command.load(settings(tmp_path, data=None, sources=(), weather=None))
    assert "synthetic" in [task.name for task in found]
    assert "weather" not in [task.name for task in found]
    assert "left out: data: ECG5000" in capsys.readouterr().out
    with pytest.raises(DataError, match="ECG5000"):
        command.load(settings(tmp_path, data=("ECG5000",), sources=()))


def test_order_of_the_jobs():
    chosen = Settings(scale=SMALL, seeds=(0, 1), networks=("mlp",), losses=("mse", "dilate"), sweep=(0.0, 0.5))
    names = [f"{job.data} {job.key}" for job in chosen.jobs(["synthetic", "weather"])]
    assert names[:3] == ["synthetic mlp mse 0", "synthetic mlp dilate 0.5 0", "synthetic mlp mse 1"]
    assert names[4] == "weather mlp mse 0"
    assert names[-1] == "synthetic mlp dilate 0 0"
    assert len(names) == len(set(names)) == 9


def test_command_line(tmp_path):
    asked = ["--scale", "paper", "--data", "weather", "synthetic", "--methods", "dilate", "mse", "--networks", "gru"]
    chosen = parse([*asked, "--seeds", "7", "--no-sweep", "--weather", str(tmp_path), "--threads", "2"])
    assert chosen.data == ("synthetic", "weather")
    assert (chosen.losses, chosen.networks) == (("mse", "dilate"), ("gru",))
    assert (chosen.scale, chosen.seeds, chosen.sweep) == (SCALES["paper"], (7,), ())
    assert (chosen.weather, chosen.threads) == (tmp_path, 2)
    assert parse([]).sources[0] == ucr.AEON
    assert parse([]).seeds == (0, 1, 2, 3, 4)
    assert parse(["--scale", "paper"]).seeds == tuple(range(10))
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])
    assert set(ALPHAS) == set(data.DATA)
    assert ALPHAS["synthetic"] in SWEEP


def test_size_of_the_paper_networks():
    units = SCALES["paper"].hidden
    assert units == {"mlp": 128, "gru": 128}
    assert sum(p.numel() for p in MLP(20, 20, 128).parameters()) == 21 * 128 + 129 * 20
