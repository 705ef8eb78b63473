"""Remakes the golden file of MaskMixAdv: mask operator, losses, networks and two whole iterations.

    python maskmixadv.py --like DIR                    # compares with DIR/maskmixadv.safetensors
    python maskmixadv.py --like DIR --to DIR2 --seed 7 # writes DIR2/maskmixadv.safetensors

Follows the method card alone. Everything is computed in double precision; the stored numbers of the
reference are in single precision. See `common.py` for what it needs.
"""

import copy
import math
import sys

import torch
from torch import nn
from torch.nn import functional as F

import common

sys.path.insert(0, str(common.BENCH_NETWORKS))
from unet import Decoder, Encoder  # noqa: E402

GRID = 32
CLASSES = 4
TOTAL_STEPS = 60_000
BASE_RATE = 0.01
# A prediction this near to a tie could fall to either side of it.
CLEAR_OF_TIES = 1e-5

TOLERANCES = {
    "dis.fill.stats": 1e-6,
    "net.fill.stats": 1e-6,
    # The gap of a near tie is itself a difference of rounded numbers.
    "iter.out.margin": 1e-1,
}


class UNetMae(nn.Module):
    """One encoder, a decoder for the classes and one for what was hidden of the image."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(1, (0.0,) * 5)
        self.seg_decoder = Decoder(CLASSES)
        self.mae_decoder = Decoder(1)

    def forward(self, x):
        features = self.encoder(x)
        return self.seg_decoder(features), self.mae_decoder(features)


def patch_discriminator(channels=1):
    """Logits of patches, one per 32x32 pixels."""
    widths = (channels, 64, 128, 256, 512)
    layers = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, stride=2, padding=1))


class EarlierDiscriminator(nn.Module):
    """One number per image, with instance norm."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before, after, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
            convolution = nn.Conv2d(before, after, 4, stride=stride, padding=1)
            layers += [convolution, nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, padding=1))

    def forward(self, x):
        return self.model(x).mean((2, 3))


def cells(permutation, ratio):
    """[1, 1, 32, 32]: 1 where the image is shown to the first branch."""
    shown = permutation < math.floor(ratio * GRID * GRID)
    return shown.double().reshape(1, 1, GRID, GRID)


def mask(permutation, size, ratio=0.5):
    """[1, size, size], the cells enlarged to their nearest pixels."""
    return F.interpolate(cells(permutation, ratio), size=(size, size), mode="nearest")[0]


def partial_cross_entropy(logits, label):
    return F.cross_entropy(logits, label.long(), ignore_index=common.IGNORE)


def pseudo_dice(probabilities, labels):
    """Dice loss as released: each sum counts every pixel once per image of the batch."""
    targets = F.one_hot(labels.long().squeeze(1), CLASSES).movedim(-1, 1).double()
    copies = len(probabilities)

    def total(values):
        return copies * values.sum((0, 2, 3))

    smooth = 1e-5
    above = 2 * total(probabilities * targets) + smooth
    below = total(probabilities**2) + total(targets**2) + smooth
    return (1 - above / below).mean()


def reconstruction(restored, image, shown):
    hidden = (shown == 0).expand(image.shape)
    return F.mse_loss(restored[hidden], image[hidden])


def mix(shown, first, second):
    """Each branch speaks where it saw the image."""
    return shown * first + (1 - shown) * second


def pseudo_label(mixed):
    """[B, 1, H, W], class numbers."""
    return mixed.argmax(1, keepdim=True).double()


def smallest_gap(mixed):
    """Between the two largest probabilities, over all pixels."""
    largest = mixed.detach().topk(2, dim=1).values
    return (largest[:, 0] - largest[:, 1]).min()


def verdict(logits, target):
    """Cross entropy of a discriminator's logits with 1 for real, 0 for fake."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def expected_class(mixed):
    numbers = torch.arange(CLASSES, dtype=mixed.dtype).reshape(1, CLASSES, 1, 1)
    return (numbers * mixed).sum(1, keepdim=True)


def masks_of_images(inputs):
    permutation, x = inputs["maskgen.in.perm"], inputs["maskgen.in.x"]
    first = mask(permutation, x.shape[-1])
    return {
        "maskgen.out.mask1": first,
        "maskgen.out.mask2": 1 - first,
        "maskgen.out.masked1": x * first,
        "maskgen.out.masked2": x * (1 - first),
        "maskgen.out.mask1_256_r50": mask(permutation, 256),
        "maskgen.out.cells_r25": cells(permutation, 0.25)[0, 0],
        "maskgen.out.cells_r75": cells(permutation, 0.75)[0, 0],
    }


def masks_of_features(inputs):
    permutations = enumerate(inputs["featmask.in.perm"])
    return {f"featmask.out.mask{level}": mask(order, 256 >> level) for level, order in permutations}


def value_and_gradients(name, loss, leaves):
    """A loss and its gradients; a leaf that gets none has no key."""
    gradients = torch.autograd.grad(loss, leaves.values(), retain_graph=True, allow_unused=True)
    named = zip(leaves, gradients)
    found = {f"{name}.grad.{leaf}": gradient for leaf, gradient in named if gradient is not None}
    return {f"{name}.out.loss": loss, **found}


def losses(inputs):
    names = ("logits1", "logits2", "restore")
    leaves = {name: inputs[f"loss.in.{name}"].double().requires_grad_() for name in names}
    first, second, restored = leaves.values()
    image, label = inputs["loss.in.image"].double(), inputs["loss.in.label"]
    shown = inputs["loss.in.mask1"].double()
    probabilities = first.softmax(1), second.softmax(1)
    mixed = mix(shown, *probabilities)
    pseudo = pseudo_label(mixed)

    parts = torch.stack([partial_cross_entropy(logits, label) for logits in (first, second)])
    terms = {
        "ce": parts.mean(),
        "mae": reconstruction(restored, image, shown),
        "pse": torch.stack([pseudo_dice(p, pseudo) for p in probabilities]).mean(),
        "hist_ce3": partial_cross_entropy(mix(shown, first, second), label),
        **adversarial_terms(mixed, pseudo),
    }
    terms["total"] = 10 * terms["ce"] + 0.5 * terms["pse"] + 10 * terms["mae"]
    outputs = {
        "ce.out.parts": parts,
        "mix.out.prob": mixed,
        "mix.out.pseudo": pseudo,
        "mix.out.pseudo_requires_grad": torch.tensor(int(pseudo.requires_grad)),
    }
    for name, loss in terms.items():
        outputs |= value_and_gradients(name, loss, leaves)
    return outputs


def adversarial_terms(mixed, pseudo):
    """What a discriminator could send to the network: our terms, not the reference's."""
    mean = expected_class(mixed)
    one, four = common.fill(patch_discriminator()), common.fill(patch_discriminator(CLASSES))
    return {
        "ext_adv_prob4": 0.1 * verdict(four(mixed), 1.0),
        "ext_adv_soft": 0.1 * verdict(one(mean), 1.0),
        "ext_adv_st": 0.1 * verdict(one(pseudo + mean - mean.detach()), 1.0),
    }


def enlarged(maps, size):
    """Order-0 zoom of the data path for square maps: pixel i shows floor(i (n-1)/(m-1) + 0.5)."""
    step = (maps.shape[-1] - 1) / (size - 1)
    source = torch.floor(torch.arange(size, dtype=torch.float64) * step + 0.5).long()
    return maps[..., source, :][..., source]


def discriminators(inputs):
    net = common.fill(patch_discriminator())
    maps = inputs["dis.in.x"].double().requires_grad_()
    logits = net(maps)
    real = verdict(logits, 1.0)
    leaves = [maps, *net.parameters()]
    gradient, *of_parameters = torch.autograd.grad(real, leaves, retain_graph=True)
    return {
        "dis.fill.stats": common.sums(net.state_dict().values()),
        "dis.out.logits": logits,
        "dis.out.logits_256": net(enlarged(maps, 256)),
        "dis.out.bce_real": real,
        "dis.out.bce_fake": verdict(logits, 0.0),
        "dis.grad.x": gradient,
        "dis.grad_stats": common.sums(of_parameters),
        "disin.out.y": common.fill(EarlierDiscriminator())(maps),
    }


def floating_tensors(module):
    return [tensor for _, tensor in common.floating_state(module)]


@torch.no_grad()
def network(inputs):
    net = common.fill(UNetMae())
    outputs = {"net.fill.stats": common.sums(floating_tensors(net))}
    x = inputs["net.in.x"].double()
    # Evaluation first: training moves the running statistics.
    for name in ("eval", "train"):
        net.train(name == "train")
        outputs[f"net.out.seg.{name}"], outputs[f"net.out.rec.{name}"] = net(x)
    return outputs


class Trainer:
    """The released method with filled weights."""

    def __init__(self):
        self.net = common.fill(UNetMae()).train()
        self.judge = common.fill(patch_discriminator())
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=BASE_RATE, momentum=0.9, weight_decay=1e-4
        )
        self.judge_optimizer = torch.optim.Adam(self.judge.parameters(), lr=1e-4)
        self.done = 0

    def iterate(self, image, label, permutation, real):
        """One iteration; its numbers by the ends of their keys."""
        shown = mask(permutation, image.shape[-1])
        first, restored = self.net(image * shown)
        second, _ = self.net(image * (1 - shown))
        probabilities = first.softmax(1), second.softmax(1)
        mixed = mix(shown, *probabilities)
        pseudo = pseudo_label(mixed)
        parts = [partial_cross_entropy(logits, label) for logits in (first, second)]
        entropy = 0.5 * sum(parts)
        dice = 0.5 * sum(pseudo_dice(p, pseudo) for p in probabilities)
        restoring = reconstruction(restored, image, shown)
        total = 10 * entropy + 0.5 * dice + 10 * restoring

        # Never reaches the network: the class numbers have no gradient.
        fooling = 0.1 * verdict(self.judge(pseudo), 1.0)
        rate = self.step(self.optimizer, total)
        verdicts = [verdict(self.judge(real), 1.0), verdict(self.judge(pseudo), 0.0)]
        judging = 0.05 * sum(verdicts)
        self.step(self.judge_optimizer, judging)
        # The reference sets the next rate from the counter before it moves: one step late.
        self.optimizer.param_groups[0]["lr"] = BASE_RATE * (1 - self.done / TOTAL_STEPS) ** 0.9
        self.done += 1
        numbers = [*parts, entropy, restoring, dice, total, fooling, *verdicts, judging]
        return {
            "losses": torch.stack(numbers).detach(),
            "pseudo": pseudo,
            "margin": smallest_gap(mixed),
            "lr": torch.tensor(rate, dtype=torch.float64),
            "checksum": self.checksum(),
        }

    @staticmethod
    def step(optimizer, loss):
        """The rate that the step used."""
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return optimizer.param_groups[0]["lr"]

    def checksum(self):
        """Sums over the parameters of the three parts, over their running statistics, and over the
        discriminator's parameters."""
        parts = self.net.encoder, self.net.seg_decoder, self.net.mae_decoder
        groups = [list(part.parameters()) for part in parts]
        groups += [[b for b in part.buffers() if b.is_floating_point()] for part in parts]
        groups.append(list(self.judge.parameters()))
        return torch.stack([common.sums(group).sum(0) for group in groups])

    def gradient_sums(self):
        """Of the network and of the discriminator, each as its last step used it."""
        nets = self.net, self.judge
        return [common.sums([parameter.grad for parameter in net.parameters()]) for net in nets]


def prepared(batch):
    """Image, scribble, permutation and real shapes of one iteration as the trainer takes them."""
    names = ("image", "label", "perm", "real")
    image, label, order, real = (batch[f"iter.in.{name}"] for name in names)
    return image.double(), label, order, real.double().unsqueeze(1)


def iterations(inputs):
    given = {key: tensor for key, tensor in inputs.items() if key.startswith("iter.in.")}
    trainer, steps, outputs = Trainer(), [], {}
    for number in range(len(given["iter.in.perm"])):
        batch = {key: batches[number] for key, batches in given.items()}
        steps.append(trainer.iterate(*prepared(batch)))
        if number == 0:
            outputs["iter.grad_stats_g"], outputs["iter.grad_stats_d"] = trainer.gradient_sums()
    outputs |= {f"iter.out.{end}": torch.stack([s[end] for s in steps]) for end in steps[0]}
    outputs["iter.out.state_stats_g"] = common.sums(floating_tensors(trainer.net))
    outputs["iter.out.state_stats_d"] = common.sums(floating_tensors(trainer.judge))
    trainer.net.eval()
    outputs["iter.out.eval_logits"] = trainer.net(given["iter.in.image"][0, :1].double())[0]
    return outputs


def compute(inputs):
    outputs = {}
    for part in (masks_of_images, masks_of_features, losses, discriminators, network, iterations):
        outputs |= part(inputs)
    return outputs


def draw(given, random):
    """Other inputs of the same kinds and shapes."""
    shapes = {key: tuple(tensor.shape) for key, tensor in given.items()}
    batches = draw_batches({key: shapes[key] for key in shapes if key.startswith("iter.")}, random)
    rest = sorted(shapes.keys() - batches.keys())
    return batches | {key: MAKERS[key](shapes[key], random) for key in rest}


def draw_batches(shapes, random):
    """The batches of the iterations, each drawn until its mixed predictions are clear of ties."""
    trainer, batches = Trainer(), []
    while len(batches) < shapes["iter.in.perm"][0]:
        batch = {key: MAKERS[key](shape[1:], random) for key, shape in sorted(shapes.items())}
        attempt = copy.deepcopy(trainer)
        if attempt.iterate(*prepared(batch))["margin"] > CLEAR_OF_TIES:
            trainer = attempt
            batches.append(batch)
    return {key: torch.stack([batch[key] for batch in batches]) for key in shapes}


def draw_smooth_images(shape, random):
    return common.draw_images(shape, random, width=2.0)


def draw_logits(shape, random):
    return common.draw_normal(shape, random, deviation=2.0)


def draw_mask_pixels(shape, random):
    return torch.from_numpy(random.integers(0, 2, shape)).to(torch.uint8)


MAKERS = {
    "maskgen.in.perm": common.draw_permutations,
    "maskgen.in.x": draw_smooth_images,
    "featmask.in.perm": common.draw_permutations,
    "loss.in.logits1": draw_logits,
    "loss.in.logits2": draw_logits,
    "loss.in.restore": common.draw_normal,
    "loss.in.mask1": draw_mask_pixels,
    "loss.in.image": draw_smooth_images,
    "loss.in.label": common.draw_scribbles,
    "dis.in.x": common.draw_label_maps,
    "net.in.x": draw_smooth_images,
    "iter.in.image": draw_smooth_images,
    "iter.in.label": common.draw_scribbles,
    "iter.in.perm": common.draw_permutations,
    "iter.in.real": common.draw_label_maps,
}


def clear_of_ties(outputs):
    return smallest_gap(outputs["mix.out.prob"]) > CLEAR_OF_TIES


if __name__ == "__main__":
    common.main("maskmixadv", compute, draw, TOLERANCES, clear_of_ties)
