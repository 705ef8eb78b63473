"""Remakes the part of cyclemix-net.safetensors that the network makes by itself.

    python cyclemix_net.py --like DIR                    # compares with DIR/cyclemix-net.safetensors
    python cyclemix_net.py --like DIR --to DIR2 --seed 7 # writes these keys of it from other inputs

Needs torch, numpy, scipy and safetensors.
"""

import torch
from common import draw_scribbles, fill, main, smooth_noise, sums
from torch import nn
from torch.nn import functional

CHANNELS = (64, 128, 256, 512, 1024)
RAISED = (64, 128, 4, 4)
MARGIN = 92
# Single precision in the stored numbers: 23 layers, and statistics that nobody has trained.
TOLERANCES = {"net.": 2e-5, "net.eval.out.prob_s4": 1e-1, "net.train.out.prob_s4": 1e-4}
STATISTICS = {
    "running_mean.Conv1_first": "Conv1.conv.2.running_mean",
    "running_mean.Norm": "Norm.running_mean",
    "running_var.Conv5": "Conv5.conv.5.running_var",
    "running_var.Norm": "Norm.running_var",
}


def slow_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class ConvBlock(nn.Module):
    def __init__(self, before, channels):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(before, channels, 3),
            nn.ReLU(),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3),
            nn.ReLU(),
            slow_norm(channels),
        )

    def forward(self, x):
        return self.conv(x)


class UpConv(nn.Module):
    def __init__(self, before, channels):
        super().__init__()
        convolution = nn.Conv2d(before, channels, 3, padding=1)
        enlarged = nn.Upsample(scale_factor=2)
        self.up = nn.Sequential(enlarged, convolution, nn.ReLU(), slow_norm(channels))

    def forward(self, x):
        return self.up(x)


class ValidUNet(nn.Module):
    def __init__(self):
        super().__init__()
        for number, (before, channels) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False), 1):
            self.add_module(f"Conv{number}", ConvBlock(before, channels))
        for level in (4, 3, 2, 1):
            raised, channels = RAISED[level - 1], CHANNELS[level - 1]
            self.add_module(f"Up{level}", UpConv(CHANNELS[level], raised))
            self.add_module(f"Up_conv{level}", ConvBlock(raised + channels, channels))
        self.Conv = nn.Conv2d(CHANNELS[0], 4, 1)
        self.Norm = slow_norm(4)

    def forward(self, image):
        """Logits [N, 4, H, W]."""
        x, skips = functional.pad(image, (MARGIN,) * 4), []
        for level in range(1, 6):
            x = self.get_submodule(f"Conv{level}")(functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for level in (4, 3, 2, 1):
            up = self.get_submodule(f"Up{level}")(x)
            skip, size = skips[level - 1], up.shape[-1]
            start = (skip.shape[-1] - size) // 2
            skip = skip[..., start : start + size, start : start + size]
            x = self.get_submodule(f"Up_conv{level}")(torch.cat([up, skip], 1))
        return self.Norm(self.Conv(x))


def is_input(key):
    return key.startswith("in.")


@torch.no_grad()
def compute(inputs):
    net, image, outputs = fill(ValidUNet()), inputs["in.image"].double(), {}
    for mode, is_training in (("eval", False), ("train", True)):
        logits = net.train(is_training)(image)
        outputs[f"net.{mode}.out.logit_s4"] = logits[..., ::4, ::4]
        outputs[f"net.{mode}.out.logit_sums"] = sums([logits])[0]
        outputs[f"net.{mode}.out.prob_s4"] = logits.softmax(1)[..., ::4, ::4]
    state = net.state_dict()
    found = {f"net.train.out.{key}": state[name][:8] for key, name in STATISTICS.items()}
    return outputs | found


def draw(stored, random):
    images = smooth_noise(stored["in.image"].shape, 4.0, random)
    labels = draw_scribbles(stored["in.label"].shape, random)
    return {"in.image": torch.from_numpy(images / images.std()).float(), "in.label": labels}


if __name__ == "__main__":
    main("cyclemix-net", compute, draw, TOLERANCES, is_input=is_input)
