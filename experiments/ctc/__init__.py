"""CTC on recorded speech: the same training with `torch.nn.CTCLoss` and with `dalign.CTCLoss`, and what comes after it.

`python -m experiments.ctc` trains a small character model twice from the same seed (once with each loss; the two losses
agree to rounding, so the curves do), tells how much time went into the loss and how much into everything else, decodes
held-out prompts greedily and with a beam and a character n-gram, and draws a forced alignment over the sound. Read
the modules in this order:

- `settings`: what can be chosen, and the scales "small" and "paper"
- `data`: batches of `experiments.data.speech` (prompts, downloaded from Debian or given by `--speech`)
- `network`: two convolutions, a bidirectional GRU, 29 classes
- `training`: the loop, with a clock for the loss alone
- `timing`: the losses side by side on the same outputs
- `evaluation`: decoding, character and word error rate
- `report`: results.json and results.md
- `plots`: curves and times, the alignment

What was seen (`results/`, scale "small", one seed): losses equal to 1e-6 for the first steps and the same curve after
that. torch's loss takes 2.4 % of the time of the training and ours 1.4 %, as on a CPU nearly all of it is the GRU's;
the loss alone is 2.7 times faster, 3.5 times from logits, with 8 sequences of at most 250 frames and 29 classes. About
27 % of the characters are wrong greedily, 16 to 17 % with the n-gram.
"""
