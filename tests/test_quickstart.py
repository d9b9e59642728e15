"""The demo, on pieces made of numbers: nothing is rendered here. `make demo QUICK=1` is the test of the whole."""

import dataclasses
import json

import numpy as np
import pytest
import torch

pytest.importorskip("tqdm")  # a machine that runs the tests alone may lack it

from experiments.data import music
from experiments.quickstart import data, evaluation, losses, network, settings, training
from experiments.quickstart.data import Chorales, as_melody, collate, top_voice
from experiments.quickstart.report import Report


def made_piece(seed: int, n_chords: int = 6) -> music.Piece:
    """Chords of random durations whose features show the pitch classes in every octave."""
    rng = np.random.default_rng(seed)
    sets = np.zeros((n_chords, 12), dtype=np.uint8)
    for row in sets:
        row[rng.choice(12, 3, replace=False)] = 1
    lengths = rng.integers(4, 9, n_chords)
    strong = np.repeat(sets, lengths, axis=0)
    edges = np.concatenate([[0], np.cumsum(lengths)]).astype(float)
    values = np.tile(np.repeat(strong, 3, axis=1), (1, 6)).astype(np.float32) + rng.random((len(strong), 216)) / 10
    notes = music.Notes(edges[:-1], edges[1:], np.full(n_chords, 60), np.zeros(n_chords, dtype=int))
    time_map = music.TimeMap(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    played = music.Performance(f"made/{seed}", notes, np.full(n_chords, 80), 0, time_map)
    frames = music.Frames(values.astype(np.float32), np.arange(len(strong)) + 0.5)
    return music.Piece(f"made/{seed}", played, frames, strong, music.Chords(sets, edges[:-1], edges[1:]))


@pytest.fixture
def chorales() -> Chorales:
    pieces = [made_piece(seed) for seed in range(10)]
    return Chorales(pieces[:6], pieces[6:8], pieces[8:])


def test_network_has_the_stated_size():
    net = network.PitchClassNet()
    assert sum(p.numel() for p in net.parameters()) == 2423
    assert net(torch.rand(2, 7, 216)).shape == (2, 7, 12)


def test_a_blank_is_one_output_more_and_changes_no_other():
    torch.manual_seed(0)
    plain = network.PitchClassNet()
    torch.manual_seed(0)
    net = network.PitchClassNet(has_blank=True)
    assert sum(p.numel() for p in net.parameters()) == 2423 + 73
    features = torch.rand(2, 7, 216)
    outputs = net(features)
    assert outputs.shape == (2, 7, 13)
    torch.testing.assert_close(net.without_blank(outputs), plain(features))


def test_single_labels_share_what_the_blank_leaves():
    net = network.PitchClassNet(has_blank=True, single_label=True)
    outputs = net(torch.rand(2, 7, 216))
    torch.testing.assert_close(outputs.sum(2), torch.ones(2, 7))
    classes = net.without_blank(outputs)
    torch.testing.assert_close(classes.sum(2), torch.ones(2, 7))
    torch.testing.assert_close(classes * (1 - outputs[..., :1]), outputs[..., 1:])


def test_batch_pads_with_zeros():
    pieces = [made_piece(0), made_piece(1, n_chords=3)]
    batch = collate(pieces)
    assert batch.n_frames.tolist() == [len(p.frames.times) for p in pieces]
    assert batch.chords[1, 3:].abs().sum() == 0
    assert batch.strong[1, batch.n_frames[1] :].abs().sum() == 0


def test_stretched_targets_give_each_chord_its_equal_share():
    batch = collate([made_piece(0)])
    target = losses.stretched(batch)[0].numpy()
    frames, chords = int(batch.n_frames[0]), int(batch.n_chords[0])
    expected = batch.chords[0].numpy()[[i * chords // frames for i in range(frames)]]
    np.testing.assert_array_equal(target, expected)


def played(piece: music.Piece, time_map: music.TimeMap) -> music.Piece:
    """The same sound, of another score."""
    return dataclasses.replace(piece, performance=dataclasses.replace(piece.performance, time_map=time_map))


def test_the_score_as_written_has_no_tempo():
    """The first ten seconds are played at twice the tempo of the rest."""
    piece = made_piece(0)
    piece = played(piece, music.TimeMap(np.array([0.0, 20.0, 21.0]), np.array([0.0, 10.0, 11.0])))
    written = data.as_written(piece)
    quarters = piece.performance.time_map.quarters(piece.frames.times)
    np.testing.assert_allclose(quarters[:11], [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 20.5])
    np.testing.assert_allclose(written.place, (quarters - 1) / (quarters[-1] - 1))
    samples = 4 * (quarters[-1] - 1) + 1
    assert len(written.chords) == int(np.ceil(samples))
    at = np.linspace(quarters[0], quarters[-1], len(written.chords))
    frame = np.floor(piece.performance.time_map.seconds(at) + 1e-9).astype(int)
    np.testing.assert_array_equal(written.chords, piece.strong[frame])


def test_decdtw_is_the_distance_from_the_true_way_in_seconds():
    piece = played(made_piece(0), music.TimeMap(np.array([0.0, 20.0, 21.0]), np.array([0.0, 10.0, 11.0])))
    batch = collate([piece])
    perfect = torch.as_tensor(piece.strong, dtype=torch.float32)[None]
    loss = losses.training("decdtw").make(settings.QUICK)
    same = dataclasses.replace(batch, written=torch.ones_like(batch.written))  # nothing speaks against one tempo
    seconds = np.ptp(piece.frames.times)
    line = np.abs(np.linspace(0, 1, len(piece.strong)) - data.as_written(piece).place)
    by_trapezoids = seconds * (line[1:] + line[:-1]).sum() / 2 / (len(line) - 1)
    frames = len(piece.strong)
    assert loss(perfect, same).item() / frames == pytest.approx(by_trapezoids, rel=1e-3)
    assert loss(perfect, batch).item() / frames < 0.2 * by_trapezoids


PRESETS = ["ddtw:CTC-A", "ddtw:SDTW-D-W", "ddtw:EM", "ddtw:2-1-softDTW"]


@pytest.mark.parametrize("name", [*losses.LOSSES, *PRESETS])
def test_losses_do_not_look_at_padding(name):
    """A piece costs the same alone and beside a longer one, and so do its gradients."""
    way = losses.training(name)
    loss = way.make(settings.QUICK)
    short, long = made_piece(0, n_chords=3), made_piece(1, n_chords=9)
    both, alone = collate([short, long]), collate([short])
    n = int(alone.n_frames[0])
    torch.manual_seed(0)
    probabilities = torch.rand(2, int(both.n_frames.max()), 12 + way.has_blank, requires_grad=True)
    own = probabilities[:1, :n].detach().clone().requires_grad_()
    together, apart = loss(probabilities, both)[0], loss(own, alone)[0]
    torch.testing.assert_close(together, apart)
    together.backward()
    apart.backward()
    torch.testing.assert_close(probabilities.grad[0, :n], own.grad[0])
    assert probabilities.grad[0, n:].abs().sum() == 0


def test_ctc_losses_are_those_of_the_general_lattice():
    batch = collate([made_piece(0), made_piece(1, n_chords=9)])
    sets = torch.rand(2, int(batch.n_frames.max()), 13)
    mctc, preset = (losses.training(name).make(settings.QUICK)(sets, batch) for name in ("mctc", "ddtw:CTC-A"))
    torch.testing.assert_close(mctc, preset)
    single = sets.softmax(2)
    classes = 1 + batch.chords.argmax(2)
    lattice = losses.dalign.presets.ddtw("CTC-A", reduction="none")
    expected = lattice(single.log(), classes, batch.n_frames, batch.n_chords)
    torch.testing.assert_close(losses.training("ctc").make(settings.QUICK)(single, batch), expected)


def test_weights_of_the_demo_are_a_preset():
    batch = collate([made_piece(0)])
    probabilities = torch.rand(1, int(batch.n_frames.max()), 12)
    ours, preset = (losses.training(name).make(settings.QUICK) for name in ("softdtw", "ddtw:SDTW-E-W"))
    torch.testing.assert_close(ours(probabilities, batch), preset(probabilities, batch))


def test_unknown_presets_are_named():
    with pytest.raises(ValueError, match=r"'ddtw:CTC-Z'.*SDTW-D"):
        losses.training("ddtw:CTC-Z")
    with pytest.raises(ValueError, match="'CTC-A'"):
        losses.training("CTC-A")


def melody_score() -> music.Score:
    """Two voices; the upper one repeats a note, rests, and ends with a double stop."""
    rows = [(0, 2, 48, 1), (0, 1, 60, 0), (1, 2, 60, 0), (2, 5, 50, 1), (3, 4, 62, 0), (4, 5, 64, 0), (4, 5, 67, 0)]
    onset, offset, pitch, part = (np.array(column) for column in zip(*rows, strict=True))
    return music.Score("made", 2, music.Notes(onset.astype(float), offset.astype(float), pitch, part))


def test_top_voice_is_the_highest_part_without_double_stops():
    notes = top_voice(melody_score()).notes
    assert notes.pitch.tolist() == [60, 60, 62, 67]
    assert notes.onset.tolist() == [0, 1, 3, 4]


def test_every_note_of_a_melody_is_a_target():
    notes = top_voice(melody_score()).notes
    played = music.Performance("made", notes, np.full(4, 80), 0, music.TimeMap(np.arange(2.0), np.arange(2.0)))
    joined = music.chord_sequence(notes)
    piece = music.Piece("made", played, music.Frames(np.zeros((5, 216)), np.arange(5) + 0.5), np.zeros((5, 12)), joined)
    melody = as_melody(piece).chords
    assert joined.pitch_classes.sum(1).tolist() == [1, 0, 1, 1]  # the repeated note is one, the rest another
    assert melody.pitch_classes.argmax(1).tolist() == [0, 0, 2, 7]
    assert melody.start.tolist() == [0, 1, 3, 4]
    assert melody.end.tolist() == [1, 3, 4, 5]


def test_scores_of_single_labels_are_those_of_the_likeliest_where_one_sounds():
    class Fixed(network.PitchClassNet):
        def forward(self, features):
            return torch.tensor([[[0.9, 0.06, 0.04], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]])

    piece = dataclasses.replace(made_piece(0), strong=np.array([[1, 0], [1, 0], [1, 0], [0, 0]]))
    scores = evaluation.score(Fixed(has_blank=True, single_label=True), [piece])
    assert dataclasses.astuple(scores) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_scores_of_known_counts():
    found = np.array([[1, 1, 0, 0]], dtype=bool)
    true = np.array([[1, 0, 1, 1]], dtype=bool)
    scores = evaluation.compare(found, true)
    assert scores.precision == pytest.approx(1 / 2)
    assert scores.recall == pytest.approx(1 / 3)
    assert scores.f_measure == pytest.approx(2 / 5)


def test_scores_without_cases_are_zero():
    nothing = np.zeros((1, 4), dtype=bool)
    assert dataclasses.astuple(evaluation.compare(nothing, nothing)) == (0, 0, 0)


def test_soft_alignment_of_perfect_predictions_finds_the_chords():
    class Oracle(network.PitchClassNet):
        def __init__(self, piece):
            super().__init__()
            self.answer = torch.nn.Parameter(torch.as_tensor(piece.strong, dtype=torch.float32) * 0.98 + 0.01)

        def forward(self, features):
            return self.answer[None]

    piece = made_piece(3)
    scores = evaluation.score_alignment(Oracle(piece), [piece], gamma=0.1)
    assert scores.hit_rate == 1.0
    assert scores.onset_error <= 0.5  # the first frame of a chord is centred half a frame after its start


def test_training_is_seeded_and_learns(chorales):
    options = settings.Settings(epochs=8, n_train=6, n_validation=2, n_test=2, batch_size=2, learning_rate=1e-2)
    first = training.train("softdtw", chorales, options)
    again = training.train("softdtw", chorales, options)
    assert first.step_losses == again.step_losses
    assert np.mean(first.step_losses[-3:]) < 0.8 * np.mean(first.step_losses[:3])
    assert len(first.epoch_scores) == 9
    untrained = evaluation.score(first.untrained, chorales.test)
    assert first.test.f_measure > untrained.f_measure


def test_decdtw_learns_pitch_classes_from_times_alone(chorales):
    """No target is ever shown to a prediction."""
    parts = (chorales.train, chorales.validation, chorales.test)
    pieces = Chorales(*([uneven(piece, at) for at, piece in enumerate(part)] for part in parts))
    options = settings.Settings(epochs=8, batch_size=2, learning_rate=1e-2, losses=("decdtw",))
    result = training.train("decdtw", pieces, options)
    assert np.mean(result.step_losses[-3:]) < 0.5 * np.mean(result.step_losses[:3])
    before, after = (evaluation.score_alignment(net, pieces.test, 1.0) for net in (result.untrained, result.network))
    assert after.warp_error < 0.6 * before.warp_error


def uneven(piece: music.Piece, seed: int) -> music.Piece:
    """Of a score whose chords have other durations."""
    rng = np.random.default_rng(seed)
    edges = np.append(piece.chords.start, piece.chords.end[-1])
    return played(piece, music.TimeMap(np.concatenate([[0], np.cumsum(rng.uniform(1, 8, len(edges) - 1))]), edges))


@pytest.mark.parametrize("name", ["mctc", "ctc", "ddtw:CTC-C"])
def test_trainings_with_a_blank_learn(name, chorales):
    options = settings.Settings(epochs=4, batch_size=2, learning_rate=1e-2)
    result = training.train(name, chorales, options)
    assert result.network.has_blank
    assert np.mean(result.step_losses[-3:]) < 0.8 * np.mean(result.step_losses[:3])


def test_report_is_complete(chorales, tmp_path):
    names = ("softdtw", "ctc", "ddtw:SDTW-D", "decdtw")
    options = settings.Settings(epochs=1, n_train=6, n_validation=2, n_test=2, losses=names)
    results = {name: training.train(name, chorales, options) for name in options.losses}
    pair = evaluation.AlignmentScores(0.5, 0.1, 1.5)
    report = Report(options, results, dict.fromkeys(results, (pair, pair)), {"training": 1.0})
    assert all(losses.training(name).title in report.text() for name in results)
    assert "Melodies alone" in report.markdown()
    assert "True times" in report.markdown()
    assert "1.5 s" in report.text()
    report.write(tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert set(written["results"]) == set(options.losses)
    assert written["settings"]["seed"] == options.seed
    assert written["environment"]["torch_dalign"]["version"]
    assert (tmp_path / "results.md").read_text().count("\n|") == len(results) + 1


def test_command_line():
    options = settings.parse(["--quick", "--loss", "softdtw", "--gamma", "0.5", "--epochs", "2", "--seed", "7"])
    assert options == dataclasses.replace(settings.QUICK, losses=("softdtw",), gamma=0.5, epochs=2, seed=7)
    assert settings.parse([]) == settings.Settings()
    assert settings.parse(["--loss", "ddtw:CTC-A", "ctc"]).losses == ("ddtw:CTC-A", "ctc")


@pytest.mark.parametrize(
    "bad", [["--gamma", "0"], ["--gamma", "-1"], ["--epochs", "0"], ["--loss", "unknown"], ["--loss", "ddtw:no"]]
)
def test_bad_command_line_is_refused(bad, capsys):
    with pytest.raises(SystemExit):
        settings.parse(bad)
    assert bad[0] in capsys.readouterr().err


def test_pictures_are_written(chorales, tmp_path):
    pytest.importorskip("matplotlib")
    from experiments.quickstart.pictures import draw_all

    options = settings.Settings(epochs=1, n_train=6, n_validation=2, n_test=2, losses=("softdtw",))
    results = {"softdtw": training.train("softdtw", chorales, options)}
    draw_all(results, chorales.test[0], 1.0, tmp_path)
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {"demo.png", "features.png", "reference.png", "loss.png", "warp.png"} <= names
    assert {"alignment_before.png", "alignment_after.png"} <= names
