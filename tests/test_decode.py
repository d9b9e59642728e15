"""CTC decoders against a walk over all paths, a plain prefix beam search, and n-grams from counts."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import decode as reference

import torch_dalign as dalign

INF = math.inf
WIDE = 10**6  # as many prefixes as there are
LEVELS = dalign.build_info()["isa_levels"]


def random_log_probs(seed: int, *shape: int, sharpness: float = 2.0, impossible: float = 0.0) -> torch.Tensor:
    """(..., C) float64; some classes are impossible, but never all of a frame."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal(shape)
    blocked = rng.random(shape) < impossible
    blocked[..., rng.integers(shape[-1])] = False
    return torch.from_numpy(np.where(blocked, -INF, logits)).log_softmax(-1)


def random_scorer(seed: int, impossible: float = 0.0):
    """A log-probability for each prefix and label, None for the end, from a hash."""

    def scorer(prefix: tuple[int, ...], label: int | None) -> float:
        rng = np.random.default_rng([seed, len(prefix), 1 + max(-1, -1 if label is None else label), *prefix])
        return -INF if rng.random() < impossible else -3 * float(rng.random())

    return scorer


class WithEnd:
    """A scorer as users write it, from one that takes None for the end; counts how often it is asked."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.asked: list[Any] = []

    def __call__(self, prefix, label):
        assert isinstance(prefix, tuple)
        assert isinstance(label, int)
        self.asked.append((prefix, label))
        return self.scorer(prefix, label)

    def end(self, prefix):
        self.asked.append((prefix, None))
        return self.scorer(prefix, None)


def check_beam(found: list[dalign.decode.BeamHypothesis], expected: list[reference.Found], tolerance: float = 1e-10):
    """The same scores in the same places, and under each labelling its own numbers (equal scores may change places)."""
    assert len(found) == len(expected)
    known = {f.labels: f for f in expected}
    for hypothesis, place in zip(found, expected, strict=True):
        assert hypothesis.labels.dtype == torch.int64
        assert hypothesis.score == pytest.approx(place.score, abs=tolerance, rel=tolerance)
        own = known.pop(tuple(hypothesis.labels.tolist()))
        assert hypothesis.score == pytest.approx(own.score, abs=tolerance, rel=tolerance)
        assert hypothesis.log_prob == pytest.approx(own.log_prob, abs=tolerance, rel=tolerance)


# ---------------------------------------------------------------- best path


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(1, 4), st.integers(1, 5), st.sampled_from(["f32", "f64"]))
def test_greedy(seed, frames, batch, classes, dtype):
    rng = np.random.default_rng(seed)
    log_probs = random_log_probs(seed, frames, batch, classes, impossible=0.2)
    log_probs = log_probs.to(torch.float32 if dtype == "f32" else torch.float64)
    lengths = torch.from_numpy(rng.integers(0, frames + 1, batch))
    blank = int(rng.integers(classes))
    found = dalign.ctc_greedy_decode(log_probs, lengths, blank=blank)
    for b, hypothesis in enumerate(found):
        labels, score, spans = reference.greedy(log_probs[: lengths[b], b].double().numpy(), blank)
        assert tuple(hypothesis.labels.tolist()) == labels
        assert hypothesis.score == pytest.approx(score, rel=1e-12)
        assert [tuple(span) for span in hypothesis.spans.tolist()] == spans
        assert (hypothesis.labels.dtype, hypothesis.spans.dtype) == (torch.int64, torch.int64)


def test_greedy_takes_the_first_of_equal_classes():
    found = dalign.ctc_greedy_decode(torch.full((3, 4), 0.25).log(), blank=3)
    assert found.labels.tolist() == [0]
    assert found.spans.tolist() == [[0, 3]]


# ---------------------------------------------------------------- beam search, exact


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 0.3]))
def test_a_wide_beam_finds_every_labelling(seed, frames, classes, impossible):
    blank = seed % classes
    log_probs = random_log_probs(seed, frames, classes, impossible=impossible)
    found = dalign.ctc_beam_decode(log_probs, blank=blank, beam_width=WIDE, top_k=WIDE // 100)
    check_beam(found, reference.exhaustive(log_probs.numpy(), blank))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 5),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.4, 1.0, 3.0]),
    st.sampled_from([-1.0, 0.0, 2.5]),
)
def test_a_wide_beam_with_a_scorer_finds_every_labelling(seed, frames, classes, impossible, weight, bonus):
    blank = seed % classes
    log_probs = random_log_probs(seed, frames, classes, impossible=impossible)
    scorer = random_scorer(seed, impossible)
    options: dict[str, Any] = {"scorer_weight": weight, "length_bonus": bonus}
    asked = WithEnd(scorer)
    found = dalign.ctc_beam_decode(log_probs, blank=blank, beam_width=WIDE, top_k=WIDE // 100, scorer=asked, **options)
    expected = reference.exhaustive(log_probs.numpy(), blank, scorer, weight, bonus)
    if not expected:
        assert [(h.labels.tolist(), h.score) for h in found] == [([], -INF)]
    else:
        check_beam(found, expected)
    assert len(asked.asked) == len(set(asked.asked))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4), st.integers(1, 4))
def test_log_prob_of_a_wide_beam_is_that_of_the_ctc_loss(seed, frames, classes, batch):
    log_probs = random_log_probs(seed, frames, batch, classes)
    found = dalign.ctc_beam_decode(log_probs, beam_width=WIDE, top_k=3)
    for b, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            loss = torch.nn.functional.ctc_loss(
                log_probs[:, b], hypothesis.labels, torch.tensor(frames), torch.tensor(len(hypothesis.labels))
            )
            value = float(loss) * max(len(hypothesis.labels), 1)  # the mean divides by the target's length
            assert -value == pytest.approx(hypothesis.log_prob, abs=1e-10)


# ---------------------------------------------------------------- beam search, pruned


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 12),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from([INF, 4.0, 1.0, 0.0]),
    st.sampled_from([0.0, 1.5]),
)
def test_a_pruned_beam_is_the_plain_algorithm(seed, frames, classes, width, threshold, bonus):
    blank = seed % classes
    log_probs = random_log_probs(seed, frames, classes, impossible=0.1)
    found = dalign.ctc_beam_decode(
        log_probs,
        blank=blank,
        beam_width=width,
        top_k=width,
        token_threshold=threshold,
        length_bonus=bonus,
    )
    expected = reference.beam_search(log_probs.numpy(), blank, width, bonus=bonus, threshold=threshold)
    check_beam(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 10),
    st.integers(2, 5),
    st.integers(1, 8),
    st.sampled_from([INF, 2.0]),
    st.sampled_from([0.5, 2.0]),
    st.sampled_from([-0.5, 1.5]),
)
def test_a_pruned_beam_with_a_scorer_is_the_plain_algorithm(seed, frames, classes, width, threshold, weight, bonus):
    blank = seed % classes
    log_probs = random_log_probs(seed, frames, classes)
    scorer = random_scorer(seed)
    expected = reference.beam_search(log_probs.numpy(), blank, width, scorer, weight, bonus, threshold)
    options: dict[str, Any] = {"scorer_weight": weight, "length_bonus": bonus, "token_threshold": threshold}
    found = dalign.ctc_beam_decode(
        log_probs, blank=blank, beam_width=width, top_k=width, scorer=WithEnd(scorer), **options
    )
    check_beam(found, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 10), st.booleans())
def test_an_ngram_in_c_and_as_callable_and_by_the_book(seed, order, width, few):
    classes, frames = 5, 14
    blank = seed % classes
    rng = np.random.default_rng(seed)
    labels = [c for c in range(classes) if c != blank]
    texts = [rng.choice(labels, rng.integers(0, 6)).tolist() for _ in range(2 if few else 12)]
    model, book = dalign.NGram(classes, order).fit(texts), reference.NGram(texts, classes, order)
    log_probs = random_log_probs(seed, frames, classes, sharpness=1.0)
    options: dict[str, Any] = {"scorer_weight": 0.7, "length_bonus": 0.4}
    expected = reference.beam_search(log_probs.numpy(), blank, width, book, 0.7, 0.4)
    calls = WithEnd(lambda prefix, label: model.end(prefix) if label is None else model(prefix, label))
    for scorer in (model, calls):
        found = dalign.ctc_beam_decode(log_probs, blank=blank, beam_width=width, top_k=width, scorer=scorer, **options)
        check_beam(found, expected)


def test_a_prefix_that_falls_out_and_comes_back_meets_its_extension():
    """(1,) is dropped in frame 2 while (1, 2) is kept; in frame 3 the paths to (1,) must not start a second (1, 2)."""
    for seed in range(300):
        log_probs = random_log_probs(seed, 12, 3, sharpness=1.5)
        found = dalign.ctc_beam_decode(log_probs, beam_width=3, top_k=3)
        labellings = [tuple(hypothesis.labels.tolist()) for hypothesis in found]
        assert len(set(labellings)) == len(labellings)
        check_beam(found, reference.beam_search(log_probs.numpy(), 0, 3))


def test_many_classes_and_a_long_item():
    log_probs = random_log_probs(1, 60, 200, sharpness=3.0)
    found = dalign.ctc_beam_decode(log_probs, blank=7, beam_width=10, top_k=10)
    check_beam(found, reference.beam_search(log_probs.numpy(), 7, 10), 1e-9)


# ---------------------------------------------------------------- layouts, dtypes, threads


def hypotheses_equal(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.labels, b.labels) and (a.score, a.log_prob) == (b.score, b.log_prob)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_are_their_items():
    log_probs = random_log_probs(0, 15, 6, 4)
    lengths = [15, 0, 7, 1, 14, 3]
    model = dalign.NGram(4, 3).fit([[1, 2, 3], [3, 2]])
    for options in ({}, {"scorer": model}, {"scorer": lambda prefix, label: -0.5 * label}):
        found = dalign.ctc_beam_decode(log_probs, lengths, beam_width=8, top_k=3, **options)
        for b, length in enumerate(lengths):
            alone = dalign.ctc_beam_decode(log_probs[:length, b], beam_width=8, top_k=3, **options)
            assert hypotheses_equal(found[b], alone)


def test_what_lies_behind_a_length_is_not_read():
    log_probs = random_log_probs(0, 9, 2, 4)
    spoiled = log_probs.clone()
    spoiled[5:, 0] = math.nan
    lengths = torch.tensor([5, 9], dtype=torch.int32)
    one, other = (dalign.ctc_beam_decode(values, lengths, top_k=2) for values in (log_probs, spoiled))
    assert all(hypotheses_equal(a, b) for a, b in zip(one, other, strict=True))
    one, other = (dalign.ctc_greedy_decode(values, lengths) for values in (log_probs, spoiled))
    assert [(h.labels.tolist(), h.score) for h in one] == [(h.labels.tolist(), h.score) for h in other]


def test_strides_do_not_matter():
    log_probs = random_log_probs(0, 9, 2, 4)
    turned = log_probs.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    one, other = (dalign.ctc_beam_decode(values, top_k=4) for values in (log_probs, turned))
    assert all(hypotheses_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_is_computed_as_float(dtype):
    log_probs = random_log_probs(0, 20, 2, 5).to(dtype)
    for b, (found, exact) in enumerate(
        zip(
            dalign.ctc_beam_decode(log_probs, top_k=5),
            dalign.ctc_beam_decode(log_probs.double(), top_k=5),
            strict=True,
        )
    ):
        assert hypotheses_equal(found, exact), b  # the kernels compute in double, and half fits into float


def test_no_gradient_is_asked_for():
    log_probs = random_log_probs(0, 4, 1, 3).requires_grad_()
    assert not dalign.ctc_greedy_decode(log_probs)[0].labels.requires_grad
    assert dalign.ctc_beam_decode(log_probs)[0][0].score < 0


def test_threads_give_the_same_bits():
    log_probs = random_log_probs(0, 60, 9, 12)
    lengths = torch.tensor([60, 3, 44, 60, 0, 17, 59, 60, 8])
    model = dalign.NGram(12, 3).fit([[1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                [
                    *dalign.ctc_beam_decode(log_probs, lengths, top_k=4),
                    *dalign.ctc_beam_decode(log_probs, lengths, top_k=4, scorer=model),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(hypotheses_equal(a, b) for a, b in zip(results[0], other, strict=True))


def level_results() -> list[Any]:
    """What the subprocess computes."""
    found = dalign.ctc_beam_decode(random_log_probs(3, 40, 3, 6), beam_width=12, top_k=12)
    return [[(h.labels.tolist(), h.score) for h in hypotheses] for hypotheses in found]


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(level):
    environment = os.environ | {"DALIGN_ISA": level, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    for b, found in enumerate(eval(done.stdout)):
        expected = reference.beam_search(random_log_probs(3, 40, 3, 6)[:, b].numpy(), 0, 12)
        assert [labels for labels, _ in found] == [list(f.labels) for f in expected]
        np.testing.assert_allclose([score for _, score in found], [f.score for f in expected], rtol=1e-12)


# ---------------------------------------------------------------- edges


def empty(hypotheses: Any) -> float:
    """The score of the one empty hypothesis that there must be."""
    (hypothesis,) = hypotheses if isinstance(hypotheses, list) else [hypotheses]
    assert hypothesis.labels.tolist() == []
    return hypothesis.score


@pytest.mark.parametrize("shape", [(0, 3), (0, 1)])
def test_no_frames(shape):
    nothing = torch.empty(shape)
    assert empty(dalign.ctc_beam_decode(nothing, top_k=3)) == 0
    assert empty(dalign.ctc_greedy_decode(nothing)) == 0
    model = dalign.NGram(shape[1], 2).fit([[], []])
    assert empty(dalign.ctc_beam_decode(nothing, scorer=model, scorer_weight=2.0)) == pytest.approx(2 * model.end(()))
    assert empty(dalign.ctc_beam_decode(nothing, scorer=lambda prefix, label: -1.0)) == 0


def test_no_items():
    assert dalign.ctc_beam_decode(torch.empty(4, 0, 3)) == []
    assert dalign.ctc_greedy_decode(torch.empty(4, 0, 3), torch.empty(0, dtype=torch.int64)) == []
    assert dalign.ctc_beam_decode(torch.empty(4, 0, 3), []) == []


def test_the_blank_alone():
    log_probs = torch.tensor([[-0.5], [-0.25]], dtype=torch.float64)
    assert empty(dalign.ctc_beam_decode(log_probs, top_k=3)) == -0.75
    assert empty(dalign.ctc_greedy_decode(log_probs)) == -0.75


@pytest.mark.parametrize("scorer", [None, dalign.NGram(3), lambda prefix, label: -1.0], ids=["none", "ngram", "call"])
def test_no_path_and_no_number(scorer):
    log_probs = random_log_probs(0, 6, 4, 3)
    expected = dalign.ctc_beam_decode(log_probs, scorer=scorer)
    log_probs[3, 1] = -INF
    log_probs[2, 2, 1] = math.nan
    log_probs[5, 3, 0] = INF
    found = dalign.ctc_beam_decode(log_probs, scorer=scorer, top_k=2)
    assert torch.equal(found[0][0].labels, expected[0][0].labels)
    assert empty(found[1]) == -INF
    assert math.isnan(empty(found[2]))
    assert math.isnan(empty(found[3]))
    if scorer is None:
        greedy = dalign.ctc_greedy_decode(log_probs)
        assert empty(greedy[1]) == -INF
        assert math.isnan(empty(greedy[2]))
        assert math.isnan(empty(greedy[3]))
        assert greedy[2].spans.shape == (0, 2)


def test_a_nan_after_the_last_path_is_still_one():
    log_probs = torch.full((3, 2), -INF)
    log_probs[2] = math.nan
    assert math.isnan(empty(dalign.ctc_beam_decode(log_probs)))


def test_a_scorer_that_rules_everything_out():
    log_probs = torch.tensor([[-INF, 0.0], [-INF, 0.0]])
    assert empty(dalign.ctc_beam_decode(log_probs, scorer=lambda prefix, label: -INF)) == -INF


def test_weight_zero_leaves_the_scorer_alone():
    def scorer(prefix, label):
        raise AssertionError("not asked")

    log_probs = random_log_probs(0, 8, 4)
    found = dalign.ctc_beam_decode(log_probs, scorer=scorer, scorer_weight=0)
    assert hypotheses_equal(found, dalign.ctc_beam_decode(log_probs))


def test_equal_scores_are_ranked_the_same_way_always():
    log_probs = torch.full((5, 4), 0.25).log()
    first = dalign.ctc_beam_decode(log_probs, beam_width=7, top_k=7)
    for _ in range(3):
        assert hypotheses_equal(dalign.ctc_beam_decode(log_probs, beam_width=7, top_k=7), first)
    one_frame = dalign.ctc_beam_decode(log_probs[:1], blank=2, beam_width=3, top_k=3)
    assert [h.labels.tolist() for h in one_frame] == [[], [0], [1]]


# ---------------------------------------------------------------- n-grams


TEXTS = [[1, 2, 1, 2, 3], [], [2, 1], [3], [1, 2, 3, 3, 3]]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("texts", [TEXTS, [], [[]]], ids=["some", "none", "empty"])
def test_ngrams_by_the_book(order, texts):
    model, book = dalign.NGram(6, order).fit(texts), reference.NGram(texts, 6, order)
    for row in [*TEXTS, [5, 5, 1, 2], [0, 4]]:
        expected = [book(tuple(row[:k]), label) for k, label in enumerate(row)] + [book(tuple(row), None)]
        np.testing.assert_allclose(model.log_probs(row).numpy(), expected, rtol=1e-12)
        for k, label in enumerate(row):
            assert model(row[:k], label) == pytest.approx(expected[k], rel=1e-12)
        assert model.end(tuple(row)) == pytest.approx(expected[-1], rel=1e-12)


def test_ngram_probabilities_sum_to_one():
    model = dalign.NGram(5, 3).fit([[1, 2, 3], [1, 1, 4, 2]])
    for prefix in ((), (1,), (1, 2), (4, 4, 4), (1, 1, 4)):
        total = sum(math.exp(model(prefix, label)) for label in range(1, 5)) + math.exp(model.end(prefix))
        assert total == pytest.approx(1, rel=1e-12)


def test_ngrams_take_tensors_and_forget_what_was_before():
    model = dalign.NGram(5, 3).fit([torch.tensor([1, 2], dtype=torch.int32), np.array([3, 4])])
    again = dalign.NGram(5, 3).fit([[4, 4]]).fit([[1, 2], (3, 4)])
    assert all(torch.equal(a, b) for a, b in zip(model.arrays, again.arrays, strict=True))
    assert repr(model) == "NGram(classes=5, order=3, nodes=17)"


def test_ngrams_are_stored():
    model = dalign.NGram(5, 3).fit(TEXTS[:3])
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = dalign.NGram(2).load_state_dict(torch.load(file, weights_only=True))
    assert (twin.classes, twin.order) == (5, 3)
    assert torch.equal(twin.log_probs([1, 2, 4]), model.log_probs([1, 2, 4]))
    twin.fit([[1]])
    assert not torch.equal(twin.log_probs([1, 2, 4]), model.log_probs([1, 2, 4]))


def broken(**changes: Any) -> dict[str, Any]:
    return dalign.NGram(4, 3).fit([[1, 2], [2, 3]]).state_dict() | changes


@pytest.mark.parametrize(
    "state",
    [
        broken(contexts=10**6),
        broken(contexts=0),
        broken(classes=0),
        broken(label=torch.full_like(broken()["label"], 9)),
        broken(suffix=broken()["suffix"] + 5),
        broken(first=broken()["first"].flip(0)),
        broken(first=broken()["first"] * 0),
        broken(share=broken()["share"] * math.nan),
        broken(backoff=broken()["backoff"] + 1),
        broken(share=broken()["share"].float()),
        broken(suffix=broken()["suffix"][:-1]),
        {k: v for k, v in broken().items() if k != "share"},
    ],
)
def test_broken_models_are_refused(state):
    with pytest.raises(ValueError, match="state"):
        dalign.NGram(4).load_state_dict(state)


# ---------------------------------------------------------------- misuse

GOOD = torch.zeros(4, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[0.0]],), {}, TypeError, "log_probs must be a tensor"),
        ((GOOD.long(),), {}, TypeError, "log_probs must be a floating-point tensor"),
        ((GOOD[0, 0],), {}, ValueError, r"log_probs must have shape \(T, B, C\) or \(T, C\).*got \(3,\)"),
        ((GOOD[..., :0],), {}, ValueError, "with C >= 1"),
        ((GOOD,), {"blank": 3}, ValueError, r"blank must be in \[0, 3\), got 3"),
        ((GOOD,), {"blank": -1}, ValueError, "blank must be in"),
        ((GOOD,), {"blank": 1.0}, TypeError, "blank must be an int"),
        ((GOOD, torch.tensor([5, 1])), {}, ValueError, r"input_lengths\[0\] = 5 is outside \[0, 4\]"),
        ((GOOD, [1, -1]), {}, ValueError, r"input_lengths\[1\] = -1"),
        ((GOOD, [1, 2, 3]), {}, ValueError, r"input_lengths must have shape \(2,\)"),
        ((GOOD, 3), {}, ValueError, r"input_lengths must have shape \(2,\)"),
        ((GOOD, torch.tensor([1.0, 2.0])), {}, TypeError, "input_lengths must be integers"),
        ((GOOD, "ab"), {}, TypeError, "input_lengths must be integers"),
    ],
)
def test_misuse_of_both(arguments, options, error, message):
    for decode in (dalign.ctc_greedy_decode, dalign.ctc_beam_decode):
        with pytest.raises(error, match=message):
            decode(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beam_width": 0}, ValueError, "beam_width must be at least 1"),
        ({"beam_width": 2.0}, TypeError, "beam_width must be an int"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1"),
        ({"top_k": True}, TypeError, "top_k must be an int"),
        ({"scorer_weight": -1}, ValueError, "scorer_weight must be finite and >= 0"),
        ({"scorer_weight": "1"}, TypeError, "scorer_weight must be a number"),
        ({"length_bonus": INF}, ValueError, "length_bonus must be finite"),
        ({"token_threshold": -1.0}, ValueError, "token_threshold must be >= 0"),
        ({"token_threshold": math.nan}, ValueError, "token_threshold must be >= 0"),
        ({"scorer": 3}, TypeError, "scorer must be an NGram or a callable"),
        ({"scorer": dalign.NGram(4)}, ValueError, "scorer is a model of 4 classes, log_probs has 3"),
        (
            {"scorer": lambda prefix, label: 0.5},
            ValueError,
            r"scorer\(\(\), 1\) must be a log-probability <= 0, got 0.5",
        ),
        ({"scorer": lambda prefix, label: math.nan}, ValueError, "must be a log-probability <= 0, got nan"),
    ],
)
def test_misuse_of_the_beam(options, error, message):
    with pytest.raises(error, match=message):
        dalign.ctc_beam_decode(GOOD, **options)


def test_an_end_that_is_no_log_probability():
    with pytest.raises(ValueError, match=r"scorer.end\(\(.*\)\) must be a log-probability"):
        dalign.ctc_beam_decode(GOOD, scorer=WithEnd(lambda prefix, label: 1.0 if label is None else -1.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dalign.NGram(0), ValueError, "classes must be at least 1"),
        (lambda: dalign.NGram(3, 0), ValueError, "order must be at least 1"),
        (lambda: dalign.NGram(3).fit([[1], [3]]), ValueError, r"sequences\[1\] must hold labels in \[0, 3\), got 3"),
        (lambda: dalign.NGram(3).fit([[1.5]]), TypeError, r"sequences\[0\] must be a row of integer labels"),
        (lambda: dalign.NGram(3)((1,), 5), ValueError, r"sequence must hold labels in \[0, 3\)"),
    ],
)
def test_misuse_of_ngrams(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- ops


def op_arguments() -> tuple[Any, ...]:
    return random_log_probs(0, 5, 2, 3), torch.tensor([5, 3]), 0


def test_ops_are_well_declared():
    ngram = dalign.NGram(3, 2).fit([[1, 2]])
    options = (4, 2, INF, 1.0, 0.0)
    torch.library.opcheck(torch.ops.dalign.ctc_greedy_decode, op_arguments())
    torch.library.opcheck(torch.ops.dalign.ctc_beam_decode, (*op_arguments(), *options, ngram.arrays, ngram.contexts))
    torch.library.opcheck(torch.ops.dalign.ngram_log_probs, (torch.tensor([1, 2]), ngram.arrays, 3, ngram.contexts))


def test_ops_keep_memory_safe():
    log_probs, lengths, blank = op_arguments()
    ops, options = torch.ops.dalign, (4, 2, INF, 1.0, 0.0)
    single = log_probs[:, :1]
    search = ops.ctc_beam_open(single, None, 0, *options)
    nothing = torch.empty(0, dtype=torch.float64)
    other = dalign.NGram(4).arrays
    calls = [
        (lambda: ops.ctc_greedy_decode(log_probs, lengths + 1, blank), "input_lengths"),
        (lambda: ops.ctc_greedy_decode(log_probs, lengths, 3), "blank"),
        (lambda: ops.ctc_beam_decode(torch.zeros(4000, 1, 3), None, 0, 10**6, 1, INF, 1.0, 0.0, [], 0), "too large"),
        (lambda: ops.ctc_beam_decode(log_probs, lengths, blank, 0, 1, INF, 1.0, 0.0, [], 0), "too large"),
        (lambda: ops.ctc_beam_decode(log_probs, lengths, blank, 1, 1, INF, math.nan, 0.0, [], 0), "refused"),
        (lambda: ops.ctc_beam_decode(log_probs, lengths, blank, *options, other, 9), "no n-gram model"),
        (lambda: ops.ctc_beam_open(log_probs, None, 0, *options), "one item"),
        (lambda: ops.ctc_beam_step(single, None, 0, *options, *search, nothing.new_zeros(3)), "answers"),
        (lambda: ops.ctc_beam_step(single, None, 0, *options, search[0] * 0, *search[1:], nothing), "answers"),
        (lambda: ops.ctc_beam_step(single[:3], None, 0, *options, *search, nothing), "results"),
        (lambda: ops.ctc_beam_step(single, None, 0, 5, 2, INF, 1.0, 0.0, *search, nothing), "state"),
    ]
    for call, message in calls:
        with pytest.raises(RuntimeError, match=message):
            call()


def test_a_greedy_op_compiles():
    log_probs, lengths, blank = op_arguments()
    compiled = torch.compile(torch.ops.dalign.ctc_greedy_decode, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        compiled(log_probs, lengths, blank), torch.ops.dalign.ctc_greedy_decode(log_probs, lengths, blank), strict=True
    ):
        assert torch.equal(found, expected)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout.write(repr(level_results()))
