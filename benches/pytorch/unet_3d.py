"""The U-Net over volumes, in plain PyTorch.

Not to be run; imported by `step_3d.py` and by `tests/remake/volumetric.py`. The state-dict names are those of
`unet.py`. Volumes are [N, channels, D, H, W]; logits are [N, classes, D, H, W].
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64, 128)
DROPOUT = (0.05, 0.1, 0.2, 0.3)
CUBES = ((3, 3, 3),) * 4
HALVES = ((2, 2, 2),) * 3


def convolution(channels_in, channels_out, taps):
    return nn.Conv3d(channels_in, channels_out, taps, padding=tuple(number // 2 for number in taps))


class ConvBlock(nn.Module):
    """Two convolutions with batch norm and leaky ReLU, dropout between them."""

    def __init__(self, channels_in, channels_out, taps, dropout):
        super().__init__()
        self.conv_conv = nn.Sequential(
            convolution(channels_in, channels_out, taps),
            nn.BatchNorm3d(channels_out),
            nn.LeakyReLU(0.01),
            nn.Dropout(dropout),
            convolution(channels_out, channels_out, taps),
            nn.BatchNorm3d(channels_out),
            nn.LeakyReLU(0.01),
        )

    def forward(self, x):
        return self.conv_conv(x)


class DownBlock(nn.Module):
    """Pools, then a block of convolutions."""

    def __init__(self, channels, pooling, taps, dropout):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool3d(pooling), ConvBlock(*channels, taps, dropout))

    def forward(self, x):
        return self.maxpool_conv(x)


class UpBlock(nn.Module):
    """Reduces the channels, enlarges, joins the skip connection in front, convolves."""

    def __init__(self, channels_in, channels_out, taps):
        super().__init__()
        self.conv1x1 = nn.Conv3d(channels_in, channels_out, 1)
        self.conv = ConvBlock(2 * channels_out, channels_out, taps, 0.0)

    def forward(self, x, skip):
        x = F.interpolate(self.conv1x1(x), skip.shape[2:], mode="trilinear", align_corners=True)
        return self.conv(torch.cat([skip, x], dim=1))


class Encoder(nn.Module):
    """Features of four levels, finest first."""

    def __init__(self, channels_in, taps, pooling, dropout):
        super().__init__()
        self.in_conv = ConvBlock(channels_in, CHANNELS[0], taps[0], dropout[0])
        for level in (1, 2, 3):
            block = DownBlock(CHANNELS[level - 1 : level + 1], pooling[level - 1], taps[level], dropout[level])
            self.add_module(f"down{level}", block)

    def forward(self, x):
        features = [self.in_conv(x)]
        for down in (self.down1, self.down2, self.down3):
            features.append(down(features[-1]))
        return features


class Decoder(nn.Module):
    """Logits from the features of an encoder."""

    def __init__(self, classes, taps):
        super().__init__()
        self.up1 = UpBlock(CHANNELS[3], CHANNELS[2], taps[2])
        self.up2 = UpBlock(CHANNELS[2], CHANNELS[1], taps[1])
        self.up3 = UpBlock(CHANNELS[1], CHANNELS[0], taps[0])
        self.out_conv = convolution(CHANNELS[0], classes, taps[0])

    def forward(self, features):
        x0, x1, x2, x = features
        for up, skip in ((self.up1, x2), (self.up2, x1), (self.up3, x0)):
            x = up(x, skip)
        return self.out_conv(x)


class UNet3d(nn.Module):
    """One encoder, one decoder; `taps` of four levels, `pooling` between them, each along three axes."""

    def __init__(self, channels_in=1, classes=4, taps=CUBES, pooling=HALVES, dropout=DROPOUT):
        super().__init__()
        self.encoder = Encoder(channels_in, taps, pooling, dropout)
        self.decoder = Decoder(classes, taps)

    def forward(self, x):
        return self.decoder(self.encoder(x))
