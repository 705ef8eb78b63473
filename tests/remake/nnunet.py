"""Asks nnU-Net what it says of folders that scrimp writes, and scrimp of folders that nnU-Net accepts.

    python nnunet.py --scrimp target/release/scrimp

Makes raw folders in every format that both read, with one channel and several, with labels that are ignored and
without, in colour, listed in `dataset.json` and with folds. Each has to pass `verify_dataset_integrity` of nnU-Net; then
`scrimp prepare nnunet` packs it, whose voxels, labels, spacing and folds have to be those that were made; then `scrimp
export --to nnunet` makes a folder of the pack, which has to pass, too. Ends with exit code 1 where something is
otherwise. Needs nnunetv2 (2.8), numpy, h5py, SimpleITK, tifffile and scikit-image.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# nnU-Net says much where these are not set.
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, tempfile.gettempdir())

import h5py
import numpy
import SimpleITK
import tifffile
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from skimage import io as pictures

SPACING = (4.0, 0.75, 0.5)
IGNORE = 3
CASES = ("anna_1", "berta_1", "clara_1", "dora_1")


def volume(path, values, kind):
    """Writes slices, rows, columns by SimpleITK, not along the axes of the patient."""
    image = SimpleITK.GetImageFromArray(values.astype(kind))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-20.0, 30.5, 7.0))
    image.SetDirection((0.0, 0.6, 0.8, 1.0, 0.0, 0.0, 0.0, 0.8, -0.6))
    SimpleITK.WriteImage(image, str(path), True)


def stack(path, values, kind):
    tifffile.imwrite(path, values.astype(kind))
    beside = path.name.split(".")[0]
    beside = beside[:-5] if "images" in path.parent.name else beside
    (path.parent / f"{beside}.json").write_text(json.dumps({"spacing": SPACING}))


def picture(path, values, kind):
    """One slice, or colours last."""
    pictures.imsave(path, values[0].astype(kind), check_contrast=False)


# Ending of files, how they are written, shape, type, names of channels, whether labels are ignored.
FORMS = [
    (".nii.gz", volume, (3, 6, 5), numpy.int16, ["MRI"], True),
    (".nii.gz", volume, (3, 6, 5), numpy.float32, ["T1", "noNorm"], True),
    (".nii.gz", volume, (1, 6, 5), numpy.float32, ["MRI"], False),
    (".nrrd", volume, (3, 6, 5), numpy.float32, ["CT"], False),
    (".mha", volume, (3, 6, 5), numpy.int16, ["CT"], True),
    # Three or four pages nnU-Net takes for colours.
    (".tif", stack, (5, 6, 7), numpy.uint16, ["MRI"], True),
    (".tiff", stack, (5, 6, 7), numpy.float32, ["MRI"], False),
    (".png", picture, (1, 6, 5), numpy.uint8, ["grey"], True),
    (".png", picture, (1, 6, 5, 3), numpy.uint8, ["rgb_to_0_1"] * 3, True),
    (".bmp", picture, (1, 6, 5), numpy.uint8, ["grey"], False),
]


def make(folder, form, random):
    """A raw folder; what it holds by case: channels, slices, rows, columns, and labels."""
    ending, write, shape, kind, channels, ignores = form
    has_colours = len(shape) == 4
    last = IGNORE if ignores else IGNORE - 1
    held = {}
    for name in CASES:
        part = "Ts" if name == "dora_1" else "Tr"
        for what in (f"images{part}", f"labels{part}"):
            (folder / what).mkdir(parents=True, exist_ok=True)
        images = []
        for number in range(1 if has_colours else len(channels)):
            values = random.integers(1, 250, shape).astype(kind)
            if numpy.issubdtype(kind, numpy.floating):
                values = values / 8 - 3
            write(folder / f"images{part}" / f"{name}_{number:04}{ending}", values, kind)
            images += list(numpy.moveaxis(values, -1, 0)) if has_colours else [values]
        labels = random.integers(0, last + 1 if part == "Tr" else IGNORE, shape[:3])
        labels.flat[:4] = [0, 1, 2, last if part == "Tr" else 2]
        write(folder / f"labels{part}" / f"{name}{ending}", labels, numpy.uint8)
        held[name] = (numpy.stack(images), labels)
    names = ["background", "liver", "tumour"] + (["ignore"] if ignores else [])
    described = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {name: label for label, name in enumerate(names)},
        "numTraining": len(CASES) - 1,
        "file_ending": ending,
    }
    if ending == ".mha":
        described["overwrite_image_reader_writer"] = "SimpleITKIO"
        described["dataset"] = {
            name: {"images": [f"imagesTr/{name}_0000{ending}"], "label": f"./labelsTr/{name}{ending}"}
            for name in CASES[:-1]
        }
    (folder / "dataset.json").write_text(json.dumps(described))
    splits = [{"train": [other for other in CASES[:3] if other != name], "val": [name]} for name in CASES[:3]]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    return held


def accepted(folder):
    """Whether nnU-Net has nothing to say of a folder, not even a warning of places."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        verify_dataset_integrity(str(folder), 1)
    # Processes say their part elsewhere; what they refuse they raise.
    assert "verify_dataset_integrity Done" in said.getvalue(), said.getvalue()


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def image_of(case):
    values = case["image"][:]
    values = case["image_levels"][:][values] if "image_levels" in case else values
    return values[:, None] if values.ndim == 3 else values


def compare(pack, held, form):
    """Images as they were stored, channels after slices."""
    _, write, _, _, _, ignores = form
    with h5py.File(pack) as file:
        assert [row["name"].decode() for row in file["cases"]] == sorted(held)
        assert [row["fold"] for row in file["cases"]] == [1, 2, 3, 4], file["cases"][:]
        assert file.attrs["test_fold"] == 4
        for row in file["cases"]:
            name = row["name"].decode()
            images, labels = held[name]
            case = file["volumes"][name]
            numpy.testing.assert_array_equal(image_of(case), numpy.moveaxis(images, 0, 1).astype(numpy.float32))
            is_scribbled = ignores and name != "dora_1"
            kind = "scribble" if is_scribbled else "dense"
            kept = numpy.where(labels == IGNORE, 255, labels) if is_scribbled else labels
            assert set(case) - {"image", "image_levels"} == {kind}
            numpy.testing.assert_array_equal(case[kind][:], kept)
            if write is not picture:
                spacing = [row[f"spacing_{axis}_mm"] for axis in ("slices", "rows", "columns")]
                numpy.testing.assert_allclose(spacing, SPACING, rtol=1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scrimp", default="scrimp", help="the program")
    scrimp = parser.parse_args().scrimp
    random = numpy.random.default_rng(7)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for number, form in enumerate(FORMS):
            folder = work / "made" / f"Dataset{number:03}_FORM"
            held = make(folder, form, random)
            accepted(folder)
            stored, usual = work / f"{number}-stored.h5", work / f"{number}.h5"
            run(scrimp, "prepare", "nnunet", "--from", folder, "--intensities", "as-stored", "--to", stored)
            compare(stored, held, form)
            run(scrimp, "prepare", "nnunet", "--from", folder, "--patients", "^([a-z]+)", "--to", usual)
            into = work / "nnUNet_raw" / f"Dataset{number + 100}_BACK"
            run(scrimp, "export", usual, "--to", "nnunet", "--into", into)
            accepted(into)
            print(f"{form[0]} {form[2]} {form[4]}: accepted, imported, exported and accepted again", flush=True)
        for number, words in enumerate((["--size", "48"], ["--size", "48", "--slices", "1"])):
            pack, into = work / f"phantom-{number}.h5", work / "nnUNet_raw" / f"Dataset{number + 200}_PHANTOM"
            run(scrimp, "prepare", "phantom", "--cases", "5", *words, "--to", pack)
            run(scrimp, "export", pack, "--to", "nnunet", "--into", into)
            accepted(into)
            print(f"phantom {' '.join(words)}: exported and accepted", flush=True)


if __name__ == "__main__":
    sys.exit(main())
