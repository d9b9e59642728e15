"""Audio to score alignment: performances and their truth, slices, alignments, losses, folders, whole runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("scipy")
pytest.importorskip("tqdm")
import torch_dalign as dalign
from experiments.data import music
from experiments.data.music import Notes, Score
from experiments.gdtw import __main__ as command
from experiments.gdtw.score import archive, data, features, methods, network, paper, performance, run, tables, training
from experiments.gdtw.score.data import Recording
from experiments.gdtw.score.features import FRAME_RATE, SAMPLE_RATE, SIZES
from experiments.gdtw.score.methods import GDTW
from experiments.gdtw.score.performance import LEAD, Manner
from experiments.gdtw.score.settings import GRID, METHODS, SCALES, WEIGHTS, Scale, Settings, parse
from experiments.softdtw.store import read

LENGTH = 32
TINY = Scale(3, 1, 2, 16.0, epochs=1, dilate_epochs=2, rate=1e-2, batch_size=2, length=LENGTH, features=8)


@pytest.fixture(autouse=True)
def one_thread():
    """Networks as small as these are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- Scores and recordings made of numbers ----------------------------------------------------------------------------


def made_score(n_notes=24, name="made/scale"):
    """Eighth notes of a scale above half notes, two parts."""
    steps = np.array([60, 62, 64, 65, 67, 69, 71, 72])
    onset = np.concatenate([np.arange(n_notes) / 2, np.arange(0, n_notes / 2, 2)])
    offset = np.concatenate([np.arange(1, n_notes + 1) / 2, np.arange(2, n_notes / 2 + 2, 2)])
    pitch = np.concatenate([steps[np.arange(n_notes) % 8], np.full(len(onset) - n_notes, 48)])
    part = np.concatenate([np.zeros(n_notes, dtype=np.int64), np.ones(len(onset) - n_notes, dtype=np.int64)])
    order = np.lexsort((pitch, onset))
    return Score(name, 2, Notes(onset[order], offset[order], pitch[order], part[order]))


def made_recording(seed=0, seconds=8.0):
    """A warp drawn at random, and features that tell the score's time: bumps that follow each other."""
    rng = np.random.default_rng(seed)
    written = np.concatenate([[0.2], 0.2 + np.cumsum(rng.uniform(0.3, 0.6, int(seconds / 0.45)))])
    heard = np.concatenate([[0.4], 0.4 + np.cumsum(np.diff(written) * rng.uniform(0.7, 1.4, len(written) - 1))])
    score_times = features.times(int((written[-1] + 0.3) * FRAME_RATE))
    position = np.interp(features.times(int((heard[-1] + 0.3) * FRAME_RATE)), heard, written)

    def bumps(at, size):
        centres = np.linspace(0, written[-1], size)
        rows = np.exp(-0.5 * ((at[:, None] - centres) / (2 * written[-1] / size)) ** 2) + 1e-3
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    notes = Notes(written[:-1], written[1:], 60 + np.arange(len(written) - 1) % 12, np.zeros(len(written) - 1, int))
    score = {kind: bumps(score_times, size) for kind, size in SIZES.items()}
    played = {kind: bumps(position, size) for kind, size in SIZES.items()}
    return Recording(f"made{seed}", f"made{seed}", score, played, np.stack([written, heard], axis=1), notes)


def made_batch(n=3, kind="melspec"):
    return data.collate(data.slices([made_recording(seed) for seed in range(n)], kind, LENGTH)[: 2 * n])


def base(batch):
    return network.Identity()(batch)


def error(warp, batch):
    """Mean TimeErr in ms."""
    return 1000 * float(warp.errors(batch, "target").error.mean())


# --- Performances -----------------------------------------------------------------------------------------------------


def test_tempo_curve_grows_and_stays_near_its_tempo():
    time_map = performance.tempo_curve(200.0, 90.0, Manner(), np.random.default_rng(0))
    assert (np.diff(time_map.sound_knots) > 0).all()
    assert time_map.seconds(0.0) == LEAD
    tempo = time_map.tempo(np.linspace(0, 199, 1000))
    assert 75 < np.exp(np.log(tempo).mean()) < 100
    assert tempo.max() / tempo.min() > 1.4


def test_phrases_have_arcs_and_ritardandi_where_they_end():
    manner = Manner(phrase=(8.0, 8.0), arc=(0.3, 0.3), ritardando=(0.4, 0.4))
    quarters = np.linspace(0, 31.99, 3200)
    log_tempo = performance._phrases(quarters, manner, np.random.default_rng(0)).reshape(4, 800)
    np.testing.assert_allclose(log_tempo[0], log_tempo[3], atol=1e-2)
    np.testing.assert_allclose(log_tempo[0, 400], 0.1, atol=1e-3)  # a / 3 in the middle of a phrase
    np.testing.assert_allclose(log_tempo[0, 0], -0.2, atol=1e-2)
    np.testing.assert_allclose(log_tempo[0, -1], -0.2 - 0.4, atol=1e-2)
    without = dataclasses.replace(manner, ritardando=(0.0, 0.0))
    assert abs(performance._phrases(quarters, without, np.random.default_rng(0)).mean()) < 1e-3


def test_walk_has_the_deviation_and_memory_asked_for():
    manner = Manner(walk=0.2, walk_span=2.0)
    walk = performance._walk(40_000, manner, np.random.default_rng(0))
    assert walk.std() == pytest.approx(0.2, rel=0.1)
    lag = int(2.0 / performance.STEP)
    assert np.corrcoef(walk[:-lag], walk[lag:])[0, 1] == pytest.approx(np.exp(-1), abs=0.1)


def test_notes_start_near_the_truth_and_never_end_the_next_one():
    score = made_score(96)
    for seed in range(5):
        played = performance.play(score, Manner(presets=(0,), pedal=1.0), seed).performance
        late = played.notes.onset - played.time_map.seconds(score.notes.onset)
        assert np.abs(late).max() <= 3 * 0.018 + 1e-9
        assert late.std() == pytest.approx(0.018, rel=0.3)
        assert (played.notes.offset > played.notes.onset).all()
        for key in np.unique(played.notes.pitch):
            of = (played.notes.pitch == key) & (played.notes.part == 0)
            onset, offset = played.notes.onset[of], played.notes.offset[of]
            assert (offset[:-1] <= onset[1:] + 1e-9).all()


def test_performance_depends_on_seed_and_name_alone():
    score = made_score()
    first, again, other = (performance.play(score, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.performance.notes.onset, again.performance.notes.onset)
    assert first.score_tempo == again.score_tempo
    assert (first.performance.notes.onset != other.performance.notes.onset).all()


def test_pink_noise_has_the_level_asked_for():
    audio = np.sin(np.arange(SAMPLE_RATE) / 10).astype(np.float32)
    noise = performance.with_noise(audio, 6.0, np.random.default_rng(0)) - audio
    assert 10 * np.log10(np.square(audio).mean() / np.square(noise).mean()) == pytest.approx(6.0, abs=1e-3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[100:200].mean() / power[1000:2000].mean() == pytest.approx(10, rel=0.5)


def test_reverberation_lasts_and_low_pass_muffles():
    click = np.zeros(SAMPLE_RATE, dtype=np.float32)
    click[100] = 1
    echo = performance.reverberated(click, 0.5, 0.3, np.random.default_rng(0))
    assert np.square(echo[101:]).sum() == pytest.approx(0.3, rel=0.1)
    energy = np.square(echo[101:]).cumsum()
    after = int(0.25 * SAMPLE_RATE)  # half of the time: -30 dB
    assert 10 * np.log10(1 - energy[after] / energy[-1]) == pytest.approx(-30, abs=3)
    spectrum = np.abs(np.fft.rfft(performance.muffled(click, 3000.0)))
    assert spectrum[3000] == pytest.approx(np.sqrt(0.5), rel=0.02)  # a second of sound: bins are Hz
    bent = np.tan(np.pi * np.array([3000, 6000]) / SAMPLE_RATE)  # the bilinear transform's frequencies
    assert spectrum[6000] == pytest.approx((1 + (bent[1] / bent[0]) ** 4) ** -0.5, rel=0.02)


# --- Slices -----------------------------------------------------------------------------------------------------------


def test_slices_hold_the_truth_between_their_ends():
    recording = made_recording()
    found = data.slices([recording], "chroma", LENGTH)
    assert len(found) >= 3
    for one in found:
        assert len(one.played) == LENGTH
        times, values = one.truth.numpy().T
        assert times[0] == 0
        assert times[-1] == pytest.approx((len(one.score) - 1) / FRAME_RATE)
        heard = np.interp(times + one.start, *recording.truth.T)
        np.testing.assert_allclose(values, heard - one.first / FRAME_RATE, atol=1e-9)
        # The frames at the ends belong together, up to half a frame of the score.
        assert abs(values[0]) < 1.5 / FRAME_RATE
        assert abs(values[-1] - (LENGTH - 1) / FRAME_RATE) < 1.5 / FRAME_RATE
    assert [one.first for one in found] == sorted({one.first for one in found})


def test_batches_keep_the_order_and_every_slice():
    found = data.slices([made_recording(seed) for seed in range(2)], "cqt", LENGTH)
    order = torch.randperm(len(found)).tolist()
    got = [played for batch in data.batches(found, 3, order) for played in batch.played]
    assert all(torch.equal(a, found[index].played) for a, index in zip(got, order, strict=True))


def test_anchors_stay_inside_and_deviation_is_zero_on_the_truth():
    batch = made_batch()
    cells = methods.anchors(batch)
    last = torch.stack([batch.score_lengths, batch.played_lengths], 1)[:, None] - 1
    assert (cells >= 0).all()
    assert (cells <= last).all()
    apart = methods.deviation(batch)
    for item, length in enumerate(batch.score_lengths.tolist()):
        times, values = batch.truth_times[item].numpy(), batch.truth_values[item].numpy()
        count = int(batch.truth_lengths[item])
        true = np.interp(np.arange(length) / FRAME_RATE, times[:count], values[:count])
        expected = np.abs(np.arange(LENGTH) / FRAME_RATE - true[:, None])
        np.testing.assert_allclose(apart[item, :length], expected, atol=1e-9)


# --- Alignments and losses --------------------------------------------------------------------------------------------


def test_alignments_find_the_warp_that_features_tell():
    batch = made_batch()
    line, hard, smooth = (
        error(align(base(batch), batch), batch) for align in (methods.straight, methods.dtw, GDTW(1e-4))
    )
    assert hard < line
    assert smooth < hard / 2  # between frames
    assert smooth < 12


def test_dtw_warp_takes_the_last_frame_of_each_row():
    batch = made_batch()
    warp = methods.dtw(base(batch), batch)
    (path,) = dalign.dtw_path(batch.score[:1], batch.played[:1], x_lengths=batch.score_lengths[:1])
    expected = [int(path[path[:, 0] == row, 1].max()) for row in range(int(batch.score_lengths[0]))]
    np.testing.assert_allclose(warp.values[0, : len(expected)] * FRAME_RATE, expected)


def test_straight_line_ends_at_the_corners():
    batch = made_batch()
    warp = methods.straight(base(batch), batch)
    ends = warp.values.gather(1, batch.score_lengths[:, None] - 1)[:, 0]
    torch.testing.assert_close(ends, batch.duration.double(), check_dtype=False)


@pytest.mark.parametrize("name", ["soft-dtw", "along-gt", "dilate", "decdtw"])
def test_losses_lead_to_the_features(name):
    batch = made_batch()
    loss, _ = run.objective(name, 0.1, TINY)
    net = network.make(SIZES["melspec"], 8, seed=0)
    value = loss(net(batch), batch)
    value.backward()
    assert value.shape == ()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in net.score.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in net.played.parameters())


@pytest.mark.parametrize(("name", "share"), [("along-gt", 0.1), ("dilate", 0.8), ("decdtw", 0.1)])
def test_losses_prefer_the_truth_to_the_reverse(name, share):
    batch = made_batch()
    loss, _ = run.objective(name, 1e-3, TINY)
    sides = base(batch)
    reversed_sides = network.Sides(sides.score, sides.played.flip(1))
    assert loss(sides, batch) < share * loss(reversed_sides, batch)


def test_dilate_is_the_expected_deviation_in_seconds():
    batch = made_batch(1)
    sides = base(batch)
    cost = torch.cdist(sides.score.double(), sides.played.double()).square()
    total = 0.0
    for item, n in enumerate(batch.score_lengths.tolist()):
        soft = dalign.SoftDTW(0.1, metric="precomputed").alignment(cost[item : item + 1, :n])
        total += float((soft[0] * methods.deviation(batch)[item, :n]).sum()) / n
    assert float(methods.dilate(0.1)(sides, batch)) == pytest.approx(total / len(batch.score), rel=1e-4)


def test_lambda_is_learned_and_stays_positive():
    batch = made_batch()
    layer = GDTW(0.5, learn=True)
    loss = methods.time_error(layer)(base(batch), batch)
    loss.backward()
    assert layer.log_weight.grad.abs() > 0
    assert layer.weight == pytest.approx(0.5)
    assert not GDTW(0.5).log_weight.requires_grad


def test_network_is_a_gru_for_each_side_and_ignores_padding():
    batch = made_batch()
    net = network.make(SIZES["melspec"], 8, seed=3)
    torch.testing.assert_close(net(batch).played[0], alone(net.score, batch.played[0]))  # sides start alike
    with torch.no_grad():
        for parameter in net.played.parameters():
            parameter.mul_(1.5)
    sides = net(batch)
    assert int(batch.score_lengths.min()) < batch.score.shape[1]
    for item, length in enumerate(batch.score_lengths.tolist()):
        torch.testing.assert_close(sides.score[item, :length], alone(net.score, batch.score[item, :length]))
        torch.testing.assert_close(sides.played[item], alone(net.played, batch.played[item]))


def alone(gru, frames):
    """Features of one sequence by torch's own module."""
    return F.normalize(gru(frames[None])[0][0], dim=1)


def test_scan_has_the_derivatives_of_grus():
    torch.manual_seed(0)
    shapes = (5, 2, 3, 12), (2, 12, 4), (2, 12)
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(network.scan, arguments)


def test_training_lowers_the_error_and_keeps_the_best_epoch():
    slices = data.slices([made_recording(seed) for seed in range(4)], "chroma", LENGTH)
    net = network.make(SIZES["chroma"], 8, seed=0)
    layer = GDTW(0.3, "fast", learn=True)
    trainer = training.Trainer(slices[:8], slices[8:], methods.time_error(layer), layer)
    course = trainer.fit(net, training.Schedule(4, 4, 1e-2), seed=0)
    assert len(course.validation) == 5
    assert min(course.validation) < course.validation[0]
    assert course.best == int(np.argmin(course.validation))
    assert layer.weight != pytest.approx(0.3, abs=1e-4)
    kept = training.evaluate(net, layer, slices[8:], 4).error.mean()
    assert kept == pytest.approx(course.validation[course.best], abs=1e-3)


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_scores_of_performances():
    assert archive.score_name("000_bwv846p") == "wtc1p01"
    assert archive.score_name("117_bwv869f") == "wtc1f24"
    assert archive.score_name("017_bwv893f") == "wtc2f24"
    assert archive.score_name("sonata_take2") == "sonata"


def test_true_warp_from_notes():
    score = made_score(48)
    manner = Manner(asynchrony=0.01, pedal=0.0, presets=(0,))
    played = performance.play(score, manner, seed=4).performance
    written = performance.at_constant_tempo(score, 90.0)
    found = archive.match(written.notes, played.notes)
    quarters = written.time_map.quarters(found[:, 0])
    apart = np.abs(found[:, 1] - played.time_map.seconds(quarters))
    assert len(found) > 40
    assert apart[:-1].mean() < 0.02
    assert apart[:-1].max() < 0.15
    assert (np.diff(found, axis=0) > 0).all()


def test_only_growing_rows_are_kept():
    points = np.array([[0, 0], [1, 2], [2, 2], [2.5, 1], [3, 3.0]])
    np.testing.assert_array_equal(archive.growing(points), [[0, 0], [1, 2], [3, 3]])


@pytest.fixture
def recordings_folder(tmp_path):
    """Three pieces as KernScores and MAESTRO would have them: MIDI and sines, the third score in two performances."""
    pretty_midi = pytest.importorskip("pretty_midi")
    soundfile = pytest.importorskip("soundfile")
    for folder in ("data/score", "data/perf", "align/ground"):
        (tmp_path / folder).mkdir(parents=True)

    def write(path, notes):
        midi = pretty_midi.PrettyMIDI()
        piano = pretty_midi.Instrument(program=0)
        rows = zip(notes.onset, notes.offset, notes.pitch, strict=True)
        piano.notes = [pretty_midi.Note(80, int(pitch), float(on), float(off)) for on, off, pitch in rows]
        midi.instruments.append(piano)
        midi.write(str(path))

    for number, name in enumerate(("000_bwv846p", "001_bwv846f", "002_bwv870p", "003_bwv870p")):
        score = made_score(12)
        written = performance.at_constant_tempo(score, 100.0)
        manner = Manner(presets=(0,), pedal=0.0, rubato=0.4, asynchrony=0.005)
        played = performance.play(score, manner, seed=number).performance
        write(tmp_path / f"data/score/{archive.score_name(name)}.midi", written.notes)
        times = np.arange(int(played.last_offset * SAMPLE_RATE)) / SAMPLE_RATE
        sound = np.zeros_like(times)
        for on, off, pitch in zip(played.notes.onset, played.notes.offset, played.notes.pitch, strict=True):
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            sound += (times >= on) * (times < off) * np.sin(2 * np.pi * hertz * times) / 8
        soundfile.write(tmp_path / f"data/perf/{name}.wav", sound, SAMPLE_RATE)
        if number:
            quarters = np.arange(0, 6.01, 0.5)
            rows = np.stack([written.time_map.seconds(quarters), played.time_map.seconds(quarters)], axis=1)
            np.savetxt(tmp_path / f"align/ground/{name}.txt", rows, header="score performance")
        else:
            write(tmp_path / f"data/perf/{name}.midi", played.notes)
    return tmp_path


def test_folder_of_recordings(recordings_folder, tmp_path):
    pytest.importorskip("librosa")
    pytest.importorskip("tinysoundfont")
    parts = archive.load(recordings_folder, cache=tmp_path / "cache")
    assert {part: len({one.piece for one in found}) for part, found in parts.items()} == {
        "test": 1,
        "validation": 1,
        "train": 1,
    }
    found = {one.name: one for part in parts.values() for one in part}
    assert set(found) == {"000_bwv846p", "001_bwv846f", "002_bwv870p", "003_bwv870p"}
    assert found["001_bwv846f"].truth.shape == (13, 2)
    slices = data.slices(list(found.values()), "cqt", 48)
    assert len(slices) >= 4
    batch = data.collate(slices)
    aligned, line = (error(align(base(batch), batch), batch) for align in (GDTW(0.03), methods.straight))
    assert aligned < 0.9 * line


def test_folders_without_what_is_needed(recordings_folder):
    pytest.importorskip("librosa")
    pytest.importorskip("tinysoundfont")
    with pytest.raises(FileNotFoundError, match="no performances"):
        archive.load(recordings_folder / "align")
    with pytest.raises(ValueError, match="at least 3 pieces"):
        archive.split([made_recording(0), made_recording(1)])
    (recordings_folder / "data/perf/000_bwv846p.midi").unlink()
    written = archive.read_score(recordings_folder / "data/score/wtc1p01.midi")
    with pytest.raises(FileNotFoundError, match="neither"):
        archive.truth(recordings_folder / "data/perf/000_bwv846p.wav", recordings_folder, written)
    (recordings_folder / "data/score/wtc1p01.midi").unlink()
    with pytest.raises(FileNotFoundError, match="no score wtc1p01"):
        archive.read(recordings_folder / "data/perf/000_bwv846p.wav", recordings_folder)


# --- Sound ------------------------------------------------------------------------------------------------------------


def test_detuning_changes_pitch_but_not_time():
    pytest.importorskip("tinysoundfont")
    pytest.importorskip("pretty_midi")
    notes = Notes(np.array([0.5]), np.array([2.5]), np.array([69]), np.array([0]))
    played = performance.as_written(notes, "made/a", music.TimeMap(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    peaks = {}
    for cents in (0.0, 25.0):
        audio = performance.detuned(played, cents)
        assert abs(np.flatnonzero(np.abs(audio) > 0.02)[0] / SAMPLE_RATE - 0.5) < 0.02
        spectrum = np.abs(np.fft.rfft(audio[SAMPLE_RATE : 2 * SAMPLE_RATE], n=32 * SAMPLE_RATE))
        peaks[cents] = spectrum[400 * 32 : 480 * 32].argmax() / 32 + 400
    assert 1200 * np.log2(peaks[25.0] / peaks[0.0]) == pytest.approx(25, abs=3)


def test_rendered_recording(tmp_path):
    pytest.importorskip("tinysoundfont")
    pytest.importorskip("pretty_midi")
    pytest.importorskip("librosa")
    recording = data.render(made_score(32), "room", cache=tmp_path)
    for kind, size in SIZES.items():
        assert recording.score[kind].shape[1] == recording.played[kind].shape[1] == size
        norms = np.linalg.norm(recording.played[kind], axis=1)
        np.testing.assert_allclose(norms[norms > 0.5], 1, atol=2e-3)
    again = data.render(made_score(32), "room", cache=tmp_path)
    np.testing.assert_array_equal(again.played["cqt"], recording.played["cqt"])
    assert len(list((tmp_path / "music" / "warps").iterdir())) == 2
    batch = data.collate(data.slices([recording], "cqt", 128))
    aligned, line = (error(align(base(batch), batch), batch) for align in (GDTW(0.1), methods.straight))
    assert aligned < min(60, line)


# --- Whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_music(monkeypatch):
    """Recordings of numbers in place of rendered ones; counts how often they are asked for."""
    calls = []

    def load(counts, quarters, sound, seed=0, cache=None):
        calls.append(counts)
        return {
            part: [made_recording(10 * place + one) for one in range(count)]
            for place, (part, count) in enumerate(counts.items())
        }

    monkeypatch.setattr(data, "load", load)
    return calls


def test_run_writes_tables_and_pictures_and_goes_on(tmp_path, made_music):
    pytest.importorskip("matplotlib")
    settings = Settings(scale=TINY, kinds=("chroma",), methods=("base", "soft-dtw"), out=tmp_path, threads=1)
    run.run(settings)
    every = dataclasses.replace(settings, methods=METHODS)
    content = run.run(every).content
    assert len(made_music) == 2
    run.run(every)
    assert len(made_music) == 2  # all is done
    found = tables.entries(content)
    assert list(found) == [("chroma", method) for method in METHODS]
    assert list(found["chroma", "base"][0]["grid"]) == [f"{weight:g}" for weight in GRID]
    assert found["chroma", "decdtw"][0]["weight"] == pytest.approx(WEIGHTS["chroma"])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    ours = tables.mean(found["chroma", "base"], "gdtw")
    assert f"{ours[0]:.0f}/{ours[1]:.0f} (24/39)" in text
    assert "Table 3" in text
    grid = found["chroma", "base"][0]["grid"]
    best = min(grid, key=lambda weight: grid[weight]["validation"][0])
    tuned = grid[best]["test"]
    assert f"{tuned[0]:.0f}/{tuned[1]:.0f} (λ = {best})" in text
    assert "n_train 3 (60)" in text
    for name in ("alignments_1.png", "alignments_2.png", "training.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert json.loads((tmp_path / "results.json").read_text()) == read(tmp_path / "results.json")
    with pytest.raises(ValueError, match="made with other settings"):
        run.run(dataclasses.replace(every, sound="noise"))


def test_equal_seeds_give_equal_networks(tmp_path, made_music):
    pytest.importorskip("matplotlib")
    entries = []
    for name in ("a", "b"):
        settings = Settings(scale=TINY, kinds=("chroma",), methods=("decdtw",), out=tmp_path / name, threads=1)
        (entry,) = run.run(settings).content["entries"]["score"].values()
        entries.append(entry)
    assert entries[0]["gdtw"] == entries[1]["gdtw"]
    assert entries[0]["course"]["losses"] == entries[1]["course"]["losses"]


def test_parts_without_slices_are_named():
    with pytest.raises(ValueError, match="test: no recording is as long"):
        run.check({"train": data.slices([made_recording()], "cqt", LENGTH), "test": []}, TINY)


def test_tables_of_the_paper_agree():
    for kind in SIZES:
        assert set(paper.DTW[kind]) == set(paper.GDTW[kind]) == {method for _, method, _ in paper.TABLE_1}
    assert paper.GDTW["melspec"]["decdtw"] == (16, 27)


def test_command_line(monkeypatch, capsys):
    settings = parse(["--features", "melspec", "cqt", "--methods", "decdtw", "base", "--epochs", "3", "--train", "5"])
    assert settings.kinds == ("cqt", "melspec")
    assert settings.methods == ("base", "decdtw")
    assert (settings.scale.epochs, settings.scale.dilate_epochs, settings.scale.n_train) == (3, 3, 5)
    assert settings.scale.n_test == SCALES["small"].n_test
    assert parse([]).scale == SCALES["small"]
    assert parse(["--scale", "paper"]).scale.schedule("dilate").epochs == 300
    with pytest.raises(SystemExit):
        parse(["--train", "0"])
    asked = []
    monkeypatch.setattr(run, "main", asked.append)
    command.main(["score", "--scale", "paper"])
    assert asked == [["--scale", "paper"]]
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "audio to score" in capsys.readouterr().out


def test_missing_folder_ends_with_a_message(tmp_path):
    with pytest.raises(SystemExit, match="no performances"):
        run.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
