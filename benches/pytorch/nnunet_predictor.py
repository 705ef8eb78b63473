"""Segments a NIfTI volume with the predictor of nnU-Net and the U-Net over volumes, which has learnt nothing.

    python nnunet_predictor.py --images test --to out --classes 117 --window 32 128 128 --overlap 0 --threads 2

`images` is a folder with one volume, or a file. Prints one JSON line: `seconds` in all, those of inference and export,
`peak_bytes` of the process, `program_bytes` before it reads anything, and `arrays_bytes`, what the arrays of all classes
take that nnU-Net holds together by its source. Where these exceed the memory of the machine, they are all that is
printed. nnU-Net 2.8 on the CPU: one process that reads, predicts and writes, by `predict_from_files_sequential`. Needs
torch, nnunetv2 and nibabel.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, ".")

import nibabel
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from unet_3d import UNet3d


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a NIfTI file, or a folder with one")
    parser.add_argument("--to", type=Path, required=True, help="folder for the labels")
    parser.add_argument("--classes", type=int, default=117)
    parser.add_argument("--window", type=int, nargs=3, default=[32, 128, 128], help="slices, rows, columns")
    parser.add_argument("--overlap", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mirrors", action="store_true")
    parser.add_argument("--arrays", action="store_true", help="print what arrays take, and segment nothing")
    return parser.parse_args()


def arrays_bytes(voxels, classes):
    """Sums of logits in half precision; while they are looked through for infinities, their magnitudes and a mask."""
    return voxels * classes * (2 + 2 + 1)


def status_bytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def machine_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def plans(spacing, shape, window):
    """As `nnUNetv2_plan_experiment` writes them, for volumes on their own grid."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    logits = {**resampling, "order": 1}
    configuration = {
        "data_identifier": "volumes",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": window,
        "median_image_size_in_voxels": shape,
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**logits, "is_seg": True},
        "resampling_fn_probabilities_kwargs": logits,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
        "batch_dice": False,
    }
    return PlansManager(
        {
            "dataset_name": "volumes",
            "plans_name": "plans",
            "original_median_spacing_after_transp": spacing,
            "original_median_shape_after_transp": shape,
            "image_reader_writer": "NibabelIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"3d_fullres": configuration},
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": {}},
        }
    )


def predictor(options, spacing, shape):
    labels = {"background": 0, **{f"class{number}": number for number in range(1, options.classes)}}
    dataset = {"channel_names": {"0": "ct"}, "labels": labels, "file_ending": ".nii.gz"}
    plan = plans(spacing, shape, options.window)
    network = UNet3d(1, options.classes)
    made = nnUNetPredictor(
        tile_step_size=1.0 - options.overlap,
        use_mirroring=options.mirrors,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    made.manual_initialization(
        network, plan, plan.get_configuration("3d_fullres"), [network.state_dict()], dataset, "", (0, 1, 2)
    )
    return made


def main():
    options = arguments()
    file = options.images if options.images.is_file() else next(options.images.glob("*.nii*"))
    header = nibabel.load(file).header
    shape = [int(extent) for extent in header.get_data_shape()[::-1]]
    spacing = [float(distance) for distance in header.get_zooms()[::-1]]
    voxels = shape[0] * shape[1] * shape[2]
    known = {"shape": shape, "classes": options.classes, "arrays_bytes": arrays_bytes(voxels, options.classes)}
    if options.arrays or known["arrays_bytes"] > machine_bytes():
        print(json.dumps({**known, "machine_bytes": machine_bytes()}))
        return
    torch.set_num_threads(options.threads)
    options.to.mkdir(exist_ok=True)
    made = predictor(options, spacing, shape)
    infer, ended = made.predict_logits_from_preprocessed_data, {}

    def timed(data):
        begun = time.perf_counter()
        found = infer(data)
        ended["inference"], ended["at"] = time.perf_counter() - begun, time.perf_counter()
        return found

    made.predict_logits_from_preprocessed_data = timed
    program, begun = status_bytes("VmRSS:"), time.perf_counter()
    made.predict_from_files_sequential([[str(file)]], [str(options.to / "labels")], save_probabilities=False)
    done = time.perf_counter()
    times = {
        "seconds": done - begun,
        "inference_seconds": ended["inference"],
        "export_seconds": done - ended["at"],
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**known, **times, "program_bytes": program, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
