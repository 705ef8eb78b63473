"""What the golden file of GazeSup says of fixations and pictures: groups `heat` and `pre`.

Not to be run; `gazesup.py` imports it. Sections 2 and 6 of the method card `gazesup.md` by numpy and scipy, pictures
resized by torch.
"""

import numpy
import torch
from common import draw_images, smooth_noise
from scipy import ndimage
from torch.nn import functional

MAPS = ("heat.0", "heat.1", "heat.2")
# Maps whose steps are in the file too.
STEPS = "heat.2"
LEVELS = (0.5, 0.3, 0.2, 0.4)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (24, 24)
# A last bit of single precision can move the last bit of half precision.
TOLERANCES = {f"{name}.out.f16": 1e-3 for name in MAPS} | {"heat.2.mid.norm": 1e-6}


def maps(points, parameters):
    """The canvas, its smoothed and scaled forms, and the map in half precision."""
    rows, columns, *canvas, deviation = parameters.tolist()
    canvas = numpy.zeros([int(extent) for extent in canvas], dtype=numpy.float32)
    for x, y, duration in points.double().tolist():
        row, column = (round(share * extent) - 1 for share, extent in zip((y, x), canvas.shape))
        canvas[row, column] += duration
    blurred = ndimage.gaussian_filter(canvas, deviation)
    scaled = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    scaled_to = functional.interpolate(
        torch.from_numpy(scaled)[None, None],
        size=(int(rows), int(columns)),
        mode="bicubic",
        align_corners=False,
    )
    return canvas, blurred, scaled, scaled_to[0, 0].numpy().astype(numpy.float16)


def resized(image):
    """[C, H, W] in single precision, by straight lines."""
    return functional.interpolate(image[None], size=SIZE, mode="bilinear", align_corners=False)[0]


def compute(inputs):
    outputs = {}
    for name in MAPS:
        *steps, heat = maps(inputs[f"{name}.in.points"], inputs[f"{name}.in.params"])
        outputs[f"{name}.out.f16"] = torch.from_numpy(heat)
        outputs[f"{name}.out.u8"] = torch.from_numpy((heat * 255).astype(numpy.uint8))
        if name == STEPS:
            for step, values in zip(("points", "blur", "norm"), steps):
                outputs[f"{name}.mid.{step}"] = torch.from_numpy(values)
    shares = resized(inputs["pre.in.crf_u8"][None].float() / 255)[0]
    outputs["pre.out.crf_resized"] = shares
    for level in LEVELS:
        outputs[f"pre.out.label_{round(100 * level)}"] = (shares >= level).to(torch.uint8)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    outputs["pre.out.image"] = (resized(inputs["pre.in.image_u8"].float()) / 255 - mean) / deviation
    slice_ = inputs["pre.in.prostate"]
    slice_ = (slice_ - slice_.mean()) / slice_.std(unbiased=False)
    outputs["pre.out.prostate"] = resized(slice_[None])[0]
    label = inputs["pre.in.label_u8"][None, None].float()
    outputs["pre.out.label_nearest"] = functional.interpolate(label, size=SIZE)[0, 0].to(torch.uint8)
    return outputs


def draw(given, random):
    drawn = {key: tensor for key, tensor in given.items() if key.endswith("params")}
    for name in MAPS:
        points = random.random(given[f"{name}.in.points"].shape)
        points[:, 2] = (50 + 3520 * points[:, 2] ** 4).round()
        if name == STEPS:
            points[0, 0] = 0.3 / 64
        drawn[f"{name}.in.points"] = torch.from_numpy(points).float()
    shape = tuple(given["pre.in.crf_u8"].shape)
    # A plateau lies on a level that whole numbers can reach.
    crf = (255 * draw_images(shape, random, 4.0)).round()
    crf[:12, :12] = 51
    drawn["pre.in.crf_u8"] = crf.to(torch.uint8)
    image = draw_images(tuple(given["pre.in.image_u8"].shape), random)
    drawn["pre.in.image_u8"] = (255 * image).round().to(torch.uint8)
    drawn["pre.in.prostate"] = 300 + 120 * torch.from_numpy(smooth_noise(shape, 1.0, random)).float()
    drawn["pre.in.label_u8"] = torch.from_numpy(random.integers(0, 2, shape)).to(torch.uint8)
    return drawn
