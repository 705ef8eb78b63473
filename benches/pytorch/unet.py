"""The U-Net and its variants with two decoders for scribble-annotated ACDC slices, in plain PyTorch.

Not to be run; imported by `methods.py` and `agreement.py`. The state-dict names are those of WSL4MIS
(https://github.com/HiLab-git/WSL4MIS) and MaskMixAdv (https://github.com/lichen14/MaskMixAdv), so that
weights travel both ways with `strict=True`:

    net.load_state_dict(safetensors.torch.load_file("exported.safetensors"))

Images are [N, 1, H, W] with sides that are multiples of 16; logits are [N, classes, H, W].
"""

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64, 128, 256)
DROPOUT = (0.05, 0.1, 0.2, 0.3, 0.5)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and leaky ReLU, dropout between them."""

    def __init__(self, channels_in, channels_out, dropout):
        super().__init__()
        self.conv_conv = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(0.01),
            nn.Dropout(dropout),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(0.01),
        )

    def forward(self, x):
        return self.conv_conv(x)


class DownBlock(nn.Module):
    """Halves the size, then a block of convolutions."""

    def __init__(self, channels_in, channels_out, dropout):
        super().__init__()
        block = ConvBlock(channels_in, channels_out, dropout)
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), block)

    def forward(self, x):
        return self.maxpool_conv(x)


class UpBlock(nn.Module):
    """Reduces the channels, doubles the size, joins the skip connection in front, convolves."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels_in, channels_out, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = ConvBlock(2 * channels_out, channels_out, 0.0)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(self.conv1x1(x))], dim=1))


class Encoder(nn.Module):
    """Features at five sizes, largest first."""

    def __init__(self, channels_in, dropout):
        super().__init__()
        self.in_conv = ConvBlock(channels_in, CHANNELS[0], dropout[0])
        self.down1 = DownBlock(CHANNELS[0], CHANNELS[1], dropout[1])
        self.down2 = DownBlock(CHANNELS[1], CHANNELS[2], dropout[2])
        self.down3 = DownBlock(CHANNELS[2], CHANNELS[3], dropout[3])
        self.down4 = DownBlock(CHANNELS[3], CHANNELS[4], dropout[4])

    def forward(self, x):
        features = [self.in_conv(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            features.append(down(features[-1]))
        return features


class Decoder(nn.Module):
    """Logits from the features of an encoder."""

    def __init__(self, classes):
        super().__init__()
        self.up1 = UpBlock(CHANNELS[4], CHANNELS[3])
        self.up2 = UpBlock(CHANNELS[3], CHANNELS[2])
        self.up3 = UpBlock(CHANNELS[2], CHANNELS[1])
        self.up4 = UpBlock(CHANNELS[1], CHANNELS[0])
        self.out_conv = nn.Conv2d(CHANNELS[0], classes, 3, padding=1)

    def forward(self, features):
        x0, x1, x2, x3, x = features
        for up, skip in ((self.up1, x3), (self.up2, x2), (self.up3, x1), (self.up4, x0)):
            x = up(x, skip)
        return self.out_conv(x)


class UNet(nn.Module):
    """One encoder, one decoder."""

    def __init__(self, channels_in=1, classes=4, dropout=DROPOUT):
        super().__init__()
        self.encoder = Encoder(channels_in, dropout)
        self.decoder = Decoder(classes)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def channel_dropout(feature):
    """Drops half of the channels, in evaluation mode too, as WSL4MIS does."""
    return F.dropout2d(feature, 0.5, training=True)


class UNet_CCT(nn.Module):
    """One encoder, two decoders; the auxiliary one sees perturbed features. Returns both logits."""

    def __init__(self, channels_in=1, classes=4, dropout=DROPOUT, perturb=channel_dropout):
        super().__init__()
        self.encoder = Encoder(channels_in, dropout)
        self.main_decoder = Decoder(classes)
        self.aux_decoder1 = Decoder(classes)
        self.perturb = perturb

    def forward(self, x):
        features = self.encoder(x)
        perturbed = [self.perturb(feature) for feature in features]
        return self.main_decoder(features), self.aux_decoder1(perturbed)


class UNet_MAE(nn.Module):
    """One encoder, a decoder for the classes and one that restores what a mask hid.

    Sees complementary parts of each image, `shown` [1, 1, H, W] being 1 for what belongs to the first.
    Returns the logits of both parts and the image restored from the first.
    """

    def __init__(self, channels_in=1, classes=4, dropout=DROPOUT):
        super().__init__()
        self.encoder = Encoder(channels_in, dropout)
        self.seg_decoder = Decoder(classes)
        self.mae_decoder = Decoder(channels_in)

    def forward(self, x, shown):
        features = self.encoder(x * shown)
        first, restored = self.seg_decoder(features), self.mae_decoder(features)
        return first, self.seg_decoder(self.encoder(x * (1 - shown))), restored
