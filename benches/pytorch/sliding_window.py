"""Segments a volume in windows with MONAI: Gaussian weights, mirrors, the U-Net over volumes.

    python sliding_window.py given.safetensors --patch 32 64 64 --threads 1 --windows-at-once 4 --to found.safetensors

The file holds the state dictionary of the network, `image` [1, 1, D, H, W] and `weights` [D, H, W] of a window. Prints
one JSON line with `volume_ms`, a list. `cargo bench --bench sliding_window` calls this script. Needs torch, monai and
safetensors.
"""

import argparse
import itertools
import json
import time

import torch
from monai.inferers import sliding_window_inference
from safetensors.torch import load_file, save_file

from unet_3d import UNet3d

CLASSES = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("given", help="safetensors")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 64, 64], help="slices, rows, columns")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--windows-at-once", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="timed volumes")
    parser.add_argument("--no-mirrors", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--to", help="safetensors with the `probabilities` [classes, D, H, W]")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    given = load_file(options.given)
    image, weights = given.pop("image"), given.pop("weights")
    layout = torch.channels_last_3d if options.channels_last else torch.contiguous_format
    net = UNet3d(1, CLASSES)
    net.load_state_dict(given, strict=True)
    net = net.eval().to(memory_format=layout)

    def probabilities(windows):
        return net(windows.contiguous(memory_format=layout)).softmax(1)

    def segment(volume):
        return sliding_window_inference(
            volume,
            options.patch,
            options.windows_at_once,
            probabilities,
            overlap=options.overlap,
            roi_weight_map=weights,
        )

    axes = (2, 3, 4)
    mirrors = [chosen for number in range(4) for chosen in itertools.combinations(axes, number)]
    if options.no_mirrors:
        mirrors = mirrors[:1]
    volume_ms = []
    with torch.inference_mode():
        # Takes memory and chooses kernels.
        segment(image[:, :, : options.patch[0]])
        for _ in range(options.repeats):
            start = time.perf_counter()
            total = segment(image)
            for chosen in mirrors[1:]:
                total += segment(image.flip(chosen)).flip(chosen)
            total /= len(mirrors)
            volume_ms.append((time.perf_counter() - start) * 1e3)
    if options.to:
        save_file({"probabilities": total[0].contiguous()}, options.to)
    print(json.dumps({"volume_ms": volume_ms}))


if __name__ == "__main__":
    main()
