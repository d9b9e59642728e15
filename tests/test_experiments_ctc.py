"""The CTC experiment on prompts made of tones: a letter is a tone, so that a tiny network can learn to spell."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

import torch_dalign as dalign
from experiments.ctc import __main__ as command
from experiments.ctc import data, evaluation, report, timing, training
from experiments.ctc.network import CharacterNet
from experiments.ctc.settings import SCALES, Settings, parse
from experiments.data import speech

LETTERS = "abcd "
TINY = dataclasses.replace(
    SCALES["small"],
    channels=24,
    hidden=16,
    dropout=0.0,
    epochs=2,
    batch_size=4,
    learning_rate=0.02,
    order=3,
    beam_width=8,
)


def tones(text: str, seed: int = 0) -> np.ndarray:
    """A quarter of a second of a tone for each letter, silence for a space, a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(speech.SAMPLE_RATE // 4) / speech.SAMPLE_RATE
    parts = [np.sin(2 * np.pi * 300 * 2 ** LETTERS.index(c) * time) * (c != " ") for c in text]
    return (0.3 * np.concatenate(parts) + 0.01 * rng.standard_normal(len(time) * len(text))).astype(np.float32)


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcd"), rng.integers(1, 4))) for _ in range(2 * count)]
    return [f"{a} {b}" if len(a) < 3 else a for a, b in zip(words[::2], words[1::2], strict=True)]


def write_wav(path: Path, audio: np.ndarray, rate: int = speech.SAMPLE_RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, (audio * 32767).astype(np.int16))


def write_folder(folder: Path, count: int = 24) -> Path:
    """A part of the recordings beside the table of all."""
    lines = ["name\tseconds\tin_this_folder\ttranscript", "beep\t0.4\t0\t[a beep]", "gone\t1\t0\tNot here."]
    for k, text in enumerate(texts(count)):
        write_wav(folder / "digits" / f"{k:02}.wav", tones(text, k))
        lines.append(f"digits/{k:02}\t1.0\t1\t{text.title()}.")
    (folder / "transcripts_all.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As the experiment itself: networks so small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def parts(folder) -> dict[str, list[data.Utterance]]:
    return data.load(folder, longest=10.0, seed=0)


def settings(folder: Path, out: Path = Path("out"), **changes) -> Settings:
    return Settings(scale_name="tiny", scale=TINY, speech=folder, out=out, **changes)


# ---------------------------------------------------------------- the recordings


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Press 1, or dial 9 now!", "press one or dial nine now"),
        ("Call-Forward on No Answer.", "call forward on no answer"),
        ("at [@]", "at"),
        ("  You've   got mail ", "you've got mail"),
        ('polite "don\'t call" menu', "polite don't call menu"),
        ("dial 500", ""),
        ("3D audio", ""),
        ("[this is a beep]", ""),
        ("(1 second of silence)", ""),
        ("press * now", ""),
    ],
)
def test_spelling(raw, text):
    assert speech.spelled(raw) == text


def test_a_folder_with_a_table(folder):
    prompts = speech.load(folder)
    assert [prompt.name for prompt in prompts] == [f"digits/{k:02}" for k in range(24)]
    assert [prompt.text for prompt in prompts] == texts(24)
    assert prompts[3].audio.dtype == np.float32
    np.testing.assert_allclose(prompts[3].audio, tones(texts(24)[3], 3), atol=1e-4)
    assert prompts[3].seconds == pytest.approx(0.25 * len(prompts[3].text))


def unpack(root: Path) -> None:
    """What dpkg makes of the two packages."""
    sounds = root / "usr/share/asterisk/sounds/en_US_f_Allison"
    write_wav(sounds / "activated.wav", tones("ab"))
    write_wav(sounds / "digits" / "1.wav", tones("a"))
    doc = root / "usr/share/doc/asterisk-core-sounds-en"
    doc.mkdir(parents=True)
    listing = "; Core Asterisk Sounds in English\n\nactivated: Activated.\ndigits/1: One: 1\nbeep: [a beep]\n"
    (doc / "core-sounds-en.txt.gz").write_bytes(gzip.compress(listing.encode()))


def test_the_unpacked_packages(tmp_path):
    unpack(tmp_path)
    prompts = speech.load(tmp_path)
    assert [(prompt.name, prompt.text) for prompt in prompts] == [("activated", "activated"), ("digits/1", "one one")]


def write_tool(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """A folder in front of the PATH: an apt-get that makes empty packages, a dpkg that unpacks the same always."""
    bin_ = tmp_path / "bin"
    unpack(tmp_path / "made")
    write_tool(bin_ / "apt-get", 'echo "$@" >> "$0.log"; shift; for name in "$@"; do touch "${name}_1_all.deb"; done\n')
    write_tool(bin_ / "dpkg", f'mkdir -p "$3"; cp -r "{tmp_path}/made/." "$3"\n')
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    return bin_


def test_fetching_once_with_the_licence(tmp_path, tools, capsys):
    cache = tmp_path / "cache"
    assert len(speech.load(cache=cache)) == 2
    assert "CC BY-SA 3.0" in capsys.readouterr().out
    assert "Allison Smith" in (cache / "speech" / "LICENCE.txt").read_text()
    assert len(speech.load(cache=cache)) == 2
    assert (tools / "apt-get.log").read_text() == "download asterisk-core-sounds-en-wav asterisk-core-sounds-en\n"
    assert [path.name for path in cache.iterdir()] == ["speech"]


def test_a_download_that_fails(tmp_path, tools):
    write_tool(tools / "apt-get", 'echo "E: Unable to locate package" >&2; exit 100\n')
    with pytest.raises(speech.DataError, match=r"apt-get download ...` failed: E: Unable to locate package .*--speech"):
        speech.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_apt(tmp_path, monkeypatch):
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(speech.DataError, match=r"no apt-get and no dpkg: .* --speech FOLDER"):
        speech.fetch(tmp_path / "cache")


def test_folders_without_recordings(tmp_path):
    with pytest.raises(speech.DataError, match=r"neither transcripts_all.*nor the unpacked packages"):
        speech.load(tmp_path)
    (tmp_path / "transcripts_all.tsv").write_text("name\tseconds\tin_this_folder\ttranscript\na\t1\t1\tText\n")
    with pytest.raises(speech.DataError, match="none of the 1 recordings"):
        speech.load(tmp_path)
    write_wav(tmp_path / "a.wav", tones("a"), rate=16000)
    with pytest.raises(speech.DataError, match="8000 samples per second"):
        speech.load(tmp_path)


def test_no_text_is_in_two_parts():
    prompts = [speech.Prompt(str(k), np.zeros(8, np.float32), text) for k, text in enumerate("abcdefgh" * 5)]
    split = speech.split(prompts, seed=3)
    assert sorted(prompt.name for part in split.values() for prompt in part) == sorted(p.name for p in prompts)
    found = [{prompt.text for prompt in part} for part in split.values()]
    assert sum(map(len, found)) == 8
    assert {name: len(part) for name, part in split.items()} == {"train": 30, "validation": 5, "test": 5}
    assert speech.split(prompts, seed=3) == split
    assert speech.split(prompts, seed=4) != split


def test_features_and_labels():
    frames = speech.mel(tones("abca"))
    assert frames.shape == (101, 80)
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-4)
    a, b, c, again = (frames[start + 3 : start + 22].mean(axis=0) for start in (0, 25, 50, 75))
    assert a.argmax() == again.argmax() < b.argmax() < c.argmax()
    assert speech.encode(" 'az") == [1, 2, 3, 28]
    assert speech.decode(speech.encode("it's a text")) == "it's a text"
    assert speech.N_CLASSES == 29


# ---------------------------------------------------------------- batches, network


def test_a_pass_has_every_prompt_once(parts):
    sizes = []
    targets = []
    for batch in training_pass(parts, seed=0):
        sizes.append(len(batch.lengths))
        assert batch.features.shape[:2] == (sizes[-1], int(batch.lengths.max()))
        targets += [
            tuple(row[:n].tolist()) for row, n in zip(batch.targets, batch.target_lengths.tolist(), strict=True)
        ]
    assert max(sizes) == 4
    assert sorted(targets) == sorted(tuple(one.labels.tolist()) for one in parts["train"])
    again, other = training_pass(parts, seed=0), training_pass(parts, seed=1)
    first = training_pass(parts, seed=0)
    assert all(torch.equal(a.features, b.features) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.lengths, b.lengths) for a, b in zip(first, other, strict=False))


def training_pass(parts, seed: int) -> list[data.Batch]:
    return list(data.training_batches(parts["train"], 4, np.random.default_rng(seed)))


def test_changes_are_small(parts):
    one, rng = parts["train"][0], np.random.default_rng(0)
    for _ in range(50):
        changed = data.changed(one, rng)
        assert 0.89 <= len(changed.features) / len(one.features) <= 1.11
        assert changed.labels is one.labels
        hidden = changed.features == 0
        assert hidden.float().mean() < 0.5
    single = dataclasses.replace(one, features=one.features[:1])
    assert data.changed(single, rng).features.shape == (1, 80)


def test_padding_changes_nothing(parts):
    network = CharacterNet(8, 6, 0.0).eval()
    some = sorted(parts["train"], key=lambda one: len(one.features))[::7]
    together = evaluation.outputs(network, some)
    for b, one in enumerate(some):
        alone = evaluation.outputs(network, [one])
        assert together.lengths[b] == alone.lengths[0] == -(-len(one.features) // 4)
        torch.testing.assert_close(together.log_probs[: alone.lengths[0], b], alone.log_probs[:, 0])


# ---------------------------------------------------------------- error rates, decoding


@functools.cache
def distance_by_definition(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance_by_definition(one[1:], other) + 1,
        distance_by_definition(one, other[1:]) + 1,
        distance_by_definition(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.text("ab ", max_size=7), st.text("ab ", max_size=7))
def test_edit_distance(one, other):
    assert evaluation.edit_distance(one, other) == distance_by_definition(one, other)


def test_error_rates():
    rates = evaluation.error_rates(["a cat", "dog"], ["the cat", "dog"])
    assert rates == {"cer": 3 / 10, "wer": 1 / 3}


def test_the_ngram_helps_where_the_network_hesitates(parts):
    """Logits that cannot tell b from c; the training texts can."""
    text = "abab"
    model = dalign.NGram(speech.N_CLASSES, 3).fit([speech.encode(text)] * 3)
    logits = torch.full((len(text), 1, speech.N_CLASSES), -9.0)
    for t, letter in enumerate(text):
        for choice in "bc" if letter == "b" else "a":
            logits[t, 0, speech.encode(choice)[0]] = 5.0 + 0.1 * (choice == "c")
    out = evaluation.Outputs(logits.log_softmax(2), torch.tensor([len(text)]))
    assert evaluation.greedy(out) == evaluation.beam(out, 8) == ["acac"]
    assert evaluation.beam(out, 8, model, 1.0) == [text]
    tuned = evaluation.tune(out, [text], model, dataclasses.replace(TINY, weights=(0.0, 1.0), bonuses=(0.0,)))
    assert tuned == {"weight": 1.0, "bonus": 0.0, "validation_cer": 0.0}


def test_the_language_model_counts_a_text_once(parts):
    doubled = parts["train"] + parts["train"]
    one, other = (evaluation.language_model(utterances, 3) for utterances in (parts["train"], doubled))
    assert all(torch.equal(a, b) for a, b in zip(one.arrays, other.arrays, strict=True))


# ---------------------------------------------------------------- training


def test_both_losses_give_the_same_numbers(parts):
    network = CharacterNet(8, 6, 0.0)
    found = timing.compare(network, parts["train"], training.TIMED, size=4, repetitions=1)
    assert list(found["milliseconds"]) == ["torch", "dalign", "dalign, from logits"]
    assert found["batches"] == len(training_pass(parts, 0))
    assert all(value > 0 for value in found["milliseconds"].values())
    for name in training.TIMED:
        assert found["value_difference"][name] < 1e-5
        assert 0 < found["gradient_difference"][name] < 1e-4


def test_both_trainings_are_the_same_but_for_rounding(parts, folder):
    results = [training.train(name, parts, settings(folder)) for name in training.LOSSES]
    first, second = (np.array(result.step_losses) for result in results)
    assert len(first) == TINY.epochs * len(training_pass(parts, 0))
    np.testing.assert_allclose(first[:3], second[:3], rtol=1e-4)
    again = training.train("dalign", parts, settings(folder))
    assert again.step_losses == results[1].step_losses
    assert again.epoch_errors == results[1].epoch_errors


def test_training_learns_to_spell(parts, folder):
    scale = dataclasses.replace(TINY, epochs=60, learning_rate=0.01)
    result = training.train("dalign", parts, dataclasses.replace(settings(folder), scale=scale))
    assert result.epoch_losses[-1] < 1.2  # letters by their frequency alone: 1.9
    assert all(seconds > 0 for seconds in result.seconds.values())


# ---------------------------------------------------------------- whole runs


def test_a_whole_run(folder, tmp_path):
    pytest.importorskip("matplotlib")
    content = command.run(settings(folder, tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.json",
        "results.md",
        "training.png",
        "alignment.png",
        "trained",
    }
    stored = report.read(tmp_path / "out" / "results.json")
    assert stored == json.loads(json.dumps(content))
    text = (tmp_path / "out" / "results.md").read_text()
    assert text == report.markdown(stored)
    for part in ("| torch |", "| dalign |", "dalign, from logits", "beam, n-gram", "times faster", "CC BY-SA 3.0"):
        assert part in text
    assert sum(part["prompts"] for part in stored["data"].values()) == 24


def test_trained_networks_are_kept(parts, folder, tmp_path, monkeypatch):
    chosen = settings(folder, tmp_path)
    result = training.train_or_restore("dalign", parts, chosen)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    again = training.train_or_restore("dalign", parts, chosen)
    assert (again.step_losses, again.epoch_errors, again.seconds) == (
        result.step_losses,
        result.epoch_errors,
        result.seconds,
    )
    for one, other in zip(result.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        training.train_or_restore("dalign", parts, dataclasses.replace(chosen, seed=1))


def test_a_run_with_one_loss(folder, tmp_path):
    pytest.importorskip("matplotlib")
    content = command.run(settings(folder, tmp_path, losses=("dalign",), seed=1))
    assert list(content["trainings"]) == ["dalign"]
    assert "differ by at most" not in report.markdown(content)


def test_too_few_prompts(tmp_path, capsys):
    write_folder(tmp_path, 2)
    with pytest.raises(SystemExit, match="too few to split"):
        command.main(["--speech", str(tmp_path), "--out", str(tmp_path / "out")])


def test_command_line():
    chosen = parse(["--speech", "a", "--scale", "paper", "--losses", "dalign", "--seed", "3", "--threads", "2"])
    assert chosen.speech == Path("a")
    assert chosen.scale is SCALES["paper"]
    assert (chosen.losses, chosen.seed, chosen.threads) == (("dalign",), 3, 2)
    assert parse([]).losses == ("torch", "dalign")
    with pytest.raises(SystemExit):
        parse(["--threads", "0"])


def test_stored_tables_are_those_of_the_stored_numbers():
    folder = Path(command.__file__).parent / "results"
    content = report.read(folder / "results.json")
    assert (folder / "results.md").read_text() == report.markdown(content)
    expected = Settings(scale_name="small", scale=SCALES["small"], seed=content["settings"]["seed"]).as_dict()
    assert content["settings"] == json.loads(json.dumps(expected))
    for trained in content["trainings"].values():
        found = trained["decoding"]
        for way in report.WAYS:
            rates = evaluation.error_rates(found["texts"][way], found["truth"])
            assert found["test"][way]["cer"] == pytest.approx(rates["cer"])
            assert found["test"][way]["wer"] == pytest.approx(rates["wer"])
