"""The three tables of the soft-DTW paper (Cuturi and Blondel, ICML 2017), on the sets that are at hand.

`python -m experiments.softdtw` runs them, and 1-NN classification with DTW as a check, set by set; a run that was
stopped goes on where it was. Tables, pictures and all numbers are in `--out` then. Read the modules in this order:

- `settings`: what can be chosen, and the scales "small" and "paper"
- `barycenters`, `kmeans`, `prediction`, `neighbors`: one experiment each, `run(dataset, settings) -> numbers`
- `paper`: the figures to compare with
- `store`: results.json
- `tables`, `plots`: from numbers to tables and pictures

Data sets come from `experiments.data.ucr`: folders of the UCR archive (`--ucr`), or the six sets inside the aeon
package, of which only the files are used: `pip install --no-deps aeon`, whose pins are too old for other packages here.

From the paper: the losses, the gammas, the two starts, ten series of a random class, as many clusters as classes, the
split at 60 %, one hidden layer. Chosen here, the same for all methods that are compared: series of a class are drawn
from train and test together, as many classes have fewer than ten in train alone; the random start of a barycenter is
white noise; the starts of k-means (see `kmeans`); all about the training of the network (see `prediction`); and the
numbers in `settings.SCALES` other than the ten series.

What was seen on 12 sets (`results/`, scale "small", times of a busy machine): soft-DTW against DBA about as in the
paper, for averages and for k-means. The subgradient method does better here than there, most of all against gamma 1;
its steps (see `SoftDTWBarycenter`) may be the reason, as we do not know the paper's. Prediction as in the paper but for
two things: by the DTW loss small gammas are not the best ones from a random start, and the Euclidean loss does better.
"""
