"""Audio to score alignment (Section 7.1 of the DecDTW paper): features learned so that alignments are right.

A score, synthesised at a constant tempo, is aligned with a performance of it; the truth is known, and TimeErr is the
mean deviation from it. Base features are frames of a spectrum; a GRU turns them into better ones, by losses that know
nothing of the truth (soft-DTW), that pull features together along the true path (along GT), that weigh soft
alignments by their deviation (DILATE), or by TimeErr itself through DecDTW. Read the modules in this order:

- `settings`: what can be chosen, and the scales "small" and "paper"
- `performance`: scores of music21's corpus played as people play, and what a room makes of the sound
- `features`: constant-Q, chroma, mel
- `data`: recordings with their true warps, and slices of them
- `archive`: recordings of one's own by `--data`, such as KernScores with MAESTRO
- `network`, `methods` (alignments and losses), `training`
- `run`: `one(kind, method, seed, parts, settings) -> numbers`
- `paper`, `tables`, `plots`: from numbers to tables and pictures, beside the paper's figures
"""
