"""Remakes gazesup.safetensors: losses of levels, propagated features, the network, two updates, maps of gaze.

    python gazesup.py --like DIR                    # compares with the file of DIR
    python gazesup.py --like DIR --to DIR2 --seed 7 # writes DIR2/gazesup.safetensors from other inputs

From the method card `gazesup.md`, in double precision with autograd; neighbours are gathered by shifts, one after the
other. Needs torch, numpy, scipy and safetensors.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

import common
import gaze_maps

FEATURES = (64, 128, 256, 512, 1024, 128)
OFFSETS = [(2 * down, 2 * across) for down in range(-2, 3) for across in range(-2, 3)]
WEIGHT = 3.0
EPOCHS = 133
TOLERANCES = {
    "net": 1e-4,
    "iter.": 3e-6,
    "iter.1.grad": 3e-4,
    "iter.2.grad": 3e-4,
    "iter.1.param": 5e-6,
    "iter.2.param": 5e-6,
    "lr.out": 1e-6,
} | gaze_maps.TOLERANCES


# Losses


def cross_entropy(logits, label, mask=None):
    each = F.softplus(logits) - logits * label
    mask = torch.ones_like(each) if mask is None else mask
    return ((each * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-8)).mean()


def soft_dice(logits, label):
    share = logits.sigmoid()
    both, all_ = ((share * label).sum((2, 3)), share.sum((2, 3)) + label.sum((2, 3)))
    return (1 - (2 * both + 1e-5) / (all_ + 1e-5)).mean()


def disagreements(own, plain):
    """Of each level with all others, whose logits get no gradient."""
    found = []
    for level, logits in enumerate(own):
        share, of_others = logits.sigmoid(), []
        for other, peer in enumerate(plain):
            if other != level:
                theirs = peer.detach().sigmoid()
                of_others.append((share * theirs + (1 - share) * (1 - theirs)).mean())
        found.append(-torch.stack(of_others).mean())
    return torch.stack(found)


def propagated(features):
    rows, columns = features.shape[2:]
    padded = F.pad(features, (4, 4, 4, 4))
    around = [padded[:, :, 4 + y : 4 + y + rows, 4 + x : 4 + x + columns] for y, x in OFFSETS]
    products = torch.stack([(features * near).sum(1) for near in around])
    weights = products.clamp(min=0).softmax(0)
    return sum(weight[:, None] * near for weight, near in zip(weights, around, strict=True))


def leaves(given, *keys):
    return [given[key].double().requires_grad_() for key in keys]


def losses(given):
    label, mask = given["bce.in.label"].double(), given["bce_mask.in.mask"].double()
    forms = {
        "bce": lambda z: cross_entropy(z, label),
        "bce_mask": lambda z: cross_entropy(z, label, mask),
        "dice": lambda z: soft_dice(z, label),
        "dicece": lambda z: (soft_dice(z, label) + cross_entropy(z, label)) / 2,
    }
    for name, form in forms.items():
        (logits,) = leaves(given, "bce.in.logits")
        value = form(logits)
        value.backward()
        yield {f"{name}.out.loss": value, f"{name}.grad.logits": logits.grad}


def consistency(given):
    for levels in (2, 3):
        keys = lambda what: [f"cons{levels}.in.{what}_{level}" for level in range(1, levels + 1)]
        for mode, what in (("pure", "logits"), ("prop", "logits_prop")):
            plain = leaves(given, *keys("logits"))
            own = plain if mode == "pure" else leaves(given, *keys(what))
            found = disagreements(own, plain)
            found.sum().backward()
            yield {f"cons{levels}.{mode}.out.loss": found} | {
                f"cons{levels}.{mode}.grad.{what}_{level}": logits.grad for level, logits in enumerate(own, 1)
            }


def propagation(given):
    (features,) = leaves(given, "prop.in.feat")
    found = propagated(features)
    loss = (found * given["prop.in.w"].double()).sum()
    loss.backward()
    return {"prop.out.feat": found, "prop.out.loss": loss, "prop.grad.feat": features.grad}


# Network


class Unit(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.adn = nn.ModuleDict({"N": nn.GroupNorm(4, b)})

    def forward(self, x):
        return F.leaky_relu(self.adn["N"](self.conv(x)), 0.1)


class Two(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv_0, self.conv_1 = Unit(a, b), Unit(b, b)

    def forward(self, x):
        return self.conv_1(self.conv_0(x))


class Down(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.convs = Two(a, b)

    def forward(self, x):
        return self.convs(F.max_pool2d(x, 2))


class Up(nn.Module):
    def __init__(self, below, skip, out, halves=True):
        super().__init__()
        up = below // 2 if halves else below
        self.upsample = nn.ModuleDict({"deconv": nn.ConvTranspose2d(below, up, 2, stride=2)})
        self.convs = Two(skip + up, out)

    def forward(self, below, skip):
        return self.convs(torch.cat([skip, self.upsample["deconv"](below)], 1))


class Encoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        a, b, c, d, e, last = FEATURES
        self.conv_0 = Two(channels, a)
        self.down_1, self.down_2, self.down_3, self.down_4 = Down(a, b), Down(b, c), Down(c, d), Down(d, e)
        self.upcat_4, self.upcat_3, self.upcat_2 = Up(e, d, d), Up(d, c, c), Up(c, b, b)
        self.upcat_1 = Up(b, a, last, halves=False)
        self.final_conv = nn.Conv2d(last, 128, 1)

    def forward(self, x):
        down = [self.conv_0(x)]
        for step in (self.down_1, self.down_2, self.down_3, self.down_4):
            down.append(step(down[-1]))
        up = down.pop()
        for step in (self.upcat_4, self.upcat_3, self.upcat_2, self.upcat_1):
            up = step(up, down.pop())
        return self.final_conv(up)


class Net(nn.Module):
    """Of one level; `head` is never called."""

    def __init__(self, channels=3):
        super().__init__()
        self.encoder = Encoder(channels)
        self.head = nn.Sequential(nn.Conv2d(128, 128, 1), nn.LeakyReLU(0.1), nn.Conv2d(128, 128, 1))
        self.classifier = nn.Conv2d(128, 1, 1)

    def forward(self, x):
        features = self.encoder(x)
        spread = propagated(features)
        return features, spread, self.classifier(features), self.classifier(spread)


class Levels(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.ModuleList([Net(), Net()])


def filled_by_rule_b(module):
    module.double()
    for number, (name, entry) in enumerate(common.floating_state(module)):
        element = torch.arange(entry.numel(), dtype=torch.float64)
        wave = torch.sin(0.7 * element + 0.013 * (element % 1009) ** 2 + 1.3 * number).float().reshape(entry.shape)
        if entry.dim() > 1:
            entry.copy_(wave * math.sqrt(2 / math.prod(entry.shape[1:])))
        else:
            entry.copy_(1 + 0.1 * wave if name.endswith("weight") else 0.05 * wave)
    return module


def networks(given):
    x = given["net.in.x"].double()
    for name, fill in (("net", common.fill), ("net_b", filled_by_rule_b)):
        with torch.no_grad():
            found = [net(x) for net in fill(Levels()).model]
        for level, (_, _, plain, spread) in enumerate(found, 1):
            yield {f"{name}.out.logits_{level}": plain, f"{name}.out.logits_prop_{level}": spread}
        yield {
            f"{name}.out.logits": (found[0][2] + found[1][2]) / 2,
            f"{name}.out.feature_1_sub": found[0][0][:, ::16],
            f"{name}.out.feature_prop_2_sub": found[1][1][:, ::16],
        }


def updates(given):
    x = given["net.in.x"].double()
    masks = [given[f"iter.in.pseudo_{level}"].double() for level in (1, 2)]
    model = filled_by_rule_b(Levels())
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.99, nesterov=True, weight_decay=4e-4)
    for iteration in (1, 2):
        found = [net(x) for net in model.model]
        learnt = [cross_entropy(level[2], mask) for level, mask in zip(found, masks, strict=True)]
        agreed = disagreements([level[3] for level in found], [level[2] for level in found])
        loss = sum(learnt) + WEIGHT * agreed.sum()
        optimiser.zero_grad()
        loss.backward()
        key = f"iter.{iteration}."
        gradients = [[p.grad for p in net.parameters() if p.grad is not None] for net in model.model]
        optimiser.step()
        yield {f"{key}loss": loss}
        for level in (1, 2):
            yield {
                f"{key}cls_{level}": learnt[level - 1],
                f"{key}cons_{level}": agreed[level - 1],
                f"{key}grad_{level}": common.sums(gradients[level - 1]).sum(0),
                f"{key}param_{level}": common.sums(model.model[level - 1].parameters()).sum(0),
            }


# Scores and schedule


def scores(given):
    found = (given["metric.in.logits"] > 0).double()
    there = given["metric.in.label"].double()
    both, either = (found * there).sum((1, 2, 3)), (found + there).sum((1, 2, 3))
    larger = F.interpolate(given["metric.up.in"].double(), size=(20, 31), mode="bilinear", align_corners=False)
    return {
        "metric.out.dice": 2 * both / (either + 1e-7),
        "metric.out.iou": both / (either - both + 1e-7),
        "metric.up.out": larger,
    }


def rates():
    epochs = torch.arange(1, EPOCHS + 1, dtype=torch.float64)
    return {"lr.out": 1e-4 + (1e-2 - 1e-4) * 0.5 * (1 + torch.cos(math.pi * epochs / EPOCHS))}


def compute(given):
    outputs = gaze_maps.compute(given) | propagation(given) | scores(given) | rates()
    for parts in (losses, consistency, networks, updates):
        for part in parts(given):
            outputs |= part
    return outputs


def draw(given, random):
    drawn = gaze_maps.draw(given, random)
    binary = lambda key: torch.from_numpy(random.integers(0, 2, tuple(given[key].shape))).float()
    for key in ("bce.in.label", "bce_mask.in.mask", "metric.in.label"):
        drawn[key] = binary(key)
    for key in given:
        if key.startswith(("cons", "prop.")) or key in ("bce.in.logits", "metric.in.logits", "metric.up.in"):
            drawn[key] = common.draw_normal(tuple(given[key].shape), random, 1.5 if "logits" in key else 0.7)
    # Nobody is found, nobody is there, neither, and a logit of exactly 0.
    drawn["metric.in.logits"][1], drawn["metric.in.label"][2] = -2.0, 0.0
    drawn["metric.in.logits"][3], drawn["metric.in.label"][3] = -2.0, 0.0
    drawn["metric.in.logits"][4, 0, 0] = 0.0
    image = common.draw_images(tuple(given["net.in.x"].shape), random)
    drawn["net.in.x"] = 4 * image - 2
    near = common.draw_images(tuple(given["iter.in.pseudo_1"].shape), random, 4.0)
    drawn["iter.in.pseudo_1"], drawn["iter.in.pseudo_2"] = (near > 0.7).float(), (near > 0.45).float()
    return drawn


if __name__ == "__main__":
    common.main("gazesup", compute, draw, TOLERANCES, is_input=lambda key: ".in." in f"{key}.")
