"""Times loading and augmenting ACDC slices one by one, with h5py and scipy, on one thread.

    python augment.py ACDC_training_slices [--images 500]

The folder holds one HDF5 file for each slice with `image` (f32 [H, W]) and `scribble` (u16 [H, W],
4 = not annotated), as distributed with WSL4MIS. Prints one JSON line: `images_per_second`, and
`load_share`, the part of the time spent on reading files. Needs h5py, numpy, scipy and torch.
"""

import argparse
import json
import random
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy import ndimage

SIZE = (256, 256)
IGNORE = 4


def load(file):
    with h5py.File(file, "r") as slices:
        return slices["image"][:], slices["scribble"][:]


def turn_and_flip(image, label):
    turns, axis = np.random.randint(0, 4), np.random.randint(0, 2)
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    return np.flip(image, axis).copy(), np.flip(label, axis).copy()


def rotate(image, label):
    angle = np.random.randint(-20, 20)
    outside = IGNORE if (label == IGNORE).any() else 0
    image = ndimage.rotate(image, angle, order=0, reshape=False)
    return image, ndimage.rotate(label, angle, order=0, reshape=False, mode="constant", cval=outside)


def resize(array):
    height, width = array.shape
    return ndimage.zoom(array, (SIZE[0] / height, SIZE[1] / width), order=0)


def augment(image, label):
    """Half of the slices are turned and flipped, a quarter rotated a little; all are resized."""
    if random.random() > 0.5:
        image, label = turn_and_flip(image, label)
    elif random.random() > 0.5:
        image, label = rotate(image, label)
    image, label = resize(image), resize(label)
    return torch.from_numpy(image.astype(np.float32)).unsqueeze(0), torch.from_numpy(label.astype(np.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(2022)
    np.random.seed(2022)
    files = sorted(options.folder.glob("*.h5"))
    if not files:
        parser.error(f"no .h5 file in {options.folder}")
    order = [random.choice(files) for _ in range(options.images)]
    load_seconds = 0.0
    start = time.perf_counter()
    for file in order:
        before = time.perf_counter()
        image, label = load(file)
        load_seconds += time.perf_counter() - before
        augment(image, label)
    seconds = time.perf_counter() - start
    print(json.dumps({"images_per_second": len(order) / seconds, "load_share": load_seconds / seconds}))


if __name__ == "__main__":
    main()
