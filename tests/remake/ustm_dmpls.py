"""The parts of pseudo-labels.safetensors that belong to USTM and DMPLS.

Not to be run; `pseudo_labels.py` imports it. Each `compute_` function returns outputs by key, and by
how much the decision that is nearest to a tie hangs.
"""

import math
import sys

import torch

import common
from baselines import (
    dice_per_class,
    draw_batch,
    draw_logits,
    gap,
    optimiser_of,
    parameter_sums,
    partial_cross_entropy,
    ramp_up,
    scribbled,
    sharpen,
    statistics_sums,
    step_network,
    update,
)
from common import BENCH_NETWORKS

sys.path.insert(0, str(BENCH_NETWORKS))
from unet import CHANNELS, UNet_CCT  # noqa: E402

TOTAL_STEPS = 60_000


# USTM


def threshold(iteration):
    return (0.75 + 0.25 * ramp_up(iteration, TOTAL_STEPS)) * math.log(2)


def consistency_weight(iteration):
    return ramp_up(iteration // 1000, 60)


def kept(iteration):
    return min(1 - 1 / (iteration + 1), 0.99)


def uncertainty(mean):
    return -(mean * (mean + 1e-6).log()).sum(1, keepdim=True)


def masked_consistency(student, teacher, mask):
    squares = (student.softmax(1) - teacher.softmax(1)).square()
    return (mask * squares).sum() / (2 * mask.sum() + 1e-16)


def turned(maps, turns):
    return torch.rot90(maps, turns, [2, 3])


def compute_consistency(inputs):
    student, teacher, passes = (
        inputs[f"ustm.in.{name}_logits"].double() for name in ("student", "teacher", "mc")
    )
    student.requires_grad_()
    iteration = inputs["ustm.in.iter"][0].item()
    mean = passes.softmax(1).unflatten(0, (-1, len(student))).mean(0)
    unsure = uncertainty(mean)
    mask = (unsure < threshold(iteration)).double()
    loss = masked_consistency(turned(student, inputs["ustm.in.rot"].item()), teacher, mask)
    weight = consistency_weight(iteration)
    scalars = [threshold(iteration), weight, mask.mean().item(), loss.item()]
    rules = (threshold, consistency_weight, kept)
    schedule = [[rule(t) for rule in rules] for t in inputs["ustm.in.sched_iter"].tolist()]
    outputs = {
        "ustm.out.mean_prob": mean,
        "ustm.out.uncertainty": unsure,
        "ustm.out.mask": mask,
        "ustm.out.scalars": torch.tensor(scalars, dtype=torch.float64),
        "ustm.out.sched": torch.tensor(schedule, dtype=torch.float64),
        "ustm.grad.student_logits": torch.autograd.grad(weight * loss, student)[0],
    }
    return outputs, (unsure - threshold(iteration)).abs().min().item()


def ustm_networks():
    """Student and teacher; the latter is filled with the sine moved on by 0.5."""
    student, teacher = step_network(), step_network()
    for number, (name, entry) in enumerate(common.floating_state(teacher)):
        entry.copy_(common.filled(name, entry.shape, number + 0.5 / 1.3))
    for net in (student, teacher):
        sharpen(net.decoder.out_conv.weight)
    return student, teacher


def noisy(images, noise):
    return images + (0.1 * noise.double()).clamp(-0.2, 0.2)


def teach(teacher, images, noise, passes_noise):
    """The teacher's logits, and its uncertainty over passes of the batch repeated twice."""
    with torch.no_grad():
        logits = teacher(noisy(images, noise))
        doubled = images.repeat(2, 1, 1, 1)
        passes = torch.cat([teacher(noisy(doubled, each)).softmax(1) for each in passes_noise])
    return logits, uncertainty(passes.unflatten(0, (-1, len(images))).mean(0))


def follow(teacher, student, share):
    """Moves the parameters of the teacher; its running statistics are its own."""
    with torch.no_grad():
        for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
            own.mul_(share).add_((1 - share) * other)


def compute_ustm(inputs):
    image, scribble = inputs["ustm_step.in.image"].double(), inputs["ustm_step.in.scribble"]
    student, teacher = ustm_networks()
    outputs = {"ustm_step.init.params": parameter_sums(student, teacher)}
    optimiser = optimiser_of(student)
    losses, checksums, margins = [], [], []
    for index, iteration in enumerate(inputs["ustm_step.in.iter"].tolist()):
        turns = inputs["ustm_step.in.rot"][index].item()
        noises = (inputs[f"ustm_step.in.{name}"][index] for name in ("noise", "mc_noise"))
        logits = student(image)
        goal, unsure = teach(teacher, turned(image, turns), *noises)
        mask = (unsure < threshold(iteration)).double()
        ce = partial_cross_entropy(logits, scribble)
        consistency = masked_consistency(turned(logits, turns), goal, mask)
        weight = torch.tensor(consistency_weight(iteration), dtype=torch.float64)
        total = ce + weight * consistency
        update(optimiser, total)
        follow(teacher, student, kept(iteration))
        losses.append(torch.stack([ce, consistency, weight, mask.mean(), total]))
        statistics = torch.stack([statistics_sums(net) for net in (student, teacher)])
        checksums.append(torch.cat([parameter_sums(student, teacher), statistics]))
        margins.append((unsure - threshold(iteration)).abs().min().item())
    outputs["ustm_step.out.losses"] = torch.stack(losses)
    outputs["ustm_step.out.checksums"] = torch.stack(checksums)
    return outputs, min(margins)


def draw_consistency(stored, random):
    shape = stored["ustm.in.student_logits"].shape
    passes = len(stored["ustm.in.mc_logits"]) // shape[0]
    common_part = draw_logits(shape, random).repeat(passes, 1, 1, 1)
    between = sorted(random.integers(1, TOTAL_STEPS - 1, 2).tolist())
    return {
        "ustm.in.student_logits": draw_logits(shape, random),
        "ustm.in.teacher_logits": draw_logits(shape, random),
        "ustm.in.mc_logits": common_part + common.draw_normal(common_part.shape, random, 0.6),
        "ustm.in.iter": torch.tensor([int(random.integers(10_000, TOTAL_STEPS)), TOTAL_STEPS]),
        "ustm.in.rot": torch.from_numpy(random.integers(0, 4, 1)),
        "ustm.in.sched_iter": torch.tensor([0, *between, TOTAL_STEPS - 1, TOTAL_STEPS]),
    }


def draw_ustm(stored, random):
    """The first iteration is an early one, where the teacher keeps less than usual."""
    normal = [f"ustm_step.in.{name}" for name in ("noise", "mc_noise")]
    noise = {key: common.draw_normal(stored[key].shape, random) for key in normal}
    return draw_batch("ustm_step", stored, random) | noise | {
        "ustm_step.in.iter": torch.from_numpy(random.integers([0, 10_000], [6, TOTAL_STEPS])),
        "ustm_step.in.rot": torch.from_numpy(random.integers(0, 4, 2)),
    }


# DMPLS


def branch_losses(branches, scribble, share):
    """Losses (scribble, pseudo label, total), the pseudo label, and its smallest margin."""
    probabilities = [logits.softmax(1) for logits in branches]
    mixed = (share * probabilities[0] + (1 - share) * probabilities[1]).detach()
    pseudo = mixed.argmax(1)
    ce = sum(partial_cross_entropy(logits, scribble) for logits in branches) / 2
    # All pixels are labelled, so that the released masking counts each as often as there are samples.
    everywhere = torch.full(pseudo.shape, float(len(pseudo)), dtype=torch.float64)
    dice = sum(dice_per_class(p, pseudo, everywhere).mean() for p in probabilities) / 2
    return torch.stack([ce, dice, ce + 0.5 * dice]), pseudo, gap(mixed, 1)


def compute_branches(inputs):
    branches = [inputs[f"dmpls.in.logits_{name}"].double().requires_grad_() for name in ("main", "aux")]
    share = inputs["dmpls.in.alpha"].item()
    losses, pseudo, margin = branch_losses(branches, inputs["dmpls.in.scribble"], share)
    main, aux = torch.autograd.grad(losses[2], branches)
    outputs = {
        "dmpls.out.losses": losses.detach(),
        "dmpls.out.pseudo": pseudo,
        "dmpls.grad.logits_main": main,
        "dmpls.grad.logits_aux": aux,
    }
    return outputs, margin


def dmpls_network():
    net = common.fill(UNet_CCT(dropout=(0.0,) * 5)).train()
    for decoder in (net.main_decoder, net.aux_decoder1):
        sharpen(decoder.out_conv.weight)
    return net


def both_branches(net, image, keep):
    """Main logits, and auxiliary ones from the channels kept [samples, channels of all levels]."""
    features = net.encoder(image)
    masks = (2 * keep.double()).split(CHANNELS, 1)
    perturbed = [mask[..., None, None] * f for mask, f in zip(masks, features, strict=True)]
    return [net.main_decoder(features), net.aux_decoder1(perturbed)]


def compute_dmpls(inputs):
    image, scribble = inputs["dmpls_step.in.image"].double(), inputs["dmpls_step.in.scribble"]
    net = dmpls_network()
    parts = (net.encoder, net.main_decoder, net.aux_decoder1)
    outputs = {"dmpls_step.init.params": parameter_sums(*parts)}
    optimiser = optimiser_of(net)
    losses, checksums, margins = [], [], []
    for index, share in enumerate(inputs["dmpls_step.in.alpha"].tolist()):
        branches = both_branches(net, image, inputs["dmpls_step.in.keep"][index])
        found, pseudo, margin = branch_losses(branches, scribble, share)
        update(optimiser, found[2])
        outputs[f"dmpls_step.out.pseudo_{index}"] = pseudo
        losses.append(found)
        checksums.append(torch.cat([parameter_sums(*parts), statistics_sums(net)[None]]))
        margins.append(margin)
    outputs["dmpls_step.out.losses"] = torch.stack(losses)
    outputs["dmpls_step.out.checksums"] = torch.stack(checksums)
    return outputs, min(margins)


def draw_branches(stored, random):
    shape = stored["dmpls.in.logits_main"].shape
    labels = common.draw_label_maps(stored["dmpls.in.scribble"].shape, random)
    return {
        "dmpls.in.alpha": torch.from_numpy(random.random(1)),
        "dmpls.in.logits_main": draw_logits(shape, random),
        "dmpls.in.logits_aux": draw_logits(shape, random),
        "dmpls.in.scribble": scribbled(labels, random),
    }


def draw_dmpls(stored, random):
    keep = random.random(stored["dmpls_step.in.keep"].shape) < 0.5
    return draw_batch("dmpls_step", stored, random) | {
        "dmpls_step.in.alpha": torch.from_numpy(random.random(2)),
        "dmpls_step.in.keep": torch.from_numpy(keep).to(torch.uint8),
    }


PARTS = (
    (compute_consistency, draw_consistency),
    (compute_ustm, draw_ustm),
    (compute_branches, draw_branches),
    (compute_dmpls, draw_dmpls),
)
