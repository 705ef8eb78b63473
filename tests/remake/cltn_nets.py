"""The six networks of CLTN in plain PyTorch, the second fill rule, and an iteration of training.

Not to be run; `cltn.py` imports it. Written from the method card `cltn.md`: sections 3 to 5,
appendices A and B for the names and the order of the state dicts, section 10 for the rule. Spectral
norms are those of `torch.nn.utils`.
"""

import math
import warnings
from typing import NamedTuple

import torch
from common import floating_state, sums
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-5
BLOCKS = range(1, 5)
DISCRIMINATOR_SLOPE = 0.2
BUFFERS = ("weight_u", "weight_v")


def layer_instance_norm(x, rho):
    """The blend of instance norm and layer norm, both with unbiased variances."""

    def normalised(*dimensions):
        centred = x - x.mean(dimensions, keepdim=True)
        return centred / torch.sqrt(x.var(dimensions, correction=1, keepdim=True) + EPSILON)

    return rho * normalised(2, 3) + (1 - rho) * normalised(1, 2, 3)


def as_channels(vectors):
    """[B, C] as [B, C, 1, 1]."""
    return vectors[:, :, None, None]


def double_size(x):
    """Twice the height and the width, bilinear between the centres of the corners."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def blend(mask, inside, outside):
    return inside * mask + outside * (1 - mask)


def class_features(x, average_weight, largest_weight):
    """The features weighted as each of the two linear layers weighs them, side by side."""
    weights = [weight.reshape(1, -1, 1, 1) for weight in (average_weight, largest_weight)]
    return torch.cat([x * weight for weight in weights], 1)


def pooled(x):
    """Global average and global maximum, [B, C] each."""
    return x.mean((2, 3)), F.adaptive_max_pool2d(x, 1).flatten(1)


class ILN(nn.Module):
    """The blended norm with learnt scales and shifts."""

    def __init__(self, channels):
        super().__init__()
        self.rho, self.gamma, self.beta = (
            nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(3)
        )

    def forward(self, x):
        return self.gamma * layer_instance_norm(x, self.rho) + self.beta


class AdaILN(nn.Module):
    """The blended norm whose scales and shifts come with each sample."""

    def __init__(self, channels):
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x, gamma, beta):
        return as_channels(gamma) * layer_instance_norm(x, self.rho) + as_channels(beta)


def padded_convolution(channels_in, channels_out, size, stride=1):
    """A reflection padding that keeps the size, and a convolution without bias."""
    return [
        nn.ReflectionPad2d(size // 2),
        nn.Conv2d(channels_in, channels_out, size, stride, bias=False),
    ]


class EncoderBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        first, second = (
            [*padded_convolution(channels, channels, 3), nn.InstanceNorm2d(channels)]
            for _ in range(2)
        )
        self.conv_block = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x):
        return x + self.conv_block(x)


class DecoderBlock(nn.Module):
    """A residual block whose norms are of the class `norm`; they get what follows the features."""

    def __init__(self, channels, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = norm(channels)

    def forward(self, x, *scale_and_shift):
        pad = (1, 1, 1, 1)
        inner = self.norm1(self.conv1(F.pad(x, pad, "reflect")), *scale_and_shift).relu()
        return x + self.norm2(self.conv2(F.pad(inner, pad, "reflect")), *scale_and_shift)


class Unused(nn.Module):
    """A layer of the released networks whose weights nothing uses."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 1, bias=False)


class Translation(NamedTuple):
    """What a generator makes of an image."""

    painted: torch.Tensor
    scores: torch.Tensor
    heat: torch.Tensor
    mask: torch.Tensor
    composed: torch.Tensor
    restored: torch.Tensor


class Generator(nn.Module):
    """Translates images [B, 3, S, S]; `full_size` is their S where the heavy form is wanted."""

    def __init__(self, width, full_size=None):
        super().__init__()
        channels = 4 * width
        self.gap_fc = nn.Linear(channels, 1, bias=False)
        self.gmp_fc = nn.Linear(channels, 1, bias=False)
        self.conv1x1 = nn.Conv2d(2 * channels, channels, 1)
        for name in ("gamma1", "beta1", "gamma2", "beta2"):
            self.add_module(name, nn.Linear(channels, channels, bias=False))
        self.add_blocks("UpBlock1", lambda: DecoderBlock(channels, AdaILN))
        self.add_blocks("Mask_Layer", lambda: Unused(channels))
        self.add_blocks("recon_middle", lambda: DecoderBlock(channels, ILN))
        self.add_blocks("Mask_Layer_UP", lambda: Unused(channels))
        self.add_blocks("Mask_Layer_DOWN", lambda: Unused(channels))
        self.DownBlock = encoder(width)
        self.is_light = full_size is None
        inputs = channels if self.is_light else channels * (full_size // 4) ** 2
        self.FC = nn.Sequential(
            nn.Linear(inputs, channels, bias=False),
            nn.ReLU(),
            nn.Linear(channels, channels, bias=False),
            nn.ReLU(),
        )
        self.Decode_image = image_decoder(width, last_size=3)
        self.Decode_recon = image_decoder(width, last_size=7)
        self.Split_layer = nn.Sequential(*split_layers(channels))
        self.conv2x1 = nn.Sequential(*padded_convolution(channels, 1, 3), nn.Sigmoid())

    def add_blocks(self, name, block):
        for number in BLOCKS:
            self.add_module(f"{name}_{number}", block())

    def forward(self, x):
        encoded = self.DownBlock(x)
        split = self.Split_layer(encoded)
        average, largest = pooled(split)
        scores = torch.cat([self.gap_fc(average), self.gmp_fc(largest)], 1)
        weighted = class_features(split, self.gap_fc.weight, self.gmp_fc.weight)
        features = self.conv1x1(weighted).relu()
        mask = self.conv2x1(features)
        hidden = self.FC(features.mean((2, 3)) if self.is_light else features.flatten(1))
        gamma, beta = self.gamma1(hidden), self.beta1(hidden)
        painting, restoring = features, encoded
        for number in BLOCKS:
            restoring = self.get_submodule(f"recon_middle_{number}")(restoring)
            turned = self.get_submodule(f"UpBlock1_{number}")(painting, gamma, beta)
            painting = blend(mask, turned, restoring)
        painted = self.Decode_image(painting)
        large = double_size(double_size(mask))
        return Translation(
            painted=painted,
            scores=scores,
            heat=features.sum(1, keepdim=True),
            mask=large,
            composed=blend(large, painted, x),
            restored=self.Decode_recon(restoring),
        )


def encoder(width):
    layers = []
    for channels_in, channels_out, size, stride in (
        (3, width, 7, 1),
        (width, 2 * width, 3, 2),
        (2 * width, 4 * width, 3, 2),
    ):
        layers += padded_convolution(channels_in, channels_out, size, stride)
        layers += [nn.InstanceNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, *(EncoderBlock(4 * width) for _ in BLOCKS))


def split_layers(channels):
    layers = []
    for _ in range(2):
        layers += [nn.Conv2d(channels, channels, 1, bias=False), ILN(channels), nn.ReLU()]
    return layers


def image_decoder(width, last_size):
    layers = []
    for channels in (4 * width, 2 * width):
        layers += [nn.Upsample(scale_factor=2), *padded_convolution(channels, channels // 2, 3)]
        layers += [ILN(channels // 2), nn.ReLU()]
    return nn.Sequential(*layers, *padded_convolution(width, 3, last_size), nn.Tanh())


def spectral(layer):
    """The layer under a spectral norm with one power iteration per forward in training."""
    with warnings.catch_warnings():
        # The newer form starts from other vectors and names its state otherwise.
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(layer)


class Verdict(NamedTuple):
    """What a discriminator says of an image."""

    patches: torch.Tensor
    scores: torch.Tensor
    heat: torch.Tensor


class Discriminator(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        channels = width * 2 ** (layers - 2)
        self.gap_fc = spectral(nn.Linear(channels, 1, bias=False))
        self.gmp_fc = spectral(nn.Linear(channels, 1, bias=False))
        self.conv1x1 = nn.Conv2d(2 * channels, channels, 1)
        self.conv = spectral(nn.Conv2d(channels, 1, 4, bias=False))
        steps = []
        widths = [3, *(width * 2**step for step in range(layers - 1))]
        for step, (channels_in, channels_out) in enumerate(zip(widths, widths[1:])):
            stride = 2 if step < layers - 2 else 1
            steps += [
                nn.ReflectionPad2d(1),
                spectral(nn.Conv2d(channels_in, channels_out, 4, stride)),
                nn.LeakyReLU(DISCRIMINATOR_SLOPE),
            ]
        self.model = nn.Sequential(*steps)

    def forward(self, x):
        x = self.model(x)
        average, largest = pooled(x)
        scores = torch.cat([self.gap_fc(average), self.gmp_fc(largest)], 1)
        weighted = class_features(x, self.gap_fc.weight_orig, self.gmp_fc.weight_orig)
        features = F.leaky_relu(self.conv1x1(weighted), DISCRIMINATOR_SLOPE)
        patches = self.conv(F.pad(features, (1, 1, 1, 1), "reflect"))
        return Verdict(patches, scores, features.sum(1, keepdim=True))


def squares_from(outputs, wanted):
    """The mean squared distance of outputs from one number."""
    return (outputs - wanted).square().mean()


def doubt(logits, wanted):
    """The mean binary cross entropy of logits that should all say 0 or all say 1."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


def filled_by_rule_b(name, shape, number):
    """Values of floating entry `number` by the second fill rule; operations in single precision."""
    element = torch.arange(math.prod(shape), dtype=torch.float64)
    remainder = element % 1009
    values = torch.sin(0.7 * element + 0.013 * remainder**2 + 1.3 * number).float().reshape(shape)
    scale = math.sqrt(2 / math.prod(shape[1:]))
    last = name.rsplit(".", 1)[-1]
    if last == "rho":
        return 0.5 + 0.4 * values
    if last == "gamma" or last in BUFFERS:
        return 1 + 0.1 * values
    if last == "beta":
        return 0.05 * values
    if last == "weight_orig":
        return (0.05 + values) * scale
    if len(shape) < 2:
        return 0.05 * values
    return values * scale * (8 if name == "conv2x1.1.weight" else 1)


def fill_by_rule_b(module, first=0):
    """Fills a module, in double precision from there on; `first` numbers its first entry."""
    module.double()
    for number, (name, entry) in enumerate(floating_state(module), first):
        entry.copy_(filled_by_rule_b(name, entry.shape, number))
    return module


def checksum(tensors):
    """[sum, sum of squares] over all elements of all tensors."""
    return sums(tensors).sum(0)


def gradient_checksum(net):
    """The same of the gradients, which unused parameters do not have."""
    return checksum(p.grad for p in net.parameters() if p.grad is not None)


def entries(net, *endings):
    """Tensors of the state dict whose names end so."""
    return [entry for name, entry in floating_state(net) if name.endswith(endings)]


class Training:
    """The whole method with the weights of its terms for dermoscopy."""

    WEIGHTS = {"cycle": 5, "identity": 50, "cam": 1400, "recon": 10}

    def __init__(self):
        self.nets = {
            "genA2B": Generator(8),
            "genB2A": Generator(8),
            "disGA": Discriminator(7, 8),
            "disGB": Discriminator(7, 8),
            "disLA": Discriminator(5, 8),
            "disLB": Discriminator(5, 8),
        }
        for number, net in enumerate(self.nets.values()):
            fill_by_rule_b(net, first=1000 * number)
        self.judge_optimiser = self.optimiser("dis")
        self.generator_optimiser = self.optimiser("gen")

    def named(self, start):
        return {name: net for name, net in self.nets.items() if name.startswith(start)}

    def optimiser(self, start):
        parameters = [p for net in self.named(start).values() for p in net.parameters()]
        return torch.optim.Adam(parameters, lr=1e-4, betas=(0.5, 0.999), weight_decay=2e-5)

    def iterate(self, images):
        """One iteration on an image of each class; what it reports, by key."""
        report = self.train_judges(images) | self.train_generators(images)
        for name, net in self.nets.items():
            report[f"param.{name}"] = checksum(net.parameters())
            if name.startswith("gen"):
                report[f"rho.{name}"] = checksum(entries(net, "rho"))
            else:
                report[f"snbuf.{name}"] = checksum(entries(net, *BUFFERS))
        return report

    def train_judges(self, images):
        self.judge_optimiser.zero_grad()
        with torch.no_grad():
            fakes = {
                "A": self.nets["genB2A"](images["B"]).painted,
                "B": self.nets["genA2B"](images["A"]).painted,
            }
        losses = {}
        for letter in "AB":
            terms = {}
            for size in "GL":
                judge = self.nets[f"dis{size}{letter}"]
                real, fake = judge(images[letter]), judge(fakes[letter])
                for term, now_real, now_fake in (
                    ("ad", real.patches, fake.patches),
                    ("cam", real.scores, fake.scores),
                ):
                    loss = squares_from(now_real, 1) + squares_from(now_fake, 0)
                    terms[f"D_{term}_{size}{letter}"] = loss
            losses |= terms | {f"D_loss_{letter}": sum(terms.values())}
        losses["D_loss"] = losses["D_loss_A"] + losses["D_loss_B"]
        losses["D_loss"].backward()
        for name, net in self.named("dis").items():
            losses[f"grad.{name}"] = gradient_checksum(net)
        self.judge_optimiser.step()
        return losses

    def train_generators(self, images):
        self.generator_optimiser.zero_grad()
        losses = {}
        for letter, other in ("AB", "BA"):
            into, back = self.nets[f"gen{other}2{letter}"], self.nets[f"gen{letter}2{other}"]
            made, kept, away = into(images[other]), into(images[letter]), back(images[letter])
            terms = {
                "cycle": distance(into(away.painted).painted, images[letter]),
                "identity": distance(kept.painted, images[letter]),
                "cam": doubt(made.scores, 1.0) + doubt(kept.scores, 0.0),
                "recon": distance(away.restored, images[letter]),
            }
            losses |= self.verdicts(letter, made)
            losses |= {f"{term}_{letter}": loss for term, loss in terms.items()}
            adversarial = losses[f"adv_{letter}"] + losses[f"adv_{letter}_f"]
            weighted = sum(self.WEIGHTS[term] * loss for term, loss in terms.items())
            losses[f"G_loss_{letter}"] = adversarial + weighted
            losses[f"maskmean_{other}2{letter}"] = made.mask.mean()
        losses["G_loss"] = losses["G_loss_A"] + losses["G_loss_B"]
        losses["G_loss"].backward()
        for name, net in self.named("gen").items():
            losses[f"grad.{name}"] = gradient_checksum(net)
        self.generator_optimiser.step()
        with torch.no_grad():
            for net in self.named("gen").values():
                for share in entries(net, "rho"):
                    share.clamp_(0, 1)
        return losses

    def verdicts(self, letter, made):
        """Both judges of a class on what was painted, then on what the mask composes of it."""
        losses = {f"adv_{letter}": 0.0, f"adv_{letter}_f": 0.0}
        for size in "GL":
            judge = self.nets[f"dis{size}{letter}"]
            for ending, image in (("", made.painted), ("_f", made.composed)):
                said = judge(image)
                for term, outputs in (("ad", said.patches), ("adcam", said.scores)):
                    loss = squares_from(outputs, 1)
                    losses[f"G_{term}_{size}{letter}{ending}"] = loss
                    losses[f"adv_{letter}{ending}"] = losses[f"adv_{letter}{ending}"] + loss
        return losses


def distance(image, target):
    return (image - target).abs().mean()
