"""Dice, HD95 and ASD as a PyTorch user computes them: one medpy call per class and metric.

    python metrics.py VOLUMES.safetensors SCENE PASSES

VOLUMES holds `SCENE.prediction` and `SCENE.truth` (u8 [D, H, W], the background 0) and `SCENE.spacing`
(f64 [3]); `cargo bench --bench metrics` writes it and calls this script. Prints one JSON line: the
milliseconds of each pass over all classes, and [Dice, HD95, ASD] of each class.
Needs medpy and safetensors.
"""

import json
import sys
import time

from medpy.metric import binary
from safetensors.numpy import load_file


def scores(prediction, truth, spacing):
    """[Dice, HD95, ASD] of each class but the background."""
    table = []
    for label in range(1, int(truth.max()) + 1):
        ours, theirs = prediction == label, truth == label
        table.append(
            [
                float(binary.dc(ours, theirs)),
                float(binary.hd95(ours, theirs, voxelspacing=spacing)),
                float(binary.asd(ours, theirs, voxelspacing=spacing)),
            ]
        )
    return table


def main():
    file, scene, passes = sys.argv[1:]
    volumes = load_file(file)
    prediction, truth = volumes[f"{scene}.prediction"], volumes[f"{scene}.truth"]
    times_ms = []
    for _ in range(int(passes)):
        start = time.perf_counter()
        table = scores(prediction, truth, volumes[f"{scene}.spacing"])
        times_ms.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"times_ms": times_ms, "scores": table}))


if __name__ == "__main__":
    main()
