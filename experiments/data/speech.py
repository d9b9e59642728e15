"""Recorded prompts with transcripts: sentences and words by one American English speaker, 8,000 samples per second.

The recordings are Debian's package asterisk-core-sounds-en-wav, the texts its companion asterisk-core-sounds-en. Nobody
needs to install them: `fetch` downloads both with apt-get and unpacks them with dpkg into the cache folder,

    python -m experiments.data.speech

does only that. Or give a folder (`load(path)`): one where the packages are unpacked (`dpkg -x PACKAGE.deb FOLDER` for
both), or a part of the recordings beside a table transcripts_all.tsv (columns name and transcript, tab-separated).

    prompts = load()                     # those whose text can be spelled with the letters of ALPHABET
    parts   = split(prompts, seed=0)     # train, validation, test; no text is in two parts
    frames  = mel(prompts[0].audio)      # log-mel spectrogram (N, 80), 100 frames per second
    labels  = encode(prompts[0].text)    # 1 ... 28; 0 is left for the blank

Licence of the recordings: Creative Commons Attribution-ShareAlike 3.0, (c) Allison Smith and Digium; `fetch` prints it
and keeps it beside the data. Figures made from them are to carry the same notice.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data.music import cache_folder
from experiments.data.ucr import DataError as DataError

Floats = NDArray[np.float32]

PACKAGES = ("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en")
LICENCE = (
    "Recordings: Allison Smith (theivrvoice.com), financed by Digium, Inc.; (c) 2003-2010 Allison Smith / Digium, "
    "licence CC BY-SA 3.0 (creativecommons.org/licenses/by-sa/3.0). Debian packages " + " and ".join(PACKAGES) + "."
)
SAMPLE_RATE = 8000
ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
"""Label k is ALPHABET[k - 1]."""
N_CLASSES = len(ALPHABET) + 1
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A recording: `audio` (n,) in [-1, 1], 8,000 samples per second, and its `text` in the letters of ALPHABET."""

    name: str
    audio: Floats
    text: str

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.audio) / SAMPLE_RATE


# --- Getting the recordings -------------------------------------------------------------------------------------------


def fetch(cache: Path | None = None) -> Path:
    """The folder with both packages unpacked; downloads them when they are not there.

    Raises
    ------
    DataError
        Where there is no apt-get or no dpkg, or the download fails.
    """
    folder = (cache or cache_folder()) / "speech"
    if folder.is_dir():
        return folder
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise DataError(
            f"no {' and no '.join(missing)}: the recordings are the Debian packages {' and '.join(PACKAGES)}; unpack "
            "both elsewhere (`dpkg -x PACKAGE.deb FOLDER`) and give the folder by --speech FOLDER"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _run(["apt-get", "download", *PACKAGES], Path(scratch))
        whole = Path(scratch, "whole")
        for package in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(whole)], Path(scratch))
        (whole / "LICENCE.txt").write_text(LICENCE + "\n", encoding="utf-8")
        whole.replace(folder)  # in one step: a half-filled folder is never taken for the data
    print(f"{LICENCE}\nUnpacked in {folder}")
    return folder


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"`{' '.join(command[:2])} ...` failed: {last} (a stale package list? `apt-get update`; no network or not "
            "Debian? --speech FOLDER with the unpacked packages)"
        )


# --- Reading them -----------------------------------------------------------------------------------------------------


def load(path: Path | None = None, cache: Path | None = None) -> list[Prompt]:
    """All prompts that can be spelled, sorted by name.

    Parameters
    ----------
    path : Path, optional
        Folder with the recordings (see the module); default: `fetch(cache)`.

    Raises
    ------
    DataError
        If the folder has no transcripts, or none of the recordings that they name.
    """
    folder = fetch(cache) if path is None else path
    texts, root = transcripts(folder)
    found = [
        Prompt(name, read_wav(root / f"{name}.wav"), text)
        for name, raw in sorted(texts.items())
        if (text := spelled(raw)) and (root / f"{name}.wav").is_file()
    ]
    if not found:
        raise DataError(f"{folder}: none of the {len(texts)} recordings that its transcripts name")
    return found


def transcripts(folder: Path) -> tuple[dict[str, str], Path]:
    """Texts by name as they were written, and the folder that the names (without .wav) are relative to."""
    table = folder / "transcripts_all.tsv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return {row["name"]: row["transcript"] for row in rows}, folder
    listed = next(iter(sorted(folder.rglob("core-sounds-en.txt*"))), None)
    root = next((path for path in sorted(folder.rglob("en_US_f_Allison")) if path.is_dir()), None)
    if listed is None or root is None:
        raise DataError(f"{folder}: neither transcripts_all.tsv nor the unpacked packages {' and '.join(PACKAGES)}")
    data = listed.read_bytes()
    text = (gzip.decompress(data) if listed.suffix == ".gz" else data).decode("utf-8")
    lines = (line.partition(": ") for line in text.splitlines() if not line.startswith(";"))
    return {name: rest for name, colon, rest in lines if colon}, root


def spelled(raw: str) -> str:
    """A transcript in the letters of ALPHABET, or "" where that cannot be done without guessing.

    A sign named in brackets ("at [@]") is left out; any other bracket tells of tones and silence. A digit of its own
    is its name; longer numbers can be read in several ways.
    """
    text = re.sub(r"\[.\]", " ", raw.lower())
    text = re.sub(r"\b\d\b", lambda digit: f" {DIGITS[int(digit[0])]} ", text)
    text = " ".join(re.sub(r"[-.,;:!?\"]", " ", text).split())
    return text if set(text) <= set(ALPHABET) else ""


def read_wav(path: Path) -> Floats:
    """Samples in [-1, 1] of a mono file with 16 bits and 8,000 samples per second."""
    from scipy.io import wavfile

    rate, samples = wavfile.read(path)
    if rate != SAMPLE_RATE or samples.ndim != 1 or samples.dtype != np.int16:
        raise DataError(f"{path}: {SAMPLE_RATE} samples per second, 16 bits and one channel expected")
    return samples.astype(np.float32) / 32768


def split(prompts: Sequence[Prompt], seed: int = 0, share: float = 0.1) -> dict[str, list[Prompt]]:
    """Train, validation and test; the last two get `share` of the prompts each. Equal texts stay together."""
    texts = sorted({prompt.text for prompt in prompts})
    order = np.random.default_rng(seed).permutation(len(texts))
    size = round(share * len(prompts))
    parts: dict[str, list[Prompt]] = {"test": [], "validation": [], "train": []}
    for index in order:
        part = next((name for name in ("test", "validation") if len(parts[name]) < size), "train")
        parts[part] += [prompt for prompt in prompts if prompt.text == texts[index]]
    return {name: parts[name] for name in ("train", "validation", "test")}


# --- Features and labels ----------------------------------------------------------------------------------------------

HOP = 80  # samples from frame to frame: 10 ms


def mel(audio: Floats, n_mels: int = 80) -> Floats:
    """Log-mel spectrogram (N, n_mels), each band of zero mean and unit deviation over the recording."""
    import librosa

    power = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE, n_fft=512, win_length=200, hop_length=HOP, n_mels=n_mels
    )
    values = np.log(power.T + 1e-6)
    deviation: Any = values.std(axis=0) + 1e-3
    return np.asarray((values - values.mean(axis=0)) / deviation, dtype=np.float32)


def encode(text: str) -> list[int]:
    """Labels of a text."""
    return [1 + ALPHABET.index(letter) for letter in text]


def decode(labels: Sequence[int]) -> str:
    """The text of labels."""
    return "".join(ALPHABET[label - 1] for label in labels)


if __name__ == "__main__":
    print(fetch())
