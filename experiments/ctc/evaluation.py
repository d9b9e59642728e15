"""From network to texts and error rates."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

import torch_dalign as dalign
from experiments.ctc import data
from experiments.ctc.data import Utterance
from experiments.ctc.network import CharacterNet
from experiments.data import speech

if TYPE_CHECKING:
    from experiments.ctc.settings import Scale


class Outputs(NamedTuple):
    """Log-probabilities (T, B, 29) and their lengths (B,)."""

    log_probs: Tensor
    lengths: Tensor


@torch.no_grad()
def outputs(network: CharacterNet, utterances: Sequence[Utterance]) -> Outputs:
    """What the network says of some prompts."""
    network.eval()
    batch = data.collate(utterances)
    logits, lengths = network(batch.features, batch.lengths)
    return Outputs(logits.log_softmax(2), lengths)


# --- Decoding ---------------------------------------------------------------------------------------------------------


def greedy(out: Outputs) -> list[str]:
    """Texts of the best paths."""
    return [speech.decode(found.labels.tolist()) for found in dalign.ctc_greedy_decode(out.log_probs, out.lengths)]


def beam(
    out: Outputs, width: int, scorer: dalign.NGram | None = None, weight: float = 0.0, bonus: float = 0.0
) -> list[str]:
    """Texts of the best hypotheses of a beam search."""
    options: dict[str, Any] = {"scorer": scorer, "scorer_weight": weight, "length_bonus": bonus}
    found = dalign.ctc_beam_decode(out.log_probs, out.lengths, beam_width=width, **options)
    return [speech.decode(hypotheses[0].labels.tolist()) for hypotheses in found]


def language_model(utterances: Sequence[Utterance], order: int) -> dalign.NGram:
    """Character n-gram of the training texts, each text once."""
    texts = sorted({one.prompt.text for one in utterances})
    return dalign.NGram(speech.N_CLASSES, order).fit([speech.encode(text) for text in texts])


def tune(out: Outputs, texts: Sequence[str], model: dalign.NGram, scale: Scale) -> dict[str, float]:
    """The weight and the bonus with the fewest wrong characters."""
    tried = [
        (error_rates(beam(out, scale.beam_width, model, weight, bonus), texts)["cer"], weight, bonus)
        for weight, bonus in itertools.product(scale.weights, scale.bonuses)
    ]
    cer, weight, bonus = min(tried)
    return {"weight": weight, "bonus": bonus, "validation_cer": cer}


def decode_all(network: CharacterNet, parts: dict[str, list[Utterance]], scale: Scale) -> dict[str, Any]:
    """Texts and error rates of the test prompts, by each way of decoding."""
    validation, test = (outputs(network, parts[name]) for name in ("validation", "test"))
    truth = {name: [one.prompt.text for one in parts[name]] for name in parts}
    model = language_model(parts["train"], scale.order)
    tuned = tune(validation, truth["validation"], model, scale)
    ways: dict[str, Callable[[], list[str]]] = {
        "greedy": lambda: greedy(test),
        "beam": lambda: beam(test, scale.beam_width),
        "beam, n-gram": lambda: beam(test, scale.beam_width, model, tuned["weight"], tuned["bonus"]),
    }
    found: dict[str, Any] = {"tuned": tuned, "truth": truth["test"], "texts": {}, "test": {}}
    for name, way in ways.items():
        started = time.perf_counter()
        found["texts"][name] = way()
        seconds = time.perf_counter() - started
        found["test"][name] = {**error_rates(found["texts"][name], truth["test"]), "seconds": seconds}
    return found


# --- Error rates ------------------------------------------------------------------------------------------------------


def edit_distance(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The least number of insertions, deletions and substitutions between two sequences (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def error_rates(hypotheses: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """Edits per character ("cer") and per word ("wer") of all texts together."""
    pairs = list(zip(hypotheses, texts, strict=True))
    characters = sum(edit_distance(found, text) for found, text in pairs)
    words = sum(edit_distance(found.split(), text.split()) for found, text in pairs)
    return {
        "cer": characters / sum(len(text) for text in texts),
        "wer": words / sum(len(text.split()) for text in texts),
    }
