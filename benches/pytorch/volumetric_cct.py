"""The network of DMSPS over volumes, in plain PyTorch.

Not to be run; imported by `step_3d.py` and `tests/remake/dmsps.py`. The state-dict names are those of `UNet_CCT_dp_3D`
(HiLab-git/DMSPS at 89fe065). Volumes are [N, channels, D, H, W]; logits are [N, classes, D, H, W].
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64, 128, 256)
DROPOUT = (0.05, 0.1, 0.2, 0.3, 0.5)
LEVELS = ("conv1", "conv2", "conv3", "conv4", "center")


def layer(channels_in, channels_out, dropout=0.0):
    convolution = nn.Conv3d(channels_in, channels_out, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight)
    return nn.Sequential(convolution, nn.InstanceNorm3d(channels_out), nn.ReLU(), nn.Dropout(dropout))


class Block(nn.Module):
    """Two convolutions with instance norm and ReLU, dropout between them."""

    def __init__(self, channels_in, channels_out, dropout=0.0):
        super().__init__()
        self.conv1 = layer(channels_in, channels_out, dropout)
        self.conv2 = layer(channels_out, channels_out)

    def forward(self, x):
        return self.conv2(self.conv1(x))


class Encoder(nn.Module):
    """Features of five levels, finest first."""

    def __init__(self, channels_in, dropout):
        super().__init__()
        before = channels_in
        for name, channels, share in zip(LEVELS, CHANNELS, dropout, strict=True):
            self.add_module(name, Block(before, channels, share))
            before = channels

    def forward(self, x):
        features = []
        for name in LEVELS:
            features.append(self.get_submodule(name)(F.max_pool3d(features[-1], 2) if features else x))
        return features


class Up(nn.Module):
    """Enlarges, joins the skip connection in front, convolves."""

    def __init__(self, channels, below):
        super().__init__()
        self.conv = Block(channels + below, channels)

    def forward(self, skip, x):
        x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
        if skip.shape != x.shape:
            skip = F.interpolate(skip, x.shape[2:], mode="trilinear", align_corners=True)
        return self.conv(torch.cat([skip, x], 1))


class Decoder(nn.Module):
    """Logits from the features of an encoder."""

    def __init__(self, classes):
        super().__init__()
        for level in (3, 2, 1, 0):
            self.add_module(f"up_concat{level + 1}", Up(CHANNELS[level], CHANNELS[level + 1]))
        self.final = nn.Conv3d(CHANNELS[0], classes, 1)
        nn.init.kaiming_normal_(self.final.weight)

    def forward(self, features):
        x = features[-1]
        for level in (3, 2, 1, 0):
            x = self.get_submodule(f"up_concat{level + 1}")(features[level], x)
        return self.final(x)


class VolumetricCct(nn.Module):
    """Logits of the main decoder, and of the auxiliary one, whose features go through `perturb`."""

    def __init__(self, channels_in=1, classes=8, dropout=DROPOUT):
        super().__init__()
        self.encoder = Encoder(channels_in, dropout)
        self.main_decoder = Decoder(classes)
        self.aux_decoder1 = Decoder(classes)

    def forward(self, x, perturb=lambda features: F.dropout3d(features, 0.5)):
        features = self.encoder(x)
        return self.main_decoder(features), self.aux_decoder1([perturb(each) for each in features])
