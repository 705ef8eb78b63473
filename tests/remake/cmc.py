"""Remakes cmc.safetensors: losses of two modalities, attention, the network, weights over the run.

    python cmc.py --like DIR                    # compares with the file of DIR
    python cmc.py --like DIR --to DIR2 --seed 7 # writes DIR2/cmc.safetensors from other inputs

In double precision with autograd, the losses row by row as the formulas read. Needs torch, numpy, scipy and
safetensors.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

import common

TEMPERATURE = 0.5
EPOCHS = 500
WARM_UP = 50
TOLERANCES = {"net.": 1e-4, "lr.out": 1e-6, "ramp.": 1e-6}


# Losses


def contrast(x, y):
    rows = torch.cat([x, y])
    losses = []
    for number, row in enumerate(rows):
        cosines = F.cosine_similarity(row[None], rows, dim=1) / TEMPERATURE
        others = torch.cat([cosines[:number], cosines[number + 1 :]])
        partner = (number + len(x)) % len(rows)
        losses.append(others.exp().sum().log() - cosines[partner])
    return torch.stack(losses).mean()


def semantic(ct, mr, shape):
    return torch.stack([contrast(a.reshape(shape(a)), b.reshape(shape(b))) for a, b in zip(ct, mr, strict=True)]).mean()


def consecutive(features):
    return (-1, len(features))


def channels(features):
    return (len(features), -1)


def anatomical(a, b):
    found = []
    for first, second in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True):
        squares = (first**2).sum() + (second**2).sum()
        found.append((2 * (first * second).sum() + 1e-6) / (squares + 1e-6))
    return torch.stack(found).mean()


def dice_ce(logits, label):
    label = label[:, 0].long()
    probabilities = logits.softmax(1)
    dice = []
    for p, l in zip(probabilities, label, strict=True):
        for c, of_class in enumerate(p):
            g = (l == c).to(p.dtype)
            dice.append(1 - 2 * (of_class * g).sum() / ((of_class**2).sum() + (g**2).sum() + 1e-6))
    return torch.stack(dice).mean() + F.cross_entropy(logits, label)


def with_gradients(name, loss, inputs):
    """`inputs` by their names in the file."""
    leaves = {key: tensor.double().requires_grad_() for key, tensor in inputs.items()}
    value = loss(*leaves.values())
    gradients = torch.autograd.grad(value, list(leaves.values()))
    named = {f"{name}.grad.{key}": each for key, each in zip(leaves, gradients, strict=True)}
    return {f"{name}.out.loss": value} | named


# Network


class LUConv(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv1 = nn.Conv3d(a, b, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(b)

    def forward(self, x):
        bn = self.bn1
        x = F.batch_norm(self.conv1(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, True, 0.1, 1e-5)
        return x.relu()


class Level(nn.Module):
    def __init__(self, a, b, c):
        super().__init__()
        self.ops = nn.Sequential(LUConv(a, b), LUConv(b, c))

    def forward(self, x):
        return self.ops(x)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        before = 1
        for width in (64, 128, 256, 512):
            setattr(self, f"down_tr{width}", Level(before, width // 2, width))
            before = width

    def forward(self, x):
        skips = []
        for width in (64, 128, 256):
            skips.append(getattr(self, f"down_tr{width}")(x))
            x = F.max_pool3d(skips[-1], 2)
        return self.down_tr512(x), skips


class Up(Level):
    def __init__(self, below, width):
        super().__init__(below + width, width, width)
        ops = self.ops
        del self.ops
        self.up_conv = nn.ConvTranspose3d(below, below, 2, stride=2)
        self.ops = ops

    def forward(self, x, skip):
        return self.ops(torch.cat([self.up_conv(x), skip], 1))


class Out(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Module()
        self.conv.conv = nn.Conv3d(64, classes, 1)


class Decoder(nn.Module):
    def __init__(self, classes):
        super().__init__()
        for width in (256, 128, 64):
            setattr(self, f"up_tr{width}", Up(2 * width, width))
        self.out_tr = Out(classes)

    def forward(self, x, skips):
        for width, skip in zip((256, 128, 64), reversed(skips), strict=True):
            x = getattr(self, f"up_tr{width}")(x, skip)
        return self.out_tr.conv.conv(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return attend(x, self.gamma)


def attend(x, gamma):
    found = []
    for each in x.flatten(2):
        energy = each @ each.T
        found.append((energy.amax(1, keepdim=True) - energy).softmax(1) @ each)
    return gamma * torch.stack(found).reshape(x.shape) + x


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = LUConv(1024, 512), LUConv(512, 512)

    def forward(self, ct, mr):
        return self.layer2(self.layer1(torch.cat([ct, mr], 1))).sigmoid()


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.image_encoder = Encoder()
        self.decoder = Decoder(classes)
        self.MIA_module = Attention()
        self.fusion_layer = Fusion()
        self.conv3d_convert = nn.Sequential(nn.GroupNorm(16, 1024), nn.ReLU(), nn.Conv3d(1024, 512, 1))

    def forward(self, ct, mr):
        encoded = [self.image_encoder(x) for x in (ct, mr)]
        attended = [self.MIA_module(features) for features, _ in encoded]
        fused = self.fusion_layer(*attended)
        logits = []
        for (_, skips), each in zip(encoded, attended, strict=True):
            converted = self.conv3d_convert(torch.cat([fused, each], 1))
            logits.append(self.decoder(converted, skips))
        return [features for features, _ in encoded], logits


def fill_by_rule_b(net):
    """The second rule of the cards; see `fill_by_rule_b` in tests/it/golden.rs."""
    for number, (name, entry) in enumerate(common.floating_state(net)):
        i = torch.arange(entry.numel(), dtype=torch.float64)
        r = i % 1009
        v = torch.sin(0.7 * i + 0.013 * r**2 + 1.3 * number).float().reshape(entry.shape)
        last = name.split(".")[-1]
        if last == "gamma" or (last == "weight" and entry.dim() == 1):
            v = 1 + 0.1 * v
        elif entry.dim() >= 2:
            v = v * math.sqrt(2 / math.prod(entry.shape[1:]))
        elif last == "running_var":
            v = 1 + 0.1 * v**2
        elif last == "running_mean":
            v = 0.1 * v
        else:
            v = 0.05 * v
        entry.copy_(v)
    return net.double()


def compute_network(inputs):
    classes = 14
    net = fill_by_rule_b(Network(classes))
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == 40_838_095, count
    with torch.no_grad():
        features, logits = net(inputs["net.in.ct"].double(), inputs["net.in.mri"].double())
    found = {}
    for name, each, z in zip(("ct", "mri"), features, logits, strict=True):
        found[f"net.out.{name}_feat"] = each[:, ::32]
        found[f"net.out.{name}_logits"] = z[..., ::2, ::2, ::2]
    for statistic in ("running_mean", "running_var"):
        state = [entry.flatten() for name, entry in net.state_dict().items() if name.endswith(statistic)]
        found[f"net.out.{statistic}_sum"] = common.sums([torch.cat(state)])[0]
    return found


# Weights over the run


def rates():
    rise = [epoch / (WARM_UP - 1) for epoch in range(WARM_UP)]
    falling = EPOCHS - WARM_UP
    fall = [(1 + math.cos(math.pi * epoch / falling)) / 2 for epoch in range(falling)]
    return torch.tensor([1e-4 * share for share in rise + fall], dtype=torch.float64)


def compute(inputs):
    of = lambda name, keys: {key: inputs[f"{name}.in.{key}"] for key in keys}  # noqa: E731
    both = ("ct", "mri")
    outputs = with_gradients("csc", lambda a, b: semantic(a, b, consecutive), of("csc", both))
    outputs |= with_gradients("csc_channel", lambda a, b: semantic(a, b, channels), of("csc", both))
    outputs |= with_gradients("ntxent", contrast, of("ntxent", ("x", "y")))
    outputs |= with_gradients("cac", anatomical, of("cac", both))
    nothing = torch.zeros_like(inputs["cac.in.ct"]).double()
    outputs["cac.out.zero"] = anatomical(nothing, nothing)
    label = inputs["dicece.in.label"]
    outputs |= with_gradients("dicece", lambda z: dice_ce(z, label), of("dicece", ("logits",)))
    x = inputs["mia.in.x"].double().requires_grad_()
    gamma = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    y = attend(x, gamma)
    loss = (y * inputs["mia.in.w"].double()).sum()
    by_x, by_gamma = torch.autograd.grad(loss, [x, gamma])
    outputs |= {"mia.out.y": y, "mia.out.loss": loss, "mia.grad.x": by_x, "mia.grad.gamma": by_gamma}
    epochs = torch.arange(0, EPOCHS, 10, dtype=torch.float64) / EPOCHS
    outputs |= {"ramp.csc": (-5 * (1 - epochs) ** 2).exp(), "ramp.cac": (1 + (math.pi * epochs).cos()) / 2}
    return outputs | compute_network(inputs) | {"lr.out": rates()}


def draw(given, random):
    drawn = {key: common.draw_normal(tensor.shape, random) for key, tensor in given.items()}
    label = given["dicece.in.label"]
    classes = given["dicece.in.logits"].shape[1]
    drawn["dicece.in.label"] = torch.from_numpy(random.integers(0, classes, label.shape)).float()
    return drawn


if __name__ == "__main__":
    common.main("cmc", compute, draw, TOLERANCES)
