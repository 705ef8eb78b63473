"""Trains the U-Net from given weights on given batches and prints the loss of each step.

    python agreement.py init.safetensors batches.safetensors [--precision fp32] [--lr 0.03] [--total-steps 60000]

`init.safetensors` holds the weights by state-dict name; `batches.safetensors` holds `image.STEP`
[B, 1, H, W] and `label.STEP` [B, H, W] (255 where nobody drew) for STEP = 0, 1, ... Dropout is off and
one process sees the whole batch, so that in fp64 any correct trainer gives the same losses. Prints one
JSON line: `loss`, a list. Needs torch and safetensors.
"""

import argparse
import json

import torch
from safetensors.torch import load_file

from training import partial_cross_entropy, poly_lr, set_lr, sgd
from unet import UNet

IGNORE = 255


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("init")
    parser.add_argument("batches")
    parser.add_argument("--precision", choices=["fp64", "fp32"], default="fp64")
    parser.add_argument("--lr", type=float, default=0.03, help="base rate")
    parser.add_argument("--total-steps", type=int, default=60_000, help="of the rate's decay")
    return parser.parse_args()


def main():
    options = arguments()
    kind = torch.float64 if options.precision == "fp64" else torch.float32
    net = UNet(dropout=(0.0,) * 5)
    net.load_state_dict(load_file(options.init))
    net = net.to(kind).train()
    batches = load_file(options.batches)
    optimizer = sgd(net.parameters(), options.lr)
    losses = []
    while f"image.{len(losses)}" in batches:
        step = len(losses)
        image = batches[f"image.{step}"].to(kind)
        label = batches[f"label.{step}"].long()
        set_lr(optimizer, poly_lr(options.lr, step, options.total_steps))
        optimizer.zero_grad()
        loss = partial_cross_entropy(net(image), label, IGNORE)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(json.dumps({"loss": losses}))


if __name__ == "__main__":
    main()
