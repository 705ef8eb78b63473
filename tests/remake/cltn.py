"""Remakes the golden file of CLTN (label transfer for lesions): layers, networks, losses, two whole
training iterations, and the steps from a mask to its labels.

    python cltn.py --like DIR                    # compares with DIR/cltn.safetensors
    python cltn.py --like DIR --to DIR2 --seed 7 # writes DIR2/cltn.safetensors from other inputs

Written from the method card `cltn.md`; networks, losses and steps run in double precision. What the
released code leaves to a library is left to the same one: Pillow resizes and changes the contrast,
OpenCV finds the watershed, torch keeps the spectral norms. Needs torch, numpy, scipy, pillow and
opencv-python besides safetensors.
"""

from types import SimpleNamespace

import cltn_nets as nets
import cv2
import numpy
import torch
from common import draw_normal, fill, main, smooth_noise
from PIL import Image, ImageEnhance
from torch import nn
from torch.nn import functional as F

TOLERANCES = {
    "lsgan": 1e-6,
    "l1": 1e-6,
    "cam_bce": 1e-6,
    "five": 1e-6,
    "gen": 1e-4,
    "dis": 1e-4,
    # Matrices of rank two make it all but cancel: what is stored is rounding in single precision.
    "dis_global.grad": 0.2,
    "iter.1": 5e-6,
    "iter.2": 1e-4,
    "iter.2.param": 5e-6,
    # Sums that cancel, in single precision.
    "iter.1.grad": 3e-3,
    "iter.2.grad": 3e-3,
}


# Layers and losses: from leaves by name to outputs by name and the loss.


def instance_layer_norm(leaf):
    y = leaf.gamma * nets.layer_instance_norm(leaf.x, leaf.rho) + leaf.beta
    return {"y": y}, (y * leaf.w).sum()


def adaptive_norm(leaf):
    gamma, beta = nets.as_channels(leaf.gamma), nets.as_channels(leaf.beta)
    y = gamma * nets.layer_instance_norm(leaf.x, leaf.rho) + beta
    return {"y": y}, (y * leaf.w).sum()


def class_activation(leaf):
    average, largest = nets.pooled(leaf.x)
    logits = torch.cat([F.linear(average, leaf.gap_w), F.linear(largest, leaf.gmp_w)], 1)
    weighted = nets.class_features(leaf.x, leaf.gap_w, leaf.gmp_w)
    features = F.conv2d(weighted, leaf.conv_w, leaf.conv_b).relu()
    heat = features.sum(1, keepdim=True)
    outputs = {"cam_logit": logits, "feat": features, "heatmap": heat}
    return outputs, (features * leaf.w).sum() + nets.doubt(logits, 1.0)


def masking(leaf):
    mask = F.conv2d(F.pad(leaf.feat, (1, 1, 1, 1), "reflect"), leaf.conv_w).sigmoid()
    blended = nets.blend(mask, leaf.dec, leaf.rec)
    large = nets.double_size(nets.double_size(mask)).expand(-1, 3, -1, -1)
    composed = nets.blend(large, leaf.image_out1, leaf.input)
    outputs = {"att": mask, "blend": blended, "mask": large, "image_out2": composed}
    return outputs, composed.square().mean() + blended.square().mean()


def discriminator_loss(leaf):
    return {}, nets.squares_from(leaf.real, 1) + nets.squares_from(leaf.fake, 0)


def generator_loss(leaf):
    return {}, nets.squares_from(leaf.fake, 1)


def absolute_distance(leaf):
    return {}, nets.distance(leaf.pred, leaf.target)


def class_loss(leaf):
    return {}, nets.doubt(leaf.logit_one, 1.0) + nets.doubt(leaf.logit_zero, 0.0)


LAYERS = {
    "iln": (instance_layer_norm, "x rho gamma beta"),
    "adailn": (adaptive_norm, "x rho gamma beta"),
    "cam": (class_activation, "x gap_w gmp_w conv_w conv_b"),
    "mask": (masking, "feat conv_w image_out1"),
    "lsgan_d": (discriminator_loss, "real fake"),
    "lsgan_g": (generator_loss, "fake"),
    "l1": (absolute_distance, "pred"),
    "cam_bce": (class_loss, "logit_one logit_zero"),
}


def leaves(inputs, group):
    """The inputs of a group by name, in double precision."""
    start = f"{group}.in."
    own = {key.removeprefix(start): t for key, t in inputs.items() if key.startswith(start)}
    return SimpleNamespace(**{name: t.double().requires_grad_() for name, t in own.items()})


def layer_outputs(inputs, group, function, differentiated):
    leaf = leaves(inputs, group)
    outputs, loss = function(leaf)
    loss.backward()
    found = {f"{group}.out.{name}": value for name, value in {**outputs, "loss": loss}.items()}
    gradients = {f"{group}.grad.{name}": getattr(leaf, name).grad for name in differentiated}
    return found | gradients


def spectral_outputs(inputs):
    """Two forwards of a convolution in training and one in evaluation."""
    leaf = leaves(inputs, "sn")
    layer = nets.spectral(nn.Conv2d(3, 5, 4, stride=2)).double()
    state = {"weight_orig": leaf.weight_orig, "bias": leaf.bias}
    state |= {"weight_u": leaf.u, "weight_v": leaf.v}
    layer.load_state_dict({name: tensor.detach() for name, tensor in state.items()})
    first = layer(leaf.x)
    u, v = layer.weight_u.clone(), layer.weight_v.clone()
    (first * leaf.w).sum().backward()
    outputs = {"y1": first, "u1": u, "v1": v, "sigma1": u @ layer.weight_orig.flatten(1) @ v}
    outputs |= {"y2": layer(leaf.x), "u2": layer.weight_u.clone(), "v2": layer.weight_v.clone()}
    outputs["y_eval"] = layer.eval()(leaf.x)
    found = {f"sn.out.{name}": value for name, value in outputs.items()}
    return found | {"sn.grad.weight_orig": layer.weight_orig.grad}


# Networks.

GENERATORS = {
    "gen_light": (lambda: nets.Generator(8), fill),
    "gen_full": (lambda: nets.Generator(4, full_size=32), fill),
    "gen_b": (lambda: nets.Generator(8), nets.fill_by_rule_b),
}
TRANSLATION_KEYS = ("image_out1", "cam_logit", "heatmap", "mask", "image_out2", "input_r")
SHOWN_GRADIENTS = (
    "gap_fc.weight",
    "gmp_fc.weight",
    "conv2x1.1.weight",
    "UpBlock1_1.norm1.rho",
    "recon_middle_2.norm2.gamma",
    "Split_layer.1.rho",
    "gamma1.weight",
    "FC.2.weight",
)
DISCRIMINATORS = {
    "dis_local": (lambda: nets.Discriminator(5, 8), fill),
    "dis_global": (lambda: nets.Discriminator(7, 4), fill),
    "dis_local_b": (lambda: nets.Discriminator(5, 8), nets.fill_by_rule_b),
    "dis_global_b": (lambda: nets.Discriminator(7, 4), nets.fill_by_rule_b),
}


def generator_outputs(inputs, name):
    build, rule = GENERATORS[name]
    net, x = rule(build()), leaves(inputs, name).x
    made = net(x)
    squares = (made.painted, made.scores, made.composed, made.restored, made.heat)
    loss = sum(value.square().mean() for value in squares) + made.mask.mean()
    loss.backward()
    outputs = {f"out.{key}": value for key, value in zip(TRANSLATION_KEYS, made, strict=True)}
    outputs |= {"out.loss": loss, "grad.x": x.grad, "grad_sum": nets.gradient_checksum(net)}
    outputs |= {f"grad.{shown}": net.get_parameter(shown).grad for shown in SHOWN_GRADIENTS}
    return {f"{name}.{key}": value for key, value in outputs.items()}


def discriminator_outputs(inputs, name):
    build, rule = DISCRIMINATORS[name]
    net, x = rule(build()), leaves(inputs, name.removesuffix("_b")).x
    outputs = {}
    for stage in ("train", "eval"):
        said = net.train(stage == "train")(x)
        keys = ("logit", "cam_logit", "heatmap")
        outputs |= {f"{stage}.{key}": value for key, value in zip(keys, said, strict=True)}
        if stage == "train":
            loss = nets.squares_from(said.patches, 1) + nets.squares_from(said.scores, 1)
            loss.backward()
            outputs |= {
                "train.loss": loss,
                "grad.x": x.grad,
                "grad_sum": nets.gradient_checksum(net),
                "buf_sum": nets.checksum(nets.entries(net, *nets.BUFFERS)),
            }
    return {f"{name}.{key}": value for key, value in outputs.items()}


# Training.


def iteration_outputs(inputs):
    training = nets.Training()
    outputs = {}
    for iteration in (1, 2):
        images = {letter: inputs[f"iter.in.real_{letter}"].double() for letter in "AB"}
        if iteration == 2:
            images = {letter: image.flip(-1) for letter, image in images.items()}
        report = training.iterate(images)
        outputs |= {f"iter.{iteration}.{key}": value for key, value in report.items()}
    return {key: value.detach() for key, value in outputs.items()}


# From masks to labels.

CROP_MARGIN = 6


def scores_of(prediction, target):
    """Jaccard, accuracy, Dice, sensitivity and specificity of two maps in [0, 1]."""
    found, wanted = prediction > 0.5, target > 0.5
    hit, missed = (found & wanted).sum().item(), (~found & wanted).sum().item()
    false, right = (found & ~wanted).sum().item(), (~found & ~wanted).sum().item()
    shares = (
        (hit, hit + missed + false),
        (hit + right, found.numel()),
        (2 * hit, 2 * hit + missed + false),
        (hit, hit + missed),
        (right, right + false),
    )
    return torch.tensor([part / (whole + 1e-7) for part, whole in shares], dtype=torch.float64)


def levels_of(reals):
    """Reals in [0, 1] as the nearest grey levels."""
    return (255 * reals + 0.5).clamp(0, 255).to(torch.uint8)


def reversed_mask(real, mask):
    """The mask without black pixels, its reverse as a picture, and that picture read in grey."""
    masked = torch.where(real > -1, mask, 0.0)
    picture = levels_of(1 - masked[0]).permute(1, 2, 0)
    # Reading a stored picture in grey cuts off where turning one grey in memory rounds.
    _, stored = cv2.imencode(".png", picture.flip(-1).contiguous().numpy())
    return masked, picture, torch.from_numpy(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE))


def corner_rows(size=256):
    """How many pixels of each row the corner cut takes."""
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((i + j <= 80) | (i - j >= 176) | (j - i >= 176) | (i + j >= 432)).sum(1)


def stretched(probabilities):
    """Levels before they are cut to integers: smallest to largest over the whole range."""
    values = 255 * probabilities.double()
    return 255 * (values - values.min()) / (values.max() - values.min()) + 0.499999999


def watershed(grey):
    """The label that the watershed finds in a reversed mask."""
    _, lesion = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    opened = cv2.morphologyEx(lesion, cv2.MORPH_OPEN, numpy.ones((3, 3)), iterations=2)
    wide = cv2.dilate(opened, numpy.ones((7, 7)), iterations=3)
    depth = cv2.distanceTransform(wide, cv2.DIST_L1, 5)
    sure = numpy.uint8(255 * (depth > 0.7 * depth.max()))
    _, markers = cv2.connectedComponents(sure, connectivity=8)
    markers += 1
    markers[(wide > 0) & (sure == 0)] = 0
    markers = cv2.watershed(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), markers)
    label = grey.copy()
    label[markers <= 1] = 0
    label[(markers >= 2) & (markers <= 4)] = 255
    return label


def augmented(image, parameters):
    """An image flipped and enlarged, then cropped with other contrast, then as networks see it."""
    across, down, top, left, contrast = parameters.tolist()
    picture = Image.fromarray(image.numpy())
    if across > 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if down > 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    size = picture.width
    large = picture.resize((size + CROP_MARGIN,) * 2, Image.Resampling.BILINEAR)
    crop = large.crop((int(left), int(top), int(left) + size, int(top) + size))
    final = torch.from_numpy(numpy.array(ImageEnhance.Contrast(crop).enhance(contrast)))
    return {
        "resized_u8": torch.from_numpy(numpy.array(large)),
        "contrast_u8": final,
        "x": (final.permute(2, 0, 1).double() / 255 - 0.5) / 0.5,
    }


def label_outputs(inputs):
    masked, picture, grey = reversed_mask(inputs["test.in.real"], inputs["test.in.att"])
    cover = 1 - grey.double() / 255
    lesion = cover / (cover.max() + 1e-5)
    outputs = {
        "test.out.masked": masked,
        "test.out.reverse_u8": picture,
        "test.out.reverse_gray_u8": grey,
        "crfin.out.lesion": lesion,
        "crfin.cut_area_rowsum": corner_rows(),
        "stretch.out.u8": stretched(inputs["stretch.in.prob"]).to(torch.uint8),
    }
    outputs |= {f"crfin.out.bg_alpha{alpha}": (1 - lesion) ** alpha for alpha in (1, 4, 8)}
    for key, tensor in inputs.items():
        group = key.split(".in.")[0]
        if group.startswith("water"):
            outputs[f"{group}.out.u8"] = torch.from_numpy(watershed(tensor.numpy()))
        elif key.startswith("five") and key.endswith("pred"):
            outputs[f"{group}.out"] = scores_of(tensor, inputs[f"{group}.in.target"])
        elif key.endswith("params"):
            found = augmented(inputs["aug.in.image_u8"], tensor)
            outputs |= {f"{group}.out.{name}": value for name, value in found.items()}
    return outputs


def compute(inputs):
    outputs = spectral_outputs(inputs) | iteration_outputs(inputs) | label_outputs(inputs)
    for group, (function, differentiated) in LAYERS.items():
        outputs |= layer_outputs(inputs, group, function, differentiated.split())
    for name in GENERATORS:
        outputs |= generator_outputs(inputs, name)
    for name in DISCRIMINATORS:
        outputs |= discriminator_outputs(inputs, name)
    return outputs


# Other inputs.


def uniform(low, high):
    return lambda shape, random: torch.from_numpy(random.uniform(low, high, shape))


def normal(deviation, mean=0.0):
    return lambda shape, random: mean + draw_normal(shape, random, deviation)


def draw_smooth(shape, random):
    """Smooth images in [-1, 1] that reach both ends."""
    noise = smooth_noise(shape, 1.5, random)
    return torch.from_numpy(0.55 * noise / noise.std()).clamp(-1, 1)


def draw_picture(shape, random):
    return levels_of(draw_smooth((shape[-1], *shape[:-1]), random) / 2 + 0.5).permute(1, 2, 0)


def draw_real(shape, random):
    """An image with a black corner and pixels that are black in one channel alone."""
    real = random.uniform(-0.998, 1, shape)
    rows, columns = random.integers(1, 6, 2)
    real[:, :, :rows, :columns] = -1
    real[random.random(shape) < 0.15] = -1
    return torch.from_numpy(real)


def near_levels(shape, random):
    """Reals in [0, 1] off the middle between two grey levels, so that any rounding agrees."""
    levels = random.integers(1, 255, shape) + random.uniform(-0.45, 0.45, shape)
    return torch.from_numpy(levels / 255)


def draw_marginals(shape, random):
    """Marginals with a cut row, where the levels that they are stretched to are clear."""
    marginals = near_levels(shape, random)
    marginals[0], marginals[1, 0] = 0, 1
    return random.uniform(0.6, 0.95) * marginals


def draw_reversed(shape, random):
    """A reversed mask with soft-edged dark blobs in one to four of its quarters."""
    rows, columns = numpy.indices(shape)
    mask, radius = numpy.zeros(shape), random.uniform(4, 12)
    for quarter in random.permutation(4)[: random.integers(1, 5)]:
        row, column = (numpy.array(divmod(quarter, 2)) / 2 + random.uniform(0.2, 0.3, 2)) * shape
        away = numpy.hypot(rows - row, columns - column) / (radius + random.uniform(-0.5, 0.5))
        mask = numpy.maximum(mask, 1 / (1 + numpy.exp(7 * (away - 1))))
    noise = 0.6 * smooth_noise(shape, 3, random)
    return levels_of(torch.from_numpy(1 - (0.95 * mask + noise).clip(0, 1)))


def draw_augmentation(shape, random):
    flips, crop = random.integers(0, 2, 2), random.integers(0, CROP_MARGIN + 1, 2)
    return torch.tensor([*flips, *crop, random.uniform(0.9, 1.1)])


def draw_cases(shape, random):
    """The maps of the cases of `five`, by key."""
    prediction, truth = smooth_noise((2, *shape), 3, random)
    blob = levels_of(torch.from_numpy(30 * prediction).sigmoid()).float() / 255
    target = torch.from_numpy(truth > 0).float()
    voxel = torch.zeros(shape)
    voxel[tuple(random.integers(0, shape))] = 1
    nothing, everything = torch.zeros(shape), torch.ones(shape)
    cases = {
        "blob": (blob, target),
        "empty_pred": (nothing, target),
        "empty_target": (blob, nothing),
        "both_empty": (nothing, nothing),
        "one_voxel": (voxel, target),
        "one_voxel_hit": (voxel, voxel),
        "full": (everything, everything),
        "gray128_127": ((127 + target) / 255, target),
    }
    drawn = {f"five.{case}.in.pred": maps[0] for case, maps in cases.items()}
    return drawn | {f"five.{case}.in.target": maps[1] for case, maps in cases.items()}


DRAWS = {
    "": normal(1.2),
    "iln.in.rho": uniform(0.1, 0.9),
    "iln.in.gamma": normal(0.3, 1.0),
    "adailn.in.rho": uniform(0.1, 0.9),
    "cam.in.gap_w": normal(0.4),
    "cam.in.gmp_w": normal(0.4),
    "cam.in.conv": normal(0.3),
    "mask.in.feat": uniform(0, 2),
    "mask.in.conv_w": normal(0.4),
    "mask.in.i": uniform(-1, 1),
    "sn.in.weight": normal(0.5),
    "cam_bce": normal(2.0),
    "gen": uniform(-1, 1),
    "dis": uniform(-1, 1),
    "iter": draw_smooth,
    "test.in.real": draw_real,
    "test.in.att": lambda shape, random: near_levels(shape[2:], random).expand(shape),
    "stretch": draw_marginals,
    "water": draw_reversed,
    "aug.in": draw_picture,
    "aug": draw_augmentation,
}


def draw(stored, random):
    """Other inputs, each by the law of the longest beginning of its key."""
    drawn = {}
    for key, tensor in stored.items():
        law = DRAWS[max(filter(key.startswith, DRAWS), key=len)]
        drawn[key] = law(tuple(tensor.shape), random).to(tensor.dtype)
    drawn |= draw_cases(tuple(stored["five.blob.in.pred"].shape), random)
    return drawn


if __name__ == "__main__":
    main("cltn", compute, draw, TOLERANCES)
