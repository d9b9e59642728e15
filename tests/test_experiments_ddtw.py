"""The dDTW paper's music tasks: data, networks and measures, whole runs on made-up sound, the authors' networks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("scipy")
pytest.importorskip("tqdm")
from experiments.data import hcqt, music, themes
from experiments.data.themes import REST, Recording, Theme
from experiments.ddtw import __main__ as command
from experiments.ddtw import authors, decoding, metrics, multi, networks, paper, pieces, plots, single, tables
from experiments.ddtw.settings import METHODS, SCALES, Multi, Schedule, Settings, Single, parse
from experiments.ddtw.training import Trainer
from experiments.softdtw.store import read
from torch_dalign import presets

NARROW = (2, 2, 2, 2, 2)


@pytest.fixture(autouse=True)
def one_thread():
    """Networks as small as these are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- Sound and themes made of numbers ---------------------------------------------------------------------------------


def harmonic_features(roll, seed=0):
    """(N, 6, 216) magnitudes in which each pitch class (N, 12) shows in every octave and harmonic, and some noise."""
    octaves = np.tile(np.repeat(roll, 3, axis=1), (1, 6))
    noise = np.random.default_rng(seed).random((len(roll), 6, 216)) / 20
    return (octaves[:, None, :] + noise).astype(np.float32)


def made_theme(seed, n_notes=5):
    """Notes of random length with a rest among them; the second note is repeated."""
    rng = np.random.default_rng(seed)
    notes = rng.integers(0, 12, n_notes)
    notes[2] = notes[1]
    labels = np.insert(notes, 4, REST)
    strong = np.repeat(labels, rng.integers(3, 6, len(labels)))
    return Theme(f"made{seed}", harmonic_features(metrics.one_hot(strong), seed), strong, notes)


def made_piece(seed, n_chords=6):
    rng = np.random.default_rng(seed)
    sets = np.zeros((n_chords, 12), dtype=np.uint8)
    for row in sets:
        row[rng.choice(12, 3, replace=False)] = 1
    strong = np.repeat(sets, rng.integers(6, 12, n_chords), axis=0)
    return pieces.Piece(f"made{seed}", harmonic_features(strong, seed).astype(np.float16), strong)


def tune(*pitches, length=1.0):
    n = len(pitches)
    onset = np.arange(n) * length
    return music.Score(
        "made/tune", 1, music.Notes(onset, onset + length, np.array(pitches), np.zeros(n, dtype=np.int64))
    )


def test_labels_collapse_and_stretch():
    np.testing.assert_array_equal(themes.collapse(np.array([3, 3, REST, 3, 3, 1])), [3, REST, 3, 1])
    np.testing.assert_array_equal(themes.stretch(np.array([1, 2, 3]), 7), [1, 1, 1, 2, 2, 3, 3])
    theme = made_theme(0)
    assert len(theme.notes) == 5
    assert len(theme.weak) == 5  # the repeated note is merged, the rest is kept
    assert len(theme.stretched) == len(theme.strong) == len(theme.features)


def test_classes_of_one_hot_rows():
    labels = np.array([0, 11, REST, 5])
    np.testing.assert_array_equal(themes.classes(metrics.one_hot(labels)), labels)


def test_sounding_pitch_classes():
    notes = music.Notes(np.array([1.0, 2.0]), np.array([2.0, 3.0]), np.array([61, 72]), np.zeros(2, dtype=int))
    np.testing.assert_array_equal(themes.sounding(notes, np.array([0.5, 1.0, 1.9, 2.0, 3.0])), [REST, 1, 1, 0, REST])


def test_accompaniment_is_made_of_triads_of_the_key_below_the_tune():
    melody = tune(72, 76, 79, 72, 77, 81, 77, 72, 79, 83, 86, 79, 72, 76, 72, 72)
    both = themes.accompany(melody)
    chords = both.notes.part == 1
    np.testing.assert_array_equal(both.notes.pitch[~chords], melody.notes.pitch)
    assert both.notes.pitch[chords].max() < 72
    for start in np.unique(both.notes.onset[chords]):
        assert len(both.notes.pitch[chords & (both.notes.onset == start)]) == 3
    first = both.notes.pitch[chords & (both.notes.onset == 0.0)] % 12
    assert set(first) == {0, 4, 7}
    assert (np.diff(both.notes.onset) >= 0).all()


def test_mtd_layout(tmp_path):
    theme = made_theme(1)
    for kind in ("hcqt", "strong_targets_chroma", "CTC_targets_chroma", "MTD_splits"):
        (tmp_path / kind).mkdir()
    np.save(tmp_path / "hcqt" / "one.npy", theme.features.transpose(2, 0, 1).astype(np.float64))
    np.save(tmp_path / "strong_targets_chroma" / "one.npy", metrics.one_hot(theme.strong).T)
    np.save(tmp_path / "CTC_targets_chroma" / "one.npy", theme.notes)
    for fold in range(1, 6):
        (tmp_path / "MTD_splits" / f"MTD_split5-{fold}.csv").write_text("other.mid\n" + "one.mid\n" * (fold == 4))
    (found,) = themes.from_mtd(tmp_path)
    np.testing.assert_array_equal(found.features, theme.features)
    np.testing.assert_array_equal(found.strong, theme.strong)
    np.testing.assert_array_equal(found.notes, theme.notes)
    assert len(themes.from_mtd(tmp_path, themes.VALIDATION_FOLDS)) == 1
    assert themes.from_mtd(tmp_path, themes.TRAIN_FOLDS) == []
    with pytest.raises(FileNotFoundError, match="hcqt"):
        themes.from_mtd(tmp_path / "hcqt")


def test_octave_groups_share_a_transform():
    assert hcqt._octave_groups((0.5, 1.0, 2.0, 3.0, 4.0, 5.0)) == [[0.5, 1.0, 2.0, 4.0], [3.0], [5.0]]


def test_harmonics_of_a_tone_lie_above_each_other():
    pytest.importorskip("librosa")
    settings = hcqt.HarmonicSpectrum(hop=1024)
    time = np.arange(4 * settings.sample_rate) / settings.sample_rate
    frequency = 440.0 * 2 ** ((57 - 69) / 12)  # A3, MIDI number 57
    tone = sum(np.sin(2 * np.pi * harmonic * frequency * time) / harmonic for harmonic in range(1, 6))
    values = hcqt.harmonic_cqt(tone.astype(np.float32), settings)
    assert values.shape[1:] == (6, 216)
    middle = values[len(values) // 2]
    fundamental = 3 * (57 - settings.lowest_pitch) + 1  # the middle bin of its semitone
    np.testing.assert_array_equal(middle[1:].argmax(axis=1)[:1], [fundamental])
    for channel in middle[1:]:  # harmonics 1 to 5; 1/2 has nothing at the fundamental
        assert channel[fundamental] == channel[fundamental - 3 : fundamental + 4].max()


def test_shortened_score():
    short = pieces.shorten(tune(60, 62, 64, 65), 2.5)
    np.testing.assert_array_equal(short.notes.pitch, [60, 62, 64])
    assert short.notes.offset.max() == 2.5


def test_segments_cover_a_piece_and_carry_its_context():
    piece = made_piece(0)
    n = len(piece.strong)
    size = dataclasses.replace(SCALES["small"].multi, segment=20, stride=10)
    found = pieces.segments([piece], size)
    assert [first for _, first in found] == list(range(0, n - 19, 10))
    whole = pieces.network_input(piece.features)
    for _, first in found:
        segment = pieces.cut(piece, first, size.segment)
        assert segment.features.shape == (1, 6, 20 + 2 * networks.ChordNet.CONTEXT, 216)
        torch.testing.assert_close(segment.features, whole[:, :, first : first + 20 + 2 * networks.ChordNet.CONTEXT])
        np.testing.assert_array_equal(segment.strong, piece.strong[first : first + 20])
    long = dataclasses.replace(size, segment=10 * n)
    assert [first for _, first in pieces.segments([piece], long)] == [0]
    assert len(pieces.cut(piece, 0, 10 * n).strong) == n


# --- Networks ---------------------------------------------------------------------------------------------------------


def test_networks_have_the_papers_sizes():
    net = networks.ThemeNet()
    assert networks.count(net) == 73036
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 72970
    assert networks.count(networks.ChordNet(blank=False)) == 48315
    assert networks.count(networks.ChordNet(blank=True)) == 48315 + 73


def test_names_of_parameters_are_those_of_the_authors_files():
    shapes = {name: tuple(value.shape) for name, value in networks.ThemeNet().state_dict().items()}
    layers = [*(f"conv{index}" for index in range(1, 7)), "pool1", "pool2", "convEps"]
    assert set(shapes) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert shapes["conv5.weight"] == (8, 32, 3, 42)
    assert shapes["pool2.weight"] == (1, 1, 1, 61)
    assert shapes["convEps.weight"] == (1, 1, 1, 216)


@pytest.mark.parametrize("frequencies", [216, 30])
@pytest.mark.parametrize("kernel", [(3, 42), (3, 5), (1, 1)])
def test_wide_convolution_is_the_usual_one(frequencies, kernel):
    layer = networks.WideConv2d(3, 2, kernel).double()
    x = torch.rand(2, 3, 7, frequencies, dtype=torch.float64, requires_grad=True)
    pad = [((size - 1) // 2, size - 1 - (size - 1) // 2) for size in kernel]
    expected = F.conv2d(F.pad(x, (*pad[1], *pad[0])), layer.weight, layer.bias)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    inputs = (x, layer.weight, layer.bias)
    weight = torch.rand_like(expected)
    for ours, usual in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, usual)


def test_theme_net_sums_what_lies_octaves_apart():
    """With conv6 as the only thing that reaches the pools, class c is the sum over its bins of five octaves and one."""
    net = networks.ThemeNet(NARROW)
    salience = torch.zeros(1, 1, 1, 216)
    salience[..., 3 * (5 + 12) : 3 * (5 + 12) + 3] = 1.0
    chroma = net.pool2(net.pool1(salience)).flatten()
    np.testing.assert_array_equal(chroma.numpy(), 3.0 * (np.arange(12) == 5))


def test_the_blank_starts_about_as_likely_as_a_pitch_class():
    scores = networks.ThemeNet()(torch.rand(1, 6, 8, 216))
    shares = scores.softmax(2).mean(dim=(0, 1))
    assert 0.02 < shares[REST] < 0.3


def test_silence_gives_finite_scores():
    net = networks.ThemeNet(NARROW)
    assert torch.isfinite(net(torch.zeros(1, 6, 4, 216))).all()


def test_chord_net_uses_its_context_up():
    for blank in (False, True):
        net = networks.ChordNet(blank, (3, 3, 3, 1)).eval()
        found = net(torch.rand(2, 6, 9 + 2 * net.CONTEXT, 216))
        assert found.shape == (2, 9, 12 + blank)
        assert ((found > 0) & (found < 1)).all()


def test_chord_net_is_the_same_for_a_part_as_for_the_whole():
    net = networks.ChordNet(False, (3, 3, 3, 1)).eval()
    piece = made_piece(0)
    whole = multi.predict(net, piece)
    # Pools and convolutions over time look another 14 frames beyond the context: these are padded at a segment's ends.
    segment = pieces.cut(piece, 0, len(piece.strong))
    with torch.no_grad():
        np.testing.assert_allclose(net(segment.features)[0].numpy(), whole, atol=1e-6)


# --- Measures ---------------------------------------------------------------------------------------------------------


def slow_edit_distance(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (a[i] != b[j]))
    return table[-1, -1]


def test_label_error_rate_is_the_edit_distance_per_label():
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = rng.integers(0, 4, rng.integers(0, 8)).tolist()
        true = rng.integers(0, 4, rng.integers(1, 8)).tolist()
        assert metrics.label_error_rate(found, true) == slow_edit_distance(found, true) / len(true)


def test_frame_accuracies_differ_in_rests():
    scores = np.eye(13)[[0, 4, 12, 0]]  # the third frame is all blank: of the twelve classes the first counts
    strong = np.array([0, 5, 3, REST])
    assert metrics.frame_accuracy(scores, strong) == pytest.approx(1 / 3)
    assert metrics.published_frame_accuracy(scores, strong) == pytest.approx(2 / 4)


def test_ranks():
    distances = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]])
    assert metrics.retrieval(distances) == (pytest.approx(1 / 3), 1.0, 1.0, pytest.approx((1 + 1 / 2 + 1 / 3) / 3))


def test_themes_are_found_in_the_recordings_that_hold_them():
    rng = np.random.default_rng(0)
    notes = [rng.permutation(12) for _ in range(4)]
    recordings = [metrics.one_hot(np.repeat(one, 6)) for one in notes]
    queries = [themes.stretch(one[3:9], 30) for one in notes]  # five frames a note, for six of the recording
    distances = metrics.match(queries, recordings)
    assert distances.shape == (4, 4)
    np.testing.assert_allclose(np.diagonal(distances), 0, atol=1e-6)
    assert distances[~np.eye(4, dtype=bool)].min() > 0.2


def test_f_measure():
    true = np.array([[1, 1, 0], [0, 0, 1]])
    found = metrics.scores(np.array([[0.9, 0.2, 0.6], [0.1, 0.1, 0.7]]), true)
    assert found == (pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert metrics.scores(np.zeros((2, 3)), true) == (0, 0, 0)


def test_decoding():
    path = np.array([3, 3, REST, 3, 5, 5, REST])
    with_blank = np.log(np.full((7, 13), 0.01) + 0.87 * np.eye(13)[path])
    assert decoding.greedy([with_blank], blank=True) == [[3, 3, 5]]
    assert decoding.beam([with_blank], blank=True) == [[3, 3, 5]]
    without = np.log(np.full((4, 12), 0.01) + 0.88 * np.eye(12)[[3, 3, 5, 3]])
    assert decoding.greedy([without, without[:2]], blank=False) == [[3, 5, 3], [3]]
    assert decoding.beam([without, without[:2]], blank=False) == [[3, 5, 3], [3]]


# --- Losses -----------------------------------------------------------------------------------------------------------


def test_every_row_of_table_1_is_a_method():
    assert len(METHODS) == 12
    for name in METHODS:
        assert name == "strong" or name in presets.names()
        assert name in paper.FRAMES
        assert name in paper.LABELS
        assert name in paper.F_MEASURES


def test_single_label_batch():
    items = [made_theme(0), made_theme(1, n_notes=7)]
    batch = single.collate(items)
    assert batch.features.shape == (2, 6, max(len(one.strong) for one in items), 216)
    assert batch.n_frames.tolist() == [len(one.strong) for one in items]
    assert (batch.strong[0, batch.n_frames[0] :] == REST).all()
    np.testing.assert_array_equal(batch.notes[1, : batch.n_notes[1]], items[1].notes)
    np.testing.assert_array_equal(batch.weak[0, : batch.n_weak[0]], items[0].weak)


@pytest.mark.parametrize("method", METHODS)
def test_single_label_losses_are_means_over_items_and_do_not_look_at_padding(method):
    """A theme costs the same alone and beside a longer one, in its own scores at least."""

    class Given(nn.Module):
        def forward(self, features):
            return scores[:, : features.shape[2]]

    short, long = made_theme(0), made_theme(1, n_notes=9)
    loss = single.make_loss(method)
    scores = torch.randn(2, len(long.strong), 13)
    both = loss(Given(), single.collate([short, long]))
    scores, kept = scores[:1], scores
    first = loss(Given(), single.collate([short]))
    scores = kept[1:]
    torch.testing.assert_close(both, (first + loss(Given(), single.collate([long]))) / 2)


def test_ctc_a_is_ctc():
    batch = single.collate([made_theme(0), made_theme(1, n_notes=7)])
    net = networks.ThemeNet(NARROW)
    scores = net(batch.features).log_softmax(2)
    expected = F.ctc_loss(
        scores.transpose(0, 1), batch.notes, batch.n_frames, batch.n_notes, blank=REST, reduction="mean"
    )
    torch.testing.assert_close(single.make_loss("CTC-A")(net, batch), expected)


def test_a_rest_costs_nothing():
    log_probabilities = single.with_free_rest(torch.randn(2, 5, 13))
    assert log_probabilities.shape == (2, 5, 13)
    np.testing.assert_array_equal(log_probabilities[..., REST], 0)
    torch.testing.assert_close(log_probabilities[..., :REST].exp().sum(2), torch.ones(2, 5))


@pytest.mark.parametrize("method", METHODS)
def test_multi_label_losses_prefer_the_truth(method):
    """With the blank silent, what sounds costs less than what does not, and the gradient is finite."""
    segment = pieces.cut(made_piece(0), 0, 40)
    true = 0.05 + 0.9 * segment.strong

    class Given(nn.Module):
        def __init__(self, value):
            super().__init__()
            blank = torch.full((40, 1), 0.05) if method.startswith("CTC") else torch.empty(40, 0)
            self.value = nn.Parameter(torch.cat([blank, value], 1)[None])

        def forward(self, features):
            return self.value

    loss = multi.make_loss(method)
    right, wrong = Given(true), Given(true.flip(0))
    good, bad = loss(right, [segment]), loss(wrong, [segment])
    assert good < bad
    good.backward()
    assert torch.isfinite(right.value.grad).all()


# --- Whole runs -------------------------------------------------------------------------------------------------------

SHORT = Schedule(epochs=2, batch_size=2, rate=1e-3, halve_after=2, stop_after=2)


def made_settings(task, folder, **changes):
    scale = dataclasses.replace(
        SCALES["small"],
        single=Single(1792, 4, 2, 3, NARROW, SHORT),
        multi=Multi(1024, 2, 1, 2, 8.0, 30, 30, (3, 3, 3, 1), SHORT),
    )
    return Settings(task=task, scale=scale, seeds=(0,), out=folder, **changes)


@pytest.fixture
def made_data(monkeypatch):
    """Both tasks get their data without rendering."""
    parts = [[made_theme(seed) for seed in range(first, last)] for first, last in ((0, 4), (4, 6), (6, 9))]
    recordings = [Recording(theme.name, theme.features, theme.stretched) for theme in parts[2]]
    size = made_settings("multi", Path()).scale.multi
    segments = [pieces.segments([made_piece(seed)], size) for seed in (0, 1)]
    test = [made_piece(2), made_piece(3)]
    monkeypatch.setattr(single, "load", lambda settings: single.Data(*parts, recordings))
    monkeypatch.setattr(multi, "load", lambda settings: multi.Data(*segments, test))


@pytest.mark.usefixtures("made_data")
@pytest.mark.parametrize("task", ["single", "multi"])
def test_whole_run_and_its_resumption(task, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    some = ("CTC-A", "SDTW-E-W", "EM", "strong")
    content = command.run(made_settings(task, tmp_path, methods=some[:3])).content
    before = read(tmp_path / "results.json")
    assert json.loads(json.dumps(content)) == before
    capsys.readouterr()
    content = command.run(made_settings(task, tmp_path, methods=some)).content
    assert capsys.readouterr().out.count("seed 0") == 1  # only the new method ran
    assert list(tables.runs(content)) == list(some)
    assert content["entries"][task]["CTC-A 0"] == before["entries"][task]["CTC-A 0"]
    text = (tmp_path / "results.md").read_text()
    for name in some:
        assert f"| {name} |" in text
    assert "n_validation 2 (24)" in text or "n_validation 1 (8)" in text
    pictures = {"single": ["predictions.png"], "multi": ["f_measure.png", "alignments.png"]}[task]
    for name in pictures:
        assert (tmp_path / name).stat().st_size > 1000
    for entry in content["entries"][task].values():
        numbers = [value for value in entry.values() if isinstance(value, float)]
        assert np.isfinite(numbers).all()


def test_results_of_other_settings_are_not_mixed(tmp_path):
    from experiments.softdtw.store import Store

    settings = made_settings("single", tmp_path)
    Store(tmp_path, settings.as_dict(), {}).add("single", "CTC-A 0", {})
    other = parse(["single", "--epochs", "3"])
    with pytest.raises(ValueError, match="other settings"):
        Store(tmp_path, other.as_dict(), {})


def test_training_keeps_the_best_network_and_stops():
    """One weight that follows its target too far: the loss of the first epochs is the lowest."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    losses = []

    def loss(net, batch):
        if not net.training:
            losses.append(abs(float(net.weight.detach()) - 0.25))
            return torch.tensor(losses[-1])
        return (net.weight - 1.0).square().sum()

    trainer = Trainer([0], [0], list, loss)
    course = trainer.fit(network, Schedule(50, 1, 0.1, 50, 3), seed=0, label="test")
    assert len(course.validation) < 50
    assert course.best == min(losses)
    assert abs(float(network.weight.detach()) - 0.25) == pytest.approx(course.best)


def test_training_learns_made_themes():
    """From the order of the notes alone, soft-DTW finds which pitch class sounds in a frame."""
    items = [made_theme(seed) for seed in range(4)]
    torch.manual_seed(1)
    network = networks.ThemeNet((4, 4, 4, 4, 4))
    trainer = Trainer(items, items, single.collate, single.make_loss("SDTW-D"))
    trainer.fit(network, Schedule(12, 2, 1e-2, 12, 12), seed=0, label="test")
    scores = [single.predict(network, theme.features, blank=False) for theme in items]
    accuracies = [metrics.frame_accuracy(*pair) for pair in zip(scores, (theme.strong for theme in items), strict=True)]
    assert np.mean(accuracies) > 0.8


def test_known_alignment():
    strong = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    expected = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(multi.known_alignment(strong).numpy(), expected)


def test_blank_rows_are_red():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    plots._alignment(panel, np.eye(3), frame_rate=1.0, with_blanks=True)
    shown = np.asarray(panel.images[0].get_array())
    np.testing.assert_array_equal(shown[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(shown[1, 1], [0, 0, 0])
    np.testing.assert_array_equal(shown[1, 0], [1, 1, 1])


def test_settings_of_the_command_line():
    settings = parse(["multi", "--scale", "paper", "--methods", "EM", "CTC-A", "--epochs", "3", "--train", "7"])
    assert settings.methods == ("CTC-A", "EM")
    assert settings.seeds == (0, 1, 2, 3, 4)
    assert settings.scale.multi.schedule.epochs == 3
    assert settings.as_dict()["n_train"] == 7
    assert parse(["single"]).seeds == (0, 1)
    for bad in (["models"], ["single", "--epochs", "0"], ["single", "--methods", "CTC"], ["other"]):
        with pytest.raises(SystemExit):
            parse(bad)


def test_missing_folders_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="model_NAME"):
        command.main(["models", "--mtd", str(tmp_path), "--models", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="hcqt"):
        command.main(["single", "--mtd", str(tmp_path), "--out", str(tmp_path)])


# --- The authors' networks --------------------------------------------------------------------------------------------

FACTS = {
    "CTC-A": (0.487, 0.368, 1.03),
    "CTC-B": (0.431, 0.415, 1.27),
    "CTC-C": (0.473, 0.516, 3.56),
    "CTC-C-W": (0.528, 0.524, 3.93),
    "SDTW-D": (0.572, 0.564, 4.88),
    "SDTW-D-W": (0.534, 0.474, 5.90),
    "SDTW-E": (0.539, 0.516, 5.36),
    "SDTW-E-W": (0.497, 0.528, 5.64),
    "EM": (0.540, 0.852, 6.76),
    "strong": (0.569, 0.472, 4.59),
}
"""Frame accuracy, greedy label error rate and CTC loss per label over nine themes, by a program of other people."""

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"
COMMITTED = HERE.parent / "experiments" / "ddtw" / "results" / "models" / "models.json"


def test_committed_figures_of_the_authors_networks_are_the_known_ones():
    found = json.loads(COMMITTED.read_text())
    assert set(found) == set(METHODS)
    for name, (accuracy, error_rate, loss) in FACTS.items():
        assert found[name]["published_accuracy"] == pytest.approx(accuracy, abs=6e-4)
        assert found[name]["greedy_ler"] == pytest.approx(error_rate, abs=6e-4)
        assert found[name]["ctc_loss"] == pytest.approx(loss, abs=6e-3)
    # Two networks are collapsed, in the paper's table too: they say the same of every frame.
    assert max(found[name]["accuracy"] for name in ("CTC-A-W", "CTC-B-W")) < 0.1


@pytest.mark.skipif(not (SHARED / "ddtw_models").is_dir(), reason="the authors' networks are not at hand")
@pytest.mark.parametrize("name", ["CTC-A", "SDTW-E-W"])
def test_authors_networks_give_the_committed_figures(name):
    excerpts = themes.from_mtd(SHARED / "mtd")
    assert len(excerpts) == 9
    network = networks.load_theme_net(SHARED / "ddtw_models" / "mtd" / f"model_{name}_bestVal.pt")
    found = authors.evaluate(network, excerpts, single.has_blank(name))
    for key, value in json.loads(COMMITTED.read_text())[name].items():
        assert found[key] == pytest.approx(value, abs=1e-4), key


@pytest.mark.skipif(not (SHARED / "mtd").is_dir(), reason="the themes are not at hand")
def test_targets_of_the_data_set_are_ours():
    for theme in themes.from_mtd(SHARED / "mtd"):
        weak = np.load(SHARED / "mtd" / "weak_targets_chroma" / f"{theme.name}.npy")
        np.testing.assert_array_equal(theme.weak, themes.classes(weak.T))
        stretched = np.load(SHARED / "mtd" / "weak_targets_stretched_chroma" / f"{theme.name}.npy")
        # Theirs are rounded in floating point: a frame may fall to the label before.
        assert (theme.stretched != themes.classes(stretched.T)).mean() < 0.03
