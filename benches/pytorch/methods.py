"""One loss per iteration of the scribble methods, as PyTorch users write them.

Not to be run; imported by `step.py`. Each class is built with a function that wraps and places a
network, has `parameters()`, gives the loss of one batch by `loss(image, label, step)`, and is told
by `stepped(step)` when the weights have changed.
"""

import math
import random

import torch
from torch.nn import functional as F

from training import partial_cross_entropy
from unet import UNet, UNet_CCT

CLASSES = 4
IGNORE = 4
TOTAL_STEPS = 60_000


class PartialCe:
    """Cross-entropy on annotated pixels."""

    def __init__(self, place):
        self.net = place(UNet())

    def parameters(self):
        return self.net.parameters()

    def loss(self, image, label, step):
        return partial_cross_entropy(self.net(image), label, IGNORE)

    def stepped(self, step):
        pass


def dice(probabilities, label):
    """Soft Dice loss over all classes and the whole batch, squared denominators."""
    target = F.one_hot(label, CLASSES).permute(0, 3, 1, 2)
    total = 0.0
    for c in range(CLASSES):
        p, t = probabilities[:, c], target[:, c]
        smooth = 1e-5
        total = total + 1 - (2 * (p * t).sum() + smooth) / ((p * p).sum() + (t * t).sum() + smooth)
    return total / CLASSES


class Dmpls(PartialCe):
    """Two decoders, taught by the class of their randomly weighted mean."""

    def __init__(self, place):
        self.net = place(UNet_CCT())

    def loss(self, image, label, step):
        main, auxiliary = self.net(image)
        ce = partial_cross_entropy(main, label, IGNORE) + partial_cross_entropy(auxiliary, label, IGNORE)
        p, q = torch.softmax(main, 1), torch.softmax(auxiliary, 1)
        share = random.random() + 1e-10
        pseudo = torch.argmax(share * p.detach() + (1 - share) * q.detach(), 1)
        return 0.5 * ce + 0.5 * 0.5 * (dice(p, pseudo) + dice(q, pseudo))


def ramp_up(progress):
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def noisy(image):
    return image + torch.clamp(torch.randn_like(image) * 0.1, -0.2, 0.2)


class Ustm(PartialCe):
    """A mean teacher on turned, noisy images, followed where eight passes are sure."""

    def __init__(self, place):
        super().__init__(place)
        self.teacher = place(UNet())
        for parameter in self.teacher.parameters():
            parameter.requires_grad_(False)

    def loss(self, image, label, step):
        logits = self.net(image)
        turns = random.randrange(4)
        turned = torch.rot90(image, turns, [2, 3])
        with torch.no_grad():
            target = torch.softmax(self.teacher(noisy(turned)), 1)
            twice = turned.repeat(2, 1, 1, 1)
            passes = torch.cat([torch.softmax(self.teacher(noisy(twice)), 1) for _ in range(4)])
            mean = passes.reshape(8, *target.shape).mean(0)
            uncertainty = -(mean * torch.log(mean + 1e-6)).sum(1, keepdim=True)
            threshold = (0.75 + 0.25 * ramp_up(step / TOTAL_STEPS)) * math.log(2)
            mask = (uncertainty < threshold).float()
        difference = (torch.softmax(torch.rot90(logits, turns, [2, 3]), 1) - target) ** 2
        consistency = (mask * difference).sum() / (2 * mask.sum() + 1e-16)
        weight = ramp_up(step // 1000 / 60)
        return partial_cross_entropy(logits, label, IGNORE) + weight * consistency

    @torch.no_grad()
    def stepped(self, step):
        kept = min(1 - 1 / (step + 1), 0.99)
        for teacher, student in zip(self.teacher.parameters(), self.net.parameters()):
            teacher.mul_(kept).add_(student, alpha=1 - kept)


METHODS = {"partial-ce": PartialCe, "dmpls": Dmpls, "ustm": Ustm}
