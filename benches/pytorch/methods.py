"""Training steps of the scribble methods, as PyTorch users write them.

Not to be run; imported by `step.py`. Each class is built with a `Setup`; `iterate(batch, step)` trains
once on images [N, 1, H, W], scribbles [N, H, W] (4 where nobody drew) and label maps of other patients
[N, H, W], and returns the loss without waiting for it. What can be compiled is in functions of tensors
alone: numbers that change from step to step are tensors too, so that nothing is compiled twice.
"""

import math
import random
from contextlib import AbstractContextManager
from typing import Callable, NamedTuple

import torch
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from discriminator import PatchDiscriminator
from training import partial_cross_entropy, poly_lr, set_lr, sgd
from unet import UNet, UNet_CCT, UNet_MAE

CLASSES = 4
IGNORE = 4
TOTAL_STEPS = 60_000


class Setup(NamedTuple):
    """How a run computes."""

    # Puts a network on the device.
    place: Callable
    # Wraps a network that is trained, once it is placed, in DDP where there are several ranks.
    share: Callable
    # `torch.compile`, or leaves a function as it is.
    compiled: Callable
    # The autocast of forward passes and losses.
    precision: AbstractContextManager


class PartialCe:
    """Cross-entropy on annotated pixels."""

    base_lr = 0.03
    network = UNet

    def __init__(self, setup):
        self.setup = setup
        self.net = setup.share(setup.place(self.network()))
        self.optimizer = sgd(self.net.parameters(), self.base_lr)
        self.compiled_loss = setup.compiled(self.loss)

    def iterate(self, batch, step):
        image, label, _ = batch
        set_lr(self.optimizer, poly_lr(self.base_lr, step, TOTAL_STEPS))
        self.optimizer.zero_grad()
        with self.setup.precision:
            loss = self.compiled_loss(image, label, *self.targets(image, step))
        loss.backward()
        self.optimizer.step()
        return loss

    def targets(self, image, step):
        """What `loss` needs beside the batch."""
        return ()

    def loss(self, image, label):
        return partial_cross_entropy(self.net(image), label, IGNORE)


def one_hot(label):
    return F.one_hot(label, CLASSES).movedim(-1, 1).float()


def dice(probabilities, target, smooth=1e-5):
    """Soft Dice loss, mean over all classes, sums over the whole batch, squared denominators."""

    def total(values):
        return values.sum((0, 2, 3))

    above = 2 * total(probabilities * target) + smooth
    return 1 - (above / (total(probabilities**2) + total(target**2) + smooth)).mean()


class Dmpls(PartialCe):
    """Two decoders, taught by the class of their randomly weighted mean."""

    network = UNet_CCT

    def loss(self, image, label):
        main, auxiliary = self.net(image)
        ce = partial_cross_entropy(main, label, IGNORE) + partial_cross_entropy(auxiliary, label, IGNORE)
        p, q = torch.softmax(main, 1), torch.softmax(auxiliary, 1)
        share = torch.rand((), device=image.device)
        pseudo = one_hot(torch.argmax(share * p.detach() + (1 - share) * q.detach(), 1))
        return 0.5 * ce + 0.5 * 0.5 * (dice(p, pseudo) + dice(q, pseudo))


def ramp_up(progress):
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def noisy(image):
    return image + torch.clamp(torch.randn_like(image) * 0.1, -0.2, 0.2)


def number(value, like):
    """A tensor on the device of `like`, put there without waiting."""
    return torch.full((), value, device=like.device)


class Ustm(PartialCe):
    """A mean teacher on turned, noisy images, followed where eight passes are sure."""

    def __init__(self, setup):
        super().__init__(setup)
        self.teacher = setup.place(UNet()).requires_grad_(False)
        self.compiled_teach = setup.compiled(self.teach)

    def iterate(self, batch, step):
        loss = super().iterate(batch, step)
        follow = get_ema_multi_avg_fn(min(1 - 1 / (step + 1), 0.99))
        follow(list(self.teacher.parameters()), list(self.net.parameters()), None)
        return loss

    def targets(self, image, step):
        """The teacher's answers are turned back, which is as good as turning the network's."""
        turns = random.randrange(4)
        threshold = (0.75 + 0.25 * ramp_up(step / TOTAL_STEPS)) * math.log(2)
        turned = torch.rot90(image, turns, [2, 3]).contiguous()
        answers = self.compiled_teach(turned, number(threshold, image))
        target, mask = (torch.rot90(x, -turns, [2, 3]).contiguous() for x in answers)
        return target, mask, number(ramp_up(step // 1000 / 60), image)

    @torch.no_grad()
    def teach(self, image, threshold):
        target = torch.softmax(self.teacher(noisy(image)), 1)
        twice = image.repeat(2, 1, 1, 1)
        passes = torch.cat([torch.softmax(self.teacher(noisy(twice)), 1) for _ in range(4)])
        mean = passes.reshape(8, *target.shape).mean(0)
        uncertainty = -(mean * torch.log(mean + 1e-6)).sum(1, keepdim=True)
        return target, (uncertainty < threshold).float()

    def loss(self, image, label, target, mask, weight):
        logits = self.net(image)
        difference = (torch.softmax(logits, 1) - target) ** 2
        consistency = (mask * difference).sum() / (2 * mask.sum() + 1e-16)
        return partial_cross_entropy(logits, label, IGNORE) + weight * consistency


def verdict(logits, is_real):
    """Cross-entropy of a discriminator's logits with what it should say."""
    wanted = torch.ones_like(logits) if is_real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, wanted)


class MaskMixAdv(PartialCe):
    """Two half-hidden views label each other; a discriminator compares the result with real label maps."""

    base_lr = 0.01
    network = UNet_MAE
    CELLS = 32
    BLUR = 3

    def __init__(self, setup):
        super().__init__(setup)
        self.judge = setup.place(PatchDiscriminator(CLASSES))
        self.shared_judge = setup.share(self.judge)
        self.judge_optimizer = torch.optim.AdamW(self.judge.parameters(), lr=1e-4, weight_decay=0.0)
        self.compiled_judge_loss = setup.compiled(self.judge_loss)

    def iterate(self, batch, step):
        image, label, shapes = batch
        set_lr(self.optimizer, poly_lr(self.base_lr, step, TOTAL_STEPS))
        self.optimizer.zero_grad()
        self.judge_optimizer.zero_grad()
        # What judges the network's maps stands still meanwhile, spectral norms included.
        self.judge.eval().requires_grad_(False)
        with self.setup.precision:
            loss, mixed = self.compiled_loss(image, label, self.draw(image))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()

        self.judge.train().requires_grad_(True)
        with self.setup.precision:
            judge_loss = self.compiled_judge_loss(shapes, mixed)
        judge_loss.backward()
        self.judge_optimizer.step()
        return loss

    def draw(self, image):
        """Half of the cells, [1, 1, 32, 32]: 1 where the first view sees the images of this batch."""
        order = torch.randperm(self.CELLS**2, device=image.device)
        return (order < self.CELLS**2 // 2).float().view(1, 1, self.CELLS, self.CELLS)

    def loss(self, image, label, cells):
        """The network's loss, and the mixed prediction without its gradient."""
        shown = F.interpolate(cells, size=image.shape[2:], mode="nearest")
        first, second, restored = self.net(image, shown)
        ce = partial_cross_entropy(first, label, IGNORE) + partial_cross_entropy(second, label, IGNORE)
        p, q = torch.softmax(first, 1), torch.softmax(second, 1)
        mixed = torch.where(shown > 0, p, q)
        pseudo = one_hot(torch.argmax(mixed.detach(), 1))
        # The release counts every pixel once for each image of the batch.
        smooth = 1e-5 / len(image)
        agreement = dice(p, pseudo, smooth) + dice(q, pseudo, smooth)
        hidden = 1 - shown
        unseen = ((restored - image) ** 2 * hidden).sum() / (len(image) * hidden.sum())
        (logits,) = self.judge(mixed)
        loss = 10 * ce / 2 + 0.5 * agreement / 2 + 10 * unseen + 0.05 * verdict(logits, True)
        return loss, mixed.detach()

    def judge_loss(self, shapes, mixed):
        real = F.avg_pool2d(one_hot(shapes), self.BLUR, 1, self.BLUR // 2, count_include_pad=False)
        of_real, of_mixed = self.shared_judge(real, mixed)
        return 0.05 * (verdict(of_real, True) + verdict(of_mixed, False))


METHODS = {"partial-ce": PartialCe, "dmpls": Dmpls, "ustm": Ustm, "maskmixadv": MaskMixAdv}
