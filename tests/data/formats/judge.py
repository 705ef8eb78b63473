"""Reads labels that scrimp wrote with programs of other people.

    SCRIMP_FORMATS_TO=DIR cargo test --test it what_is_written_other_programs_read
    python judge.py DIR

Needs numpy, SimpleITK, slicerio and tifffile.
"""

import json
import pathlib
import sys

import numpy
import SimpleITK
import slicerio
import tifffile

folder = pathlib.Path(sys.argv[1])
labels = (numpy.arange(24) ** 2 // 3 % 3).reshape(2, 3, 4)
# To the left and to the back, as these programs count.
directions = numpy.array([[0, -0.8, -0.6], [-1, 0, 0], [0, -0.6, 0.8]]).T
for name in ("labels.mha", "labels.seg.nrrd"):
    image = SimpleITK.ReadImage(str(folder / name))
    assert (SimpleITK.GetArrayFromImage(image) == labels).all(), name
    assert numpy.allclose(image.GetSpacing(), [0.5, 1.25, 4.5], atol=1e-12), image.GetSpacing()
    assert numpy.allclose(image.GetOrigin(), [-1.5, 2, 30], atol=1e-12), image.GetOrigin()
    assert numpy.allclose(numpy.reshape(image.GetDirection(), (3, 3)), directions, atol=1e-12), name
found = slicerio.read_segmentation(str(folder / "labels.seg.nrrd"))
named = [(one["name"], one["labelValue"]) for one in found["segments"]]
assert named == [("liver", 1), ("tumour", 2)], named
for one in found["segments"]:
    places = numpy.argwhere(found["voxels"] == one["labelValue"])
    ends = numpy.stack([places.min(0), places.max(0)], 1).ravel().tolist()
    assert list(one["extent"]) == ends, (one["extent"], ends)
assert (tifffile.imread(folder / "labels.tif") == labels).all()
assert json.loads((folder / "labels.json").read_text()) == {"spacing": [4.5, 1.25, 0.5]}
print("all as it was written")
