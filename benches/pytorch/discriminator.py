"""The discriminator of MaskMixAdv, in plain PyTorch.

Not to be run; imported by `methods.py`. Label maps are [N, channels, H, W] with sides that are multiples
of 32; logits are [N, 1, H / 32, W / 32], one for each patch, positive for real.
"""

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (64, 128, 256, 512, 1)


class PatchDiscriminator(nn.Module):
    """Five strided convolutions with spectral norm, whose vectors move in training mode alone."""

    def __init__(self, channels_in):
        super().__init__()
        layers = []
        for before, after in zip((channels_in, *WIDTHS), WIDTHS):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, *maps):
        """The logits of each of `maps`, so that DDP sees one pass of several."""
        return tuple(self.layers(x) for x in maps)
