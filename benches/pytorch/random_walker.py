"""Random-walker labels as WSL4MIS makes them: one call of scikit-image's direct solver per slice.

    python random_walker.py SLICES.safetensors

SLICES holds `N.image` (f32 [H, W]) and `N.scribble` (u8 [H, W], classes 0 to 3, 255 unlabelled) for
N = 0, 1, ...; `cargo bench --bench random_walker` writes it and calls this script. Prints one JSON
line: the milliseconds of a pass over each slice, and the labels of each. Needs scikit-image and
safetensors.
"""

import json
import sys
import time
import warnings

import numpy as np
from safetensors.numpy import load_file
from skimage.exposure import rescale_intensity
from skimage.segmentation import random_walker

BETA = 100
SIGMA = 0.35


def labels_of(image, scribble):
    markers = np.where(scribble == 255, 0, scribble.astype(np.int32) + 1)
    image = rescale_intensity(image, in_range=(-SIGMA, 1 + SIGMA), out_range=(-1, 1))
    return random_walker(image, markers, BETA, mode="bf") - 1


def main():
    # It says that other modes are faster, which do not give the same labels.
    warnings.simplefilter("ignore")
    (file,) = sys.argv[1:]
    slices = load_file(file)
    times_ms, labels = [], []
    for number in range(len(slices) // 2):
        image, scribble = slices[f"{number}.image"], slices[f"{number}.scribble"]
        start = time.perf_counter()
        found = labels_of(image, scribble)
        times_ms.append((time.perf_counter() - start) * 1e3)
        labels.append(found.astype(int).ravel().tolist())
    print(json.dumps({"times_ms": times_ms, "labels": labels}))


if __name__ == "__main__":
    main()
