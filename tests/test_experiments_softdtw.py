"""Data sets in every layout, the numbers behind the soft-DTW paper's tables, and a whole small run."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("tqdm")
from experiments.data import ucr
from experiments.softdtw import __main__ as command
from experiments.softdtw import barycenters, kmeans, neighbors, paper, plots, prediction, tables
from experiments.softdtw.settings import GAMMAS, SCALES, STARTS, Settings, parse
from experiments.softdtw.store import Store, read

LENGTH = 12


def bumps(n, seed, length=LENGTH):
    """Series of two classes, which differ in the sign of a bump whose place varies, and their labels -1 and 1."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(n) % 2, 1, -1)
    places = rng.uniform(0.3, 0.7, n)[:, None]
    time = np.linspace(0, 1, length)
    return labels[:, None] * np.exp(-(((time - places) / 0.1) ** 2)) + 0.05 * rng.standard_normal((n, length)), labels


PARTS = {"TRAIN": bumps(8, 0), "TEST": bumps(6, 1)}


def write_table(folder, suffix, separator):
    for part, (X, y) in PARTS.items():
        lines = [separator.join(map(repr, map(float, (label, *row)))) for row, label in zip(X, y, strict=True)]
        (folder / f"Bumps_{part}{suffix}").write_text("\n".join(lines) + "\n")


def write_ts(folder):
    for part, (X, y) in PARTS.items():
        rows = [",".join(map(repr, map(float, row))) + f":{label}" for row, label in zip(X, y, strict=True)]
        header = [
            "# made here",
            "% made here",
            "@problemName Bumps",
            "@timeStamps false",
            "@classLabel true -1 1",
            "@data",
        ]
        (folder / f"Bumps_{part}.ts").write_text("\n".join([*header, *rows]))


def write_npz(folder):
    (X_train, y_train), (X_test, y_test) = PARTS.values()
    np.savez(folder / "Bumps.npz", X_train=X_train, y_train=y_train, X_test=X_test, y_test=y_test)


LAYOUTS = {
    "ts": write_ts,
    "tsv": lambda folder: write_table(folder, ".tsv", "\t"),
    "txt with spaces": lambda folder: write_table(folder, ".txt", "  "),
    "txt with commas": lambda folder: write_table(folder, ".txt", ","),
    "no suffix": lambda folder: write_table(folder, "", ","),
    "npz": write_npz,
}


@pytest.fixture
def bumps_set(tmp_path):
    write_npz(tmp_path)
    return ucr.load(ucr.find(tmp_path)["Bumps"])


def load_only(folder):
    (files,) = ucr.find(folder).values()
    return ucr.load(files)


# ---------------------------------------------------------------- data


PLACES = [(layout, place) for layout in LAYOUTS for place in (".", "Bumps") if (layout, place) != ("npz", "Bumps")]


@pytest.mark.parametrize(("layout", "place"), PLACES)
def test_every_layout_gives_the_same_set(layout, place, tmp_path):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    LAYOUTS[layout](folder)
    dataset = load_only(tmp_path)
    assert (dataset.name, dataset.n_classes, dataset.n_dims) == ("Bumps", 2, 1)
    for split, (X, y) in zip((dataset.train, dataset.test), PARTS.values(), strict=True):
        expected = (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)
        np.testing.assert_allclose(torch.stack(split.series)[..., 0], expected, atol=1e-12)
        np.testing.assert_array_equal(split.labels, (y + 1) // 2)


@pytest.mark.parametrize(
    ("suffix", "line"),
    [(".tsv", "1\t{}\tNaN\t{}\t{}\tNaN\tNaN"), (".txt", "1,{},,{},{},,"), (".ts", "@data\n{},?,{},{}:1")],
)
def test_values_that_are_missing(suffix, line, tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Gaps_{part}{suffix}").write_text(line.format(1, 3, 8))
    (series,) = load_only(tmp_path).train.series
    np.testing.assert_allclose(series.numpy(), ucr.normalise(np.array([[1.0], [2.0], [3.0], [8.0]])))


def test_series_of_different_length_and_dimension(tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Two_{part}.ts").write_text("@data\n1,2,3:5,5,5:a\n1,2:4,3:b\n")
    dataset = load_only(tmp_path)
    assert dataset.n_dims == 2
    assert dataset.lengths == [3, 2, 3, 2]
    first = dataset.train.series[0].numpy()
    np.testing.assert_allclose(first, [[-math.sqrt(1.5), 0], [0, 0], [math.sqrt(1.5), 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Bad_TRAIN.tsv", "1\tx\t2", "Bad_TRAIN.tsv, line 1: could not convert"),
        ("Bad_TRAIN.tsv", "1", "line 1: no values"),
        ("Bad_TRAIN.tsv", "1\tNaN\tNaN", "Bad: a series without any value"),
        ("Bad_TRAIN.tsv", "", "no series"),
        ("Bad_TRAIN.ts", "1,2:1", "values before @data"),
        ("Bad_TRAIN.ts", "@timeStamps true\n@data", "time stamps are not supported"),
        ("Bad_TRAIN.ts", "@data\n1,2:1,2:a\n1,2:b", "different numbers of dimensions"),
    ],
)
def test_malformed_files_are_named(name, text, message, tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / name.replace("TRAIN", part)).write_text(text)
    with pytest.raises(ucr.DataError, match=message):
        load_only(tmp_path)


def test_npz_with_wrong_arrays(tmp_path):
    np.savez(tmp_path / "Bad.npz", X_train=np.ones((2, 3)), y_train=np.ones(2))
    with pytest.raises(ucr.DataError, match="lacks X_test, y_test"):
        load_only(tmp_path)
    np.savez(tmp_path / "Bad.npz", X_train=np.ones((2, 3)), y_train=np.ones(3), X_test=np.ones(2), y_test=np.ones(2))
    with pytest.raises(ucr.DataError, match=r"got \(2, 3\) and \(3,\)"):
        load_only(tmp_path)


def test_no_folder_no_sets_no_package(tmp_path, monkeypatch):
    with pytest.raises(ucr.DataError, match="no folder"):
        ucr.find(tmp_path / "nowhere")
    with pytest.raises(ucr.DataError, match="no sets"):
        ucr.find(tmp_path)
    monkeypatch.setattr(ucr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ucr.DataError, match="pip install --no-deps aeon"):
        ucr.find("aeon")


def test_aeon_is_found_but_not_imported(tmp_path, monkeypatch):
    folder = tmp_path / "aeon" / "datasets" / "data" / "GunPoint"
    folder.mkdir(parents=True)
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("GunPoint_TRAIN.ts", "GunPoint_TEST.ts", "Other_TRAIN.ts", "Other_TEST.ts"):
        (folder / name).write_text("@data\n1,2:1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(ucr.find("aeon")) == ["GunPoint"]
    assert "aeon" not in sys.modules


def test_shortened_keeps_the_proportions_of_lengths():
    split = ucr.Split([torch.rand(20, 1), torch.rand(10, 1)], np.array([0, 1]))
    dataset = ucr.Dataset("Any", split, split)
    assert dataset.shortened(None) is dataset
    assert dataset.shortened(20) is dataset
    assert dataset.shortened(8).lengths == [8, 4, 8, 4]


def test_constant_series_become_zero_and_resampling_keeps_the_ends():
    np.testing.assert_array_equal(ucr.normalise(np.full((4, 1), 0.1)), np.zeros((4, 1)))
    series = torch.rand(7, 2, dtype=torch.float64)
    shorter = ucr.resample(series, 4)
    torch.testing.assert_close(shorter[[0, -1]], series[[0, -1]])
    torch.testing.assert_close(shorter[1], series[2])


# ---------------------------------------------------------------- experiments

TINY = dataclasses.replace(
    SCALES["small"], draws=2, n_series=3, iterations=5, kmeans_rounds=2, kmeans_iterations=3, hidden_units=4, updates=20
)


def settings(folder, **changes):
    return Settings(scale_name="tiny", scale=TINY, sources=(str(folder),), out=folder / "out", **changes)


def test_barycenters_draw_series_of_one_class():
    split = ucr.Split([torch.full((1, 1), float(k)) for k in range(20)], np.arange(20) % 2)
    drawn = barycenters.draw(split, 7, np.random.default_rng(0))
    values = {int(one) for one in drawn}
    assert len(values) == 7
    assert len({value % 2 for value in values}) == 1
    assert len(barycenters.draw(split, 99, np.random.default_rng(0))) == 10


def test_barycenter_loss_counts_every_series_per_frame():
    average = torch.zeros(3, 1, dtype=torch.float64)
    series = [torch.ones(3, 1, dtype=torch.float64), torch.full((6, 1), 2.0, dtype=torch.float64)]
    # three cells of cost 1 over three frames, six of cost 4 over six
    assert barycenters.dtw_loss(average, series) == pytest.approx((1 + 4) / 2)


def test_every_method_lowers_the_loss_of_its_start(bumps_set):
    rng = np.random.default_rng(0)
    series = barycenters.draw(bumps_set.everything, 5, rng)
    for first in barycenters.make_starts(series, rng).values():
        before = barycenters.dtw_loss(first, series)
        for method in barycenters.METHODS:
            average = barycenters.barycenter(series, first, method, iterations=30)
            if method != "softdtw 1":  # smooths so much that its minimum is elsewhere
                assert barycenters.dtw_loss(average, series) < before, method


def test_kmeans_starts_are_series_and_euclidean_centres(bumps_set):
    pytest.importorskip("sklearn")
    series = bumps_set.train.series
    starts = kmeans.make_starts(series, 2, np.random.default_rng(0))
    assert all(any(torch.equal(first, one) for one in series) for first in starts["random"])
    assert starts["euclidean"].shape == (2, LENGTH, 1)
    assert kmeans.dtw_loss(list(torch.stack(series)), series) == 0.0
    assert len(kmeans.draw(series, 3, np.random.default_rng(0))) == 3
    assert kmeans.draw(series, None, np.random.default_rng(0)) is series


def test_kmeans_methods_find_three_groups(tmp_path):
    levels = torch.arange(9, dtype=torch.float64) % 3
    series = [4 * level + 0.1 * torch.randn(6, 1, dtype=torch.float64) for level in levels]
    first = torch.stack([torch.full((6, 1), value, dtype=torch.float64) for value in (0.0, 5.0, 6.0)])
    chosen = dataclasses.replace(settings(tmp_path), scale=dataclasses.replace(TINY, kmeans_iterations=40))
    losses = {m: kmeans.dtw_loss(kmeans.centers(series, first, m, chosen), series) for m in barycenters.METHODS}
    assert kmeans.dtw_loss(list(first), series) > 5  # the last three are at 8
    assert max(losses.values()) < 0.5
    found = kmeans.centers(series, first, "dba", chosen)
    again = barycenters.barycenter(series[::3], found[0], "dba", iterations=1)
    torch.testing.assert_close(again, found[0])  # which an average of soft-DTW would not be


def test_kmeans_loss_is_that_of_the_nearest_centre():
    series = [torch.full((length, 1), value, dtype=torch.float64) for length, value in ((2, 0.0), (4, 3.0), (5, 10.0))]
    found = [torch.full((3, 1), value, dtype=torch.float64) for value in (1.0, 10.0)]
    # 0 to 1 over three cells, 3 to 1 over four, 10 to 10
    assert kmeans.dtw_loss(found, series) == pytest.approx(3 / 2 + 4 * 4 / 4 + 0)


def test_prediction_splits_in_time(bumps_set):
    seen, after = prediction.split_in_time(bumps_set.train.series, 10)
    assert (seen.shape, after.shape) == ((8, 6, 1), (8, 4, 1))
    seen, after = prediction.split_in_time(bumps_set.train.series, LENGTH)
    torch.testing.assert_close(torch.cat([seen, after], dim=1), torch.stack(bumps_set.train.series))


def test_prediction_losses_are_per_frame():
    x = torch.zeros(2, 4, 1, dtype=torch.float64)
    y = torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None].expand(2, 4, 1)
    expected = torch.tensor([1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(prediction.euclidean(x, y), expected)
    torch.testing.assert_close(prediction.dtw(x, y), expected)
    torch.testing.assert_close(prediction.soft_dtw(1e-3)(x, y), expected, rtol=0, atol=0.01)


def test_the_second_start_is_what_the_euclidean_loss_has_trained(bumps_set, tmp_path):
    data = prediction.split_in_time(bumps_set.train.series, LENGTH)
    chosen = settings(tmp_path)
    networks = prediction.train_all(data, chosen, "Bumps")
    solution = networks["random"]["euclidean"]
    assert networks["euclidean"]["euclidean"] is solution
    again = prediction.train(solution, data, prediction.soft_dtw(0.1), chosen)
    for name, parameter in networks["euclidean"]["softdtw 0.1"].named_parameters():
        torch.testing.assert_close(again.get_parameter(name), parameter, rtol=0, atol=0)


@pytest.mark.parametrize("name", prediction.training_losses())
def test_training_lowers_its_loss(name, bumps_set, tmp_path):
    data = prediction.split_in_time(bumps_set.train.series, LENGTH)
    loss = prediction.training_losses()[name]
    before = prediction.Network(data[0].shape[1], data[1].shape[1], 1, 4).double()
    after = prediction.train(before, data, loss, settings(tmp_path))
    assert prediction.evaluate(after, data, loss) < prediction.evaluate(before, data, loss)


def test_nearest_neighbours_see_through_shifts(bumps_set, tmp_path):
    found = neighbors.run(bumps_set, settings(tmp_path)).numbers
    assert found["dtw"] == 1.0
    assert all(0 <= found[name] <= 1 for name in neighbors.DISTANCES)
    ragged = ucr.Dataset("Ragged", bumps_set.train, ucr.Split([bumps_set.test.series[0][:-1]], np.array([0])))
    assert neighbors.run(ragged, settings(tmp_path)).numbers["euclidean"] is None


def test_accuracy_is_the_share_of_right_neighbours():
    distances = torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    assert neighbors.accuracy(distances, np.array([0, 1]), np.array([0, 0, 1])) == pytest.approx(1 / 3)


# ---------------------------------------------------------------- tables


def barycenter_entry(soft, dba):
    methods = {"dba": [dba, dba], "subgradient": [3.0, 5.0], **{f"softdtw {gamma:g}": soft for gamma in GAMMAS}}
    return {"losses": dict.fromkeys(STARTS, methods)}


def test_win_rate_compares_means_and_counts_no_ties():
    entries = {
        "won": barycenter_entry([1.0, 2.0], 1.6),
        "lost": barycenter_entry([1.0, 9.0], 4.9),
        "tied": barycenter_entry([2.0, 4.0], 3.0),
    }
    assert tables.win_rate(entries, "random", "dba", 0.1) == pytest.approx(100 / 3)
    assert tables.win_rate(entries, "random", "subgradient", 0.1) == pytest.approx(200 / 3)


def test_ranks_are_averaged_and_shared_by_ties():
    def entry(*losses):
        return {"dtw": {"random": dict(zip("abc", losses, strict=True))}}

    ranks = tables.average_ranks({"one": entry(1.0, 2.0, 3.0), "two": entry(5.0, 5.0, 1.0)}, "dtw", "random")
    assert ranks == {"a": (1 + 2.5) / 2, "b": (2 + 2.5) / 2, "c": (3 + 1) / 2}


def test_figures_of_the_paper_are_consistent():
    for columns in paper.RANKS.values():
        for index in range(len(STARTS)):  # five ranks of one column sum to 15, but for rounding
            assert sum(figures[index] for figures in columns.values()) == pytest.approx(15, abs=0.025)
    for figures in (paper.BARYCENTERS, paper.KMEANS):
        assert all(tuple(rates) == GAMMAS for rates in figures.values())


# ---------------------------------------------------------------- whole runs


def test_a_whole_run_and_its_continuation(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    write_npz(tmp_path)
    chosen = settings(tmp_path)
    store = command.run(chosen)
    names = {path.name for path in chosen.out.iterdir() if path.is_file()}
    assert names == {"results.json", "results.md", "barycenters.png", "kmeans.png", "prediction.png"}
    examples = {path.name for path in (chosen.out / "examples").iterdir()}
    assert examples == {"barycenters_Bumps.png", "prediction_Bumps.png"}
    text = (chosen.out / "results.md").read_text()
    for part in ("Table 1", "Table 2", "Table 3", "1-NN", "(93.67)", "Bumps", "8 + 6"):
        assert part in text
    assert read(store.path) == json.loads(json.dumps(store.content))

    def fail(*_):
        raise AssertionError("done already")

    for experiment in command.RUN:
        monkeypatch.setitem(command.RUN, experiment, fail)
    assert command.run(chosen).content["entries"] == store.content["entries"]
    with pytest.raises(ValueError, match="made with other settings"):
        command.run(dataclasses.replace(chosen, seed=1))


def test_same_seed_same_numbers(tmp_path, bumps_set):
    chosen = settings(tmp_path)
    for experiment in (barycenters, prediction):
        assert experiment.run(bumps_set, chosen).numbers == experiment.run(bumps_set, chosen).numbers


def test_a_run_that_is_stopped_keeps_what_is_done(tmp_path):
    store = Store(tmp_path, {"seed": 0}, {})
    store.add("neighbors", "A", {"dtw": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        store.add("neighbors", "B", {"dtw": math.nan})
    again = Store(tmp_path, {"seed": 0}, {})
    assert again.has("neighbors", "A")
    assert not again.has("neighbors", "B")


def test_sets_are_chosen_by_name_and_the_first_folder_counts(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_npz(tmp_path / folder)
    (tmp_path / "two" / "Bumps.npz").rename(tmp_path / "two" / "Another.npz")
    write_npz(tmp_path / "two")
    both = Settings(sources=(str(tmp_path / "one"), str(tmp_path / "two")))
    assert [files.name for files in command.choose(both)] == ["Another", "Bumps"]
    assert command.choose(both)[1].train.parent.name == "one"
    assert [files.name for files in command.choose(dataclasses.replace(both, sets=("Bumps",)))] == ["Bumps"]
    with pytest.raises(ucr.DataError, match="Nothing not found; there are Another, Bumps"):
        command.choose(dataclasses.replace(both, sets=("Nothing",)))


def test_command_line(tmp_path):
    chosen = parse(
        ["--ucr", "a", "b", "--scale", "paper", "--only", "neighbors", "kmeans", "--sets", "X", "--seed", "3"]
    )
    assert chosen.sources == ("a", "b")
    assert chosen.scale is SCALES["paper"]
    assert chosen.experiments == ("kmeans", "neighbors")
    assert (chosen.sets, chosen.seed, chosen.threads) == (("X",), 3, None)
    assert parse([]).sources == ("aeon",)
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])


def test_stored_tables_are_those_of_the_stored_numbers():
    folder = Path(command.__file__).parent / "results"
    content = read(folder / "results.json")
    assert (folder / "results.md").read_text() == tables.markdown(content)
    assert content["settings"] == Settings(seed=content["settings"]["seed"]).as_dict()  # of the scale that it names
    sets = content["entries"]["barycenters"]
    assert all(found.keys() == sets.keys() for found in content["entries"].values())
    for name, entry in content["entries"]["neighbors"].items():
        known = paper.ACCURACIES.get(name)
        assert known is None or known == tuple(round(entry[distance], 3) for distance in neighbors.DISTANCES)


def test_pictures_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    content = {"entries": {"barycenters": {"A": barycenter_entry([1.0], 2.0)}, "kmeans": {}}}
    assert [path.name for path in plots.draw(content, tmp_path)] == ["barycenters.png"]
