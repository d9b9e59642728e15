"""The two music tasks of the dDTW paper (Zeitler and Müller, TASLPRO 2026): from CTC to soft-DTW, step by step.

A network learns which pitch classes sound in every frame of a recording, from targets that tell their order but no
times. Every row of the paper's Table I is a setting of one lattice, `torch_dalign.presets.ddtw(name)`; two more methods
set the frame: hard alignment (EM), and targets with known times (strong).

    python -m experiments.ddtw single      # one melody above an accompaniment: Tables III and IV, Fig. 9
    python -m experiments.ddtw multi       # all that sounds in chorales and quartets: Figs. 10 and 11
    python -m experiments.ddtw models --mtd FOLDER --models FOLDER    # the authors' trained networks, evaluated

A run that was stopped goes on where it was. Tables, pictures and all numbers are in `--out` then. Read the modules in
this order:

- `settings`: what can be chosen, and the scales "small" and "paper"
- `networks`: Tables II and V; the first one loads the authors' files
- `training`: the loop of both tasks
- `single`, `multi` (with `pieces`, its music): data, losses, `run(method, seed, data, settings) -> numbers`
- `metrics`, `decoding`: how good predictions are
- `authors`: the trained networks of the paper's authors
- `paper`, `tables`, `plots`: from numbers to tables and pictures, beside the paper's figures

The paper trains on 1,300 themes of recorded music and on songs by Schubert, neither of which may be passed on. Here
music is rendered: folk songs of the Essen collection with an accompaniment of triads (`experiments.data.themes`), and
chorales by Bach and movements of quartets. It is cleaner than recordings are, so figures are higher than the paper's;
pieces for test, validation and training are different ones in both tasks, where the paper's multi-label task shares
its songs between them, in different recordings. Whoever has the Musical Theme Dataset in the authors' layout trains on
it by `--mtd`.

What was seen (`results/`; one network of each method, fewer themes, pieces and epochs than the scale "small" has):

- Polyphonic pieces: as in the paper a low weight of the horizontal step decides. With weight .1 the methods without a
  blank reach an F-measure of .84, beside .86 with known times; with weight 1 they blur the chords (.60). CTC-A (.78)
  sees blanks nearly everywhere, CTC-B-W (.83) none. Unlike the paper's, CTC-B learns (.80).
- Themes: known times are best by frames (.90), then EM (.88), CTC-A and SDTW-D (.86, .85). CTC-A with beam search has
  the fewest label errors (.25), and beam search costs all methods but CTC-A and CTC-B some: as in the paper but for
  EM, which is behind soft-DTW there, and CTC-B. Unlike there the low weight takes .03 to .11 of the frames from all
  methods, also from soft-DTW, and no CTC variant fails (see `docs/decisions.md` on the start of the blank). To find a
  theme among 50 recordings without noise is easy for all networks.
"""
