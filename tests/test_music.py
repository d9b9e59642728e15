"""Rendered music: its ground truth must be exact, since trainings are judged by it."""

import dataclasses
import zipfile

import numpy as np
import pytest

from experiments.data import music
from experiments.data.music import Notes, Score, Style, TimeMap


def small_score() -> Score:
    """Two parts in three quarter notes: C4 E4 E4 above, C3 (two quarters) C3 below."""
    onset = np.array([0.0, 0.0, 1.0, 2.0, 2.0])
    offset = np.array([2.0, 1.0, 2.0, 3.0, 3.0])
    return Score("made/small", 2, Notes(onset, offset, np.array([48, 60, 64, 48, 64]), np.array([1, 0, 0, 1, 0])))


def test_pitch_classes_start_at_the_onset_and_stop_at_the_offset():
    roll = music.pitch_classes(small_score().notes, np.array([-0.1, 0.0, 0.99, 1.0, 2.99, 3.0]))
    expected = np.zeros((6, 12), dtype=np.uint8)
    expected[1:3, 0] = 1  # C alone, doubled by the upper part
    expected[3:5, [0, 4]] = 1
    np.testing.assert_array_equal(roll, expected)


def test_chord_sequence_merges_equal_neighbours():
    chords = music.chord_sequence(small_score().notes)
    np.testing.assert_array_equal(chords.start, [0.0, 1.0])
    np.testing.assert_array_equal(chords.end, [1.0, 3.0])
    assert [np.flatnonzero(row).tolist() for row in chords.pitch_classes] == [[0], [0, 4]]


def test_chord_sequence_keeps_rests():
    notes = Notes(np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.array([60, 60]), np.array([0, 0]))
    chords = music.chord_sequence(notes)
    np.testing.assert_array_equal(chords.pitch_classes.sum(axis=1), [1, 0, 1])


def test_time_map_is_its_own_inverse_and_keeps_its_bounds():
    style = Style(tempo=(60.0, 120.0), tempo_span=2.0)
    time_map = music.random_time_map(40.0, style, np.random.default_rng(0))
    quarters = np.linspace(-1.0, 42.0, 300)
    np.testing.assert_allclose(time_map.quarters(time_map.seconds(quarters)), quarters, atol=1e-12)
    tempo = time_map.tempo(np.linspace(0.0, 40.0, 500))
    assert tempo.min() >= 60.0 * (1 - 1e-12)
    assert tempo.max() <= 120.0 * (1 + 1e-12)
    assert tempo.max() - tempo.min() > 10.0


def test_time_map_goes_through_its_knots():
    time_map = TimeMap(np.array([0.0, 1.0, 3.0]), np.array([0.0, 0.5, 2.5]))
    np.testing.assert_allclose(
        time_map.seconds(np.array([0.0, 0.5, 1.0, 2.0, 3.0, 4.0])), [0, 0.25, 0.5, 1.5, 2.5, 3.5]
    )


def test_constant_tempo_is_exact():
    played = music.perform(small_score(), Style(tempo=(120.0, 120.0)))
    np.testing.assert_allclose(played.notes.onset, small_score().notes.onset / 2, atol=1e-12)


def test_performance_depends_on_seed_and_name_alone():
    score = small_score()
    first, again, other = (music.perform(score, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.notes.onset, again.notes.onset)
    np.testing.assert_array_equal(first.velocity, again.velocity)
    assert (first.notes.offset != other.notes.offset).any()
    renamed = music.perform(dataclasses.replace(score, name="made/other"), seed=1)
    assert (first.notes.offset != renamed.notes.offset).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"tempo": (0.0, 60.0)},
        {"tempo": (90.0, 60.0)},
        {"tempo_span": 0.0},
        {"velocity": (0, 60)},
        {"velocity": (90, 60)},
        {"presets": ()},
        {"presets": (128,)},
    ],
)
def test_bad_style_names_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Style(**bad)


def test_cache_computes_once_and_again_when_something_changes(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    for key in ({"x": 1}, {"x": 1}, {"x": 2}):
        np.testing.assert_array_equal(music.cached("kind", "name", key, compute, tmp_path)["a"], [0, 1, 2])
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut off"])
def test_damaged_cache_entry_is_made_anew(tmp_path, content):
    music.cached("kind", "name", {}, lambda: {"a": np.arange(3)}, tmp_path)
    (entry,) = (tmp_path / "music" / "kind").iterdir()
    entry.write_bytes(content)
    assert not zipfile.is_zipfile(entry)
    np.testing.assert_array_equal(
        music.cached("kind", "name", {}, lambda: {"a": np.arange(4)}, tmp_path)["a"], range(4)
    )


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DALIGN_CACHE", raising=False)
    assert music.cache_folder() == tmp_path / "torch-dalign"
    monkeypatch.setenv("DALIGN_CACHE", str(tmp_path / "own"))
    assert music.cache_folder() == tmp_path / "own"


def test_too_few_pieces_is_an_error(monkeypatch):
    monkeypatch.setattr(music.Recipe, "piece", lambda self, name: None)
    with pytest.raises(ValueError, match="only 0 pieces"):
        list(music.make_pieces(["a", "b"], music.Recipe(), 1))


def test_sound_starts_with_the_note(tmp_path):
    """Before the first onset there is silence; a tone of 440 Hz peaks in the bin of A4."""
    for package in ("tinysoundfont", "pretty_midi", "librosa"):
        pytest.importorskip(package)
    score = Score("made/a4", 1, Notes(np.array([2.0]), np.array([4.0]), np.array([69]), np.array([0])))
    played = music.perform(score, Style(tempo=(120.0, 120.0)))
    audio = music.synthesize(played)
    rate = 22050
    assert np.abs(audio[: rate - 50]).max() < 1e-3
    assert np.abs(audio[rate : rate + rate // 10]).max() > 0.1
    piece = music.make_piece(score, Style(tempo=(120.0, 120.0)), music.Spectrum(), cache=tmp_path)
    assert piece.frames.times[0] >= 1.0
    assert piece.frames.times[-1] < 2.0
    assert (piece.frames.values.mean(axis=0).argmax() - 1) // 3 in (69 - 24 - 1, 69 - 24)
    assert piece.strong[:, 9].all()
    assert piece.strong.sum() == len(piece.strong)


def test_corpus_scores_are_read(tmp_path):
    pytest.importorskip("music21")
    names = music.chorale_names()
    assert len(names) > 300
    score = music.load_score("bach/bwv269", tmp_path)
    assert score.n_parts == 4
    assert set(score.notes.part.tolist()) == {0, 1, 2, 3}
    assert (np.diff(score.notes.onset) >= 0).all()
    assert (score.notes.offset > score.notes.onset).all()
