"""From fixations to refined maps as GazeMedSeg makes them: scipy for the map, pydensecrf for its edges.

    python gaze.py PICTURES.safetensors MAPS.safetensors

PICTURES holds `N.image` (u8 [H, W, 3]) and `N.points` (f64 [P, 3]: x, y and milliseconds) for N = 0, 1, ...; `cargo
bench --bench gaze` writes it and calls this script. Writes `N.heat` and `N.refined` (u8 [H, W]) to MAPS and prints one
JSON line: the milliseconds of all maps and those of all refinements. One thread. Needs numpy, scipy, pydensecrf2 and
safetensors; the map is resized by OpenCV where that is there, else by torch.
"""

import json
import sys
import time

import numpy as np
from pydensecrf.densecrf import DenseCRF2D
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter

CANVAS = 768
DEVIATION = 70
ITERATIONS = 10


def resizer():
    try:
        import cv2

        cv2.setNumThreads(1)
        return lambda heat, shape: cv2.resize(heat, shape[::-1], interpolation=cv2.INTER_CUBIC)
    except ImportError:
        import torch

        torch.set_num_threads(1)

        def resize(heat, shape):
            heat = torch.from_numpy(heat)[None, None]
            return torch.nn.functional.interpolate(heat, size=shape, mode="bicubic")[0, 0].numpy()

        return resize


def heatmap(points, shape, resize):
    canvas = np.zeros((CANVAS, CANVAS), dtype=np.float32)
    for x, y, duration in points:
        canvas[int(np.round(y * CANVAS)) - 1, int(np.round(x * CANVAS)) - 1] += duration
    heat = gaussian_filter(canvas, sigma=DEVIATION)
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    heat = resize(heat, shape).astype(np.float16)
    return (heat * 255).astype(np.uint8)


def refined(heat, image):
    rows, columns = heat.shape
    looked = heat.astype(np.float32) / 255
    scores = np.stack([1 - looked, looked]).reshape(2, -1)
    field = DenseCRF2D(columns, rows, 2)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.clip(scores, 1e-5, 1))))
    field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=1)
    marginals = np.array(field.inference(ITERATIONS)).reshape(2, rows, columns)
    return (marginals[1] * 255).astype(np.uint8)


def main():
    file, answers = sys.argv[1:]
    pictures, resize = load_file(file), resizer()
    count = len(pictures) // 2
    begun = time.perf_counter()
    heats = [
        heatmap(pictures[f"{n}.points"], pictures[f"{n}.image"].shape[:2], resize)
        for n in range(count)
    ]
    heat_ms = (time.perf_counter() - begun) * 1e3
    begun = time.perf_counter()
    maps = [refined(heat, pictures[f"{n}.image"]) for n, heat in enumerate(heats)]
    refine_ms = (time.perf_counter() - begun) * 1e3
    found = {f"{n}.heat": heat for n, heat in enumerate(heats)}
    found |= {f"{n}.refined": np.ascontiguousarray(refined) for n, refined in enumerate(maps)}
    save_file(found, answers)
    print(json.dumps({"heat_ms": heat_ms, "refine_ms": refine_ms}))


if __name__ == "__main__":
    main()
