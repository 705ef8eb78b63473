"""Remakes the golden file of the dense CRF: unary costs and marginals after some iterations.

    python dense_crf.py --like DIR                    # compares with DIR/dense-crf.safetensors
    python dense_crf.py --like DIR --to DIR2 --seed 7 # writes that file from other inputs

The reference is a package, so the marginals are calls of it: pydensecrf2, of whose lattice the
method card `cltn.md` tells. Needs torch, numpy, scipy and safetensors besides.
"""

import numpy
import torch
from common import main, smooth_noise
from pydensecrf.densecrf import DenseCRF2D

# By group of scores: the scene with its image and parameters, and the iterations with marginals.
GROUPS = {
    "gaze": ("gaze", (1, 10)),
    "cltn.alpha1": ("cltn", (1, 10)),
    "cltn.alpha4": ("cltn", (1, 10)),
    "multi": ("multi", (1, 5)),
    "odd": ("odd", (3,)),
    "gauss": ("gauss", (1, 5)),
}
# The scene whose parameters no card fixes; each is drawn within a fifth of what is stored.
FREE_SCENE = "multi"


def is_input(key):
    """Unary costs stand among the inputs and follow from the scores."""
    return ".in." in key and not key.endswith("unary")


def unary_costs(scores):
    return -scores.clip(1e-5, 1).flatten(1).log()


def marginals_of(image, parameters, unary, iterations):
    (rows, columns, _), labels = image.shape, len(unary)
    field = DenseCRF2D(columns, rows, labels)
    field.setUnaryEnergy(numpy.ascontiguousarray(unary))
    width, strength, x, y, red, green, blue, compatibility = parameters.tolist()
    if width > 0:
        field.addPairwiseGaussian(sxy=width, compat=strength)
    if x > 0:
        levels = (red, green, blue)
        field.addPairwiseBilateral(
            sxy=(x, y), srgb=levels, rgbim=numpy.ascontiguousarray(image), compat=compatibility
        )
    found = numpy.array(field.inference(iterations)).reshape(labels, rows, columns)
    # The package keeps the labels of a pixel together.
    return torch.from_numpy(numpy.ascontiguousarray(found))


def compute(inputs):
    outputs = {}
    for group, (scene, counts) in GROUPS.items():
        image, parameters = (inputs[f"{scene}.in.{name}"].numpy() for name in ("image", "params"))
        unary = unary_costs(inputs[f"{group}.in.prob"])
        outputs[f"{group}.in.unary"] = unary
        for count in counts:
            found = marginals_of(image, parameters, unary.numpy(), count)
            outputs[f"{group}.out.q{count}"] = found
    return outputs


def levels_of(reals):
    return torch.from_numpy((255 * reals).round().clip(0, 255).astype(numpy.uint8))


def disc_in(shape, random):
    """A disc somewhere in the middle, as 0 and 1."""
    rows, columns = numpy.indices(shape)
    row, column = random.uniform(0.4, 0.6, 2) * shape
    radius = random.uniform(0.2, 0.33) * min(shape)
    return (numpy.hypot(rows - row, columns - column) < radius).astype(float)


def smooth_unit(shape, random, width=3.0):
    """Smooth noise of mean 0 and deviation 1."""
    noise = smooth_noise(shape, width, random)
    return noise / noise.std()


def draw_image(disc, random):
    """A coloured lesion on skin of changing colours."""
    colours = 0.4 + 0.12 * smooth_unit((3, *disc.shape), random)
    lesion = random.uniform(-0.3, 0.3, (3, 1, 1)) * disc
    return levels_of(colours + lesion).permute(1, 2, 0)


def draw_lesion(disc, random):
    """A lesion map as a network says it, in grey levels."""
    said = 0.35 + 0.25 * disc + 0.25 * smooth_unit(disc.shape, random)
    return levels_of(said.clip(0, 1)).double() / 255


def draw_scores(shape, random):
    """Softmax scores of many labels."""
    logits = 1.5 * smooth_unit(shape, random) + random.normal(0, 0.5, shape)
    return torch.from_numpy(logits).softmax(0)


def draw(stored, random):
    drawn = {key: tensor.clone() for key, tensor in stored.items()}
    for scene in ("gaze", "cltn", "multi", "odd", "gauss"):
        image = stored[f"{scene}.in.image"]
        disc = disc_in(tuple(image.shape[:2]), random)
        drawn[f"{scene}.in.image"] = draw_image(disc, random)
        if scene == "cltn":
            lesion = draw_lesion(disc, random)
            lesion = lesion / (lesion.max() + 1e-5)
            for alpha in (1, 4):
                scores = torch.stack([(1 - lesion) ** alpha, lesion])
                drawn[f"cltn.alpha{alpha}.in.prob"] = scores.float()
        elif scene in ("gaze", "odd"):
            lesion = draw_lesion(disc, random)
            drawn[f"{scene}.in.prob"] = torch.stack([1 - lesion, lesion]).float()
        else:
            shape = tuple(stored[f"{scene}.in.prob"].shape)
            drawn[f"{scene}.in.prob"] = draw_scores(shape, random).float()
    parameters = stored[f"{FREE_SCENE}.in.params"]
    factors = torch.from_numpy(random.uniform(0.8, 1.2, tuple(parameters.shape)))
    drawn[f"{FREE_SCENE}.in.params"] = (parameters * factors).float()
    return drawn


if __name__ == "__main__":
    main("dense-crf", compute, draw, {"": 1e-6}, is_input=is_input)
