"""Trains the U-Net from given weights on given batches and prints the loss of each step.

    python agreement.py init.safetensors batches.safetensors [--precision fp32] [--gradients last.safetensors]

`init.safetensors` holds the weights by state-dict name; `batches.safetensors` holds `image.STEP`
[B, 1, H, W] and `label.STEP` [B, H, W] (255 where nobody drew) for STEP = 0, 1, ... Dropout is off and
one process sees the whole batch, so that in fp64 any correct trainer gives the same losses. Prints one
JSON line: `loss`, a list. `cargo bench --bench agreement` writes the files and calls this script.
Needs torch and safetensors.
"""

import argparse
import json

import torch
from safetensors.torch import load_file, save_file

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
    parser.add_argument("--gradients", help="file for the last step's gradients, by state-dict name")
    return parser.parse_args()


def main():
    options = arguments()
    kind = torch.float64 if options.precision == "fp64" else torch.float32
    net = UNet(dropout=(0.0,) * 5).to(kind).train()
    net.load_state_dict(load_file(options.init))
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
    if options.gradients:
        save_file({name: p.grad.contiguous() for name, p in net.named_parameters()}, options.gradients)
    print(json.dumps({"loss": losses}))


if __name__ == "__main__":
    main()
