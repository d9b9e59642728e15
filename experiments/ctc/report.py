"""The numbers of a run: results.json, and results.md made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.data.speech import LICENCE

Content = Mapping[str, Any]

SHOWN = 8  # examples in the report
WAYS = ("greedy", "beam", "beam, n-gram")


def write(content: Content, folder: Path) -> list[Path]:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, text = folder / "results.json", folder / "results.md"
    numbers.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    text.write_text(markdown(content), encoding="utf-8")
    return [numbers, text]


def read(path: Path) -> dict[str, Any]:
    """The content of results.json."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def markdown(content: Content) -> str:
    """The whole report."""
    sections = [_heading(content), _training(content), _loss(content), _decoding(content), _examples(content)]
    return "\n\n".join([*sections, LICENCE]) + "\n"


def _heading(content: Content) -> str:
    settings, machine, data = content["settings"], content["machine"], content["data"]
    counts = ", ".join(f"{part['prompts']} for {name}" for name, part in data.items())
    return (
        f"# CTC on recorded prompts, scale {settings['scale']}\n\n"
        f"Prompts of at most {settings['longest']:g} s: {counts} ({data['train']['seconds']:.0f} s of sound, "
        f"{data['train']['characters']:,} characters to train on). No text is in two parts. A network of "
        f"{content['parameters']:,} numbers, {settings['epochs']} epochs, seed {settings['seed']}. "
        f"{machine['cpu']}, {machine['dalign']['threads']} thread(s), torch {machine['packages'].get('torch')}; other "
        f"programs ran beside it (load {machine['load_before'][0]} at the start). Made by "
        f"`python -m experiments.ctc --scale {settings['scale']}`."
    )


def _training(content: Content) -> str:
    rows = []
    for name, training in content["trainings"].items():
        loss, rest = training["seconds"]["loss"], training["seconds"]["rest"]
        rows.append(
            [
                name,
                f"{training['epoch_losses'][-1]:.4f}",
                f"{training['epoch_errors'][-1]:.3f}",
                f"{loss:.1f} s",
                f"{loss + rest:.0f} s",
                f"{100 * loss / (loss + rest):.1f} %",
            ]
        )
    header = ["training", "last loss", "validation CER", "CPU time in the loss", "CPU time of the training", "share"]
    note = (
        "Same start, same batches, same dropout. Time in the loss: log-softmax, CTC and the gradient with respect to "
        "the logits. The rest is the network, nearly all of it the GRU."
    )
    return "## Training\n\n" + _table(header, rows) + "\n\n" + note + _agreement(content)


def _agreement(content: Content) -> str:
    """How long the two curves are one, where there are two."""
    if len(content["trainings"]) < 2:
        return ""
    first, second = (training["first_losses"] for training in content["trainings"].values())
    off = [abs(a - b) / abs(a) for a, b in zip(first, second, strict=True)]
    return (
        f" Losses of the first {len(off)} steps differ by at most {max(off):.1e} of their value; roundings of float32 "
        "grow from step to step, so later the curves run beside each other."
    )


def _loss(content: Content) -> str:
    timed = content["timing"]
    slowest = next(iter(timed["milliseconds"].values()))
    rows = [
        [
            name,
            f"{milliseconds:.2f} ms",
            f"{slowest / milliseconds:.1f}",
            f"{timed['value_difference'][name]:.1e}",
            f"{timed['gradient_difference'][name]:.1e}",
        ]
        for name, milliseconds in timed["milliseconds"].items()
    ]
    header = ["loss", "CPU time per batch", "times faster", "value off by", "gradient off by"]
    note = (
        f"The losses in turns on the outputs of the trained network for one epoch ({timed['batches']} batches of "
        f"{content['settings']['batch_size']}), the fastest of five repetitions, float32; the largest difference to "
        "torch's loss in float64, relative to the largest number."
    )
    return "## The loss alone\n\n" + _table(header, rows) + "\n\n" + note


def _decoding(content: Content) -> str:
    rows = [
        [name, way, f"{found['test'][way]['cer']:.3f}", f"{found['test'][way]['wer']:.3f}", _milliseconds(found, way)]
        for name, training in content["trainings"].items()
        for found in [training["decoding"]]
        for way in WAYS
    ]
    settings = content["settings"]
    tuned = "; ".join(
        f"{name}: weight {training['decoding']['tuned']['weight']:g}, bonus {training['decoding']['tuned']['bonus']:g}"
        for name, training in content["trainings"].items()
    )
    header = ["training", "decoding", "character error rate", "word error rate", "time of all prompts"]
    note = (
        f"{content['data']['test']['prompts']} test prompts. Beam width {settings['beam_width']}; n-gram of "
        f"{settings['order']} characters from the training texts, weight and bonus per character chosen on the "
        f"validation prompts ({tuned}). The trainings drift apart by rounding alone: differences between their rows "
        "are no merit of a loss."
    )
    return "## Decoding\n\n" + _table(header, rows) + "\n\n" + note


def _milliseconds(found: Content, way: str) -> str:
    return f"{1000 * found['test'][way]['seconds']:.0f} ms"


def _examples(content: Content) -> str:
    name, training = list(content["trainings"].items())[-1]
    found = training["decoding"]
    longest = sorted(range(len(found["truth"])), key=lambda k: -len(found["truth"][k]))
    shown = longest[:: max(1, len(longest) // SHOWN)][:SHOWN]
    rows = [[found["truth"][k], found["texts"]["greedy"][k], found["texts"]["beam, n-gram"][k]] for k in shown]
    note = f"Every {max(1, len(longest) // SHOWN)}th test prompt by length, from the longest on (training with {name})."
    return "## Examples\n\n" + _table(["said", "greedy", "beam, n-gram"], rows) + "\n\n" + note


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
