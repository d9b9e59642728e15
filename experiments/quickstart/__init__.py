"""The demo: a network learns what sounds in real music from chord sequences without durations, by soft-DTW.

`python -m experiments.quickstart` (or `make demo`) renders Bach chorales, trains a small network three times (weak
targets aligned by soft-DTW, strong targets, weak targets stretched linearly), prints how well each finds the pitch
classes of held-out chorales, and draws what happened. Read the modules in this order:

- `settings`: what can be chosen
- `data`: chorales, targets and batches
- `network`: 2,423 parameters
- `losses`: one entry per way of training; a new one is one function and one line. Besides these three: multi-label CTC,
  any setting of the general lattice (``--loss ddtw:SDTW-D-W``), DecDTW, which is told where in the
  score each frame is and never what sounds, and CTC, which learns melodies
- `training`: the loop
- `evaluation`: precision, recall, F, and how well the alignment finds the chords
- `pictures`: the PNG files
- `report`: the table, as text, Markdown and JSON
"""
