"""Curves and times of the trainings, and a forced alignment over the sound. Colours by Okabe and Ito."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import torch_dalign as dalign
from experiments.ctc import evaluation
from experiments.ctc.data import Utterance
from experiments.ctc.network import SECONDS_PER_FRAME, CharacterNet
from experiments.ctc.report import Content
from experiments.data.speech import ALPHABET, SAMPLE_RATE

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
BLANK_SIGN, SPACE_SIGN = "∅", "␣"


def draw_training(content: Content, path: Path) -> Path:
    """Loss and error rate by epoch, and the time of the losses."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for index, (name, training) in enumerate(content["trainings"].items()):
        style: dict[str, Any] = {"color": COLOURS[index], "lw": 2.6 - 1.4 * index, "label": name}
        epochs = range(1, 1 + len(training["epoch_losses"]))
        panels[0].plot(epochs, training["epoch_losses"], **style)
        panels[1].plot(epochs, training["epoch_errors"], **style)
    panels[0].set(title="training loss", xlabel="epoch", yscale="log")
    panels[1].set(title="character error rate, validation", xlabel="epoch", ylim=(0, 1.02))
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[0].legend(frameon=False)
    _draw_times(panels[2], content)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _draw_times(panel: Any, content: Content) -> None:
    """Bars: the loss alone, per batch; the whole step of the faster training as a number below."""
    milliseconds = content["timing"]["milliseconds"]
    names = list(milliseconds)
    panel.barh(range(len(names)), list(milliseconds.values()), color=[COLOURS[k] for k in range(len(names))])
    for k, value in enumerate(milliseconds.values()):
        panel.text(value, k, f" {value:.2f}", va="center")
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.margins(x=0.2)
    steps = [1000 * sum(one["seconds"].values()) / one["steps"] for one in content["trainings"].values()]
    panel.set(title="loss forward + backward", xlabel=f"CPU ms per batch; the whole step: {min(steps):.0f}")


def draw_alignment(network: CharacterNet, one: Utterance, path: Path) -> Path:
    """A prompt's waveform with the stretch of each character by forced alignment, and what the network says below."""
    from matplotlib.figure import Figure

    out = evaluation.outputs(network, [one])
    lengths = out.lengths, torch.tensor([len(one.labels)])
    aligned = dalign.ctc_align(out.log_probs, one.labels[None], *lengths)
    spans = aligned.spans[0].numpy() * SECONDS_PER_FRAME
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    wave, classes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
    _draw_wave(wave, one, spans)
    _draw_classes(classes, out.log_probs[:, 0].exp().numpy(), aligned.labels[0].numpy())
    wave.set_title(f"\u201c{one.prompt.text}\u201d, prompt {one.prompt.name}: sound and forced alignment", fontsize=10)
    classes.set(xlabel="seconds", xlim=(0, one.prompt.seconds))
    figure.text(0.995, 0.002, "Voice: Allison Smith / Digium, CC BY-SA 3.0", ha="right", fontsize=6, color="0.4")
    return _save(figure, path)


def _draw_wave(panel: Any, one: Utterance, spans: Any) -> None:
    audio = one.prompt.audio / np.abs(one.prompt.audio).max()
    panel.plot(np.arange(len(audio)) / SAMPLE_RATE, audio, color="0.35", lw=0.4)
    for k, ((start, end), letter) in enumerate(zip(spans, one.prompt.text, strict=True)):
        panel.axvspan(start, end, color=COLOURS[1 if k % 2 else 4], alpha=0.45, lw=0)
        sign = SPACE_SIGN if letter == " " else letter
        panel.text((start + end) / 2, 1.06, sign, ha="center", va="bottom", fontsize=9)
    panel.set(ylim=(-1.05, 1.25), yticks=[])
    panel.spines[["top", "right", "left"]].set_visible(False)


def _draw_classes(panel: Any, probabilities: Any, path: Any) -> None:
    """Probabilities of the classes that occur, and the path through them."""
    used = np.unique(path)
    signs = [BLANK_SIGN if k == 0 else SPACE_SIGN if k == 1 else ALPHABET[k - 1] for k in used]
    extent = (0, len(path) * SECONDS_PER_FRAME, len(used) - 0.5, -0.5)
    panel.imshow(
        probabilities[:, used].T, aspect="auto", cmap="Greys", extent=extent, vmin=0, vmax=1, interpolation="none"
    )
    times = (np.arange(len(path)) + 0.5) * SECONDS_PER_FRAME
    panel.plot(times, np.searchsorted(used, path), color=COLOURS[0], lw=0.8, drawstyle="steps-mid")
    panel.set_yticks(range(len(used)), signs, fontsize=7)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
