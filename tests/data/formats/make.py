"""Makes the files beside it with programs of other people, and writes down what these read in them.

    python make.py

`expected.json` has of each file the shape, the spacing, the places of two voxels, all numbers, and the segments:
as SimpleITK, nibabel, slicerio, tifffile, Pillow, NumPy and pydicom read them, but that what lies nowhere has no places. Slices, rows, columns; places in millimetres from the
left to the right, from back to front, from the feet to the head. Needs numpy, nibabel, SimpleITK, pynrrd, slicerio,
tifffile, Pillow and pydicom. Files are smaller than 4 KiB.
"""

import gzip
import io
import json
import pathlib
import re
import tempfile
import zlib

import nibabel
import nrrd
import numpy
import pydicom
import pydicom.encaps
import SimpleITK
import slicerio
import tifffile
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
SHAPE = (2, 3, 4)
expected = {}


def rotation(a, b, c):
    """A rotation that turns about each axis."""
    about_x = [[1, 0, 0], [0, numpy.cos(a), -numpy.sin(a)], [0, numpy.sin(a), numpy.cos(a)]]
    about_y = [[numpy.cos(b), 0, numpy.sin(b)], [0, 1, 0], [-numpy.sin(b), 0, numpy.cos(b)]]
    about_z = [[numpy.cos(c), -numpy.sin(c), 0], [numpy.sin(c), numpy.cos(c), 0], [0, 0, 1]]
    return numpy.array(about_x) @ numpy.array(about_y) @ numpy.array(about_z)


def numbers(kind):
    """Numbers without any symmetry, that `kind` can hold; `[slices, rows, columns]`."""
    values = numpy.arange(24).reshape(SHAPE) * 5 + 1
    if numpy.issubdtype(kind, numpy.signedinteger):
        values = values * 7 - 100 if numpy.iinfo(kind).max > 255 else values - 60
    if numpy.issubdtype(kind, numpy.floating):
        values = values * 0.37 - 3.1
    return values.astype(kind)


def note(name, voxels, spacing, corners, channels=1, segments=None):
    """`corners` are the places of the first and of the last voxel."""
    expected[name] = {
        "shape": list(voxels.shape[:3]),
        "channels": channels,
        "spacing_mm": None if spacing is None else [float(mm) for mm in spacing],
        "corners_mm": None if corners is None else [[float(mm) for mm in corner] for corner in corners],
        "voxels": [float(value) for value in voxels.ravel()],
        "segments": segments,
    }


def ras(point):
    x, y, z = list(point) + [0.0] * (3 - len(point))
    return [-x, -y, z]


def by_itk(name):
    """What SimpleITK reads."""
    image = SimpleITK.ReadImage(str(FOLDER / name))
    voxels = SimpleITK.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    dimensions = image.GetDimension()
    if dimensions == 2:
        voxels = voxels[None]
    if channels > 1:
        voxels = numpy.moveaxis(voxels, -1, 1)
        shape = (voxels.shape[0],) + voxels.shape[2:]
    else:
        shape = voxels.shape
    last = [extent - 1 for extent in image.GetSize()]
    corners = [ras(image.TransformIndexToPhysicalPoint(at)) for at in ([0] * dimensions, last)]
    spacing = ([1.0] if dimensions == 2 else []) + list(image.GetSpacing())[::-1]
    note(name, voxels, spacing, corners, channels)
    expected[name]["shape"] = list(shape)


def by_nibabel(name):
    """What nibabel reads."""
    image = nibabel.load(FOLDER / name)
    voxels = numpy.asarray(image.dataobj)
    voxels = voxels.reshape((voxels.shape + (1,))[:3])
    # In units of the file, which are millimetres or metres here.
    factor = {"mm": 1.0, "meter": 1000.0, "unknown": 1.0}[image.header.get_xyzt_units()[0]]
    affine = image.affine
    last = [extent - 1 for extent in voxels.shape]
    corners = [(affine @ [*at, 1])[:3] * factor for at in ([0] * 3, last)]
    spacing = numpy.linalg.norm(affine[:3, :3], axis=0)[::-1] * factor
    note(name, voxels.transpose(2, 1, 0), spacing, corners)


def itk_image(values, **options):
    image = SimpleITK.GetImageFromArray(values, **options)
    if image.GetDimension() == 3:
        image.SetSpacing([0.7, 1.3, 4.5])
        image.SetOrigin([-12.25, 30.5, 7.125])
        image.SetDirection(rotation(0.3, -0.2, 0.5).ravel().tolist())
    else:
        image.SetSpacing([0.7, 1.3])
        image.SetOrigin([-12.25, 30.5])
        image.SetDirection([0.8, -0.6, 0.6, 0.8])
    return image


def nifti():
    affine = numpy.eye(4)
    affine[:3, :3] = rotation(0.3, -0.2, 0.5) @ numpy.diag([0.7, 1.3, 4.5])
    affine[:3, 3] = [-12.25, 30.5, 7.125]
    for name, kind, values in [
        ("nifti2-f64.nii.gz", nibabel.Nifti2Image, numbers(numpy.float64)),
        ("nifti1-i64.nii.gz", nibabel.Nifti1Image, numbers(numpy.int64) * 2**33),
        ("nifti1-u64.nii.gz", nibabel.Nifti1Image, numbers(numpy.uint64)),
        ("nifti1-4d.nii.gz", nibabel.Nifti1Image, numbers(numpy.int16)[None]),
        ("nifti1-2d.nii", nibabel.Nifti1Image, numbers(numpy.uint16)[0]),
    ]:
        image = kind(values.T, affine, dtype=values.dtype)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, FOLDER / name)
        by_nibabel(name)
    header = nibabel.Nifti2Header(endianness=">")
    image = nibabel.Nifti2Image(numbers(numpy.int64).T, None, header, dtype=numpy.int64)
    image.header.set_xyzt_units("meter")
    image.set_qform(affine * [[1e-3], [1e-3], [1e-3], [1]], code=1)
    nibabel.save(image, FOLDER / "nifti2-big.nii")
    by_nibabel("nifti2-big.nii")
    for name, kind in [("pair.hdr", nibabel.Nifti1Pair), ("pair2.hdr", nibabel.Nifti2Pair)]:
        image = kind(numbers(numpy.int16).T, affine, dtype=numpy.int16)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, FOLDER / name)
        by_nibabel(name)
    for name in ("pair.hdr", "pair.img"):
        packed = name.replace("pair", "pair-packed") + ".gz"
        (FOLDER / packed).write_bytes(gzip.compress((FOLDER / name).read_bytes(), mtime=0))
    by_nibabel("pair-packed.hdr.gz")
    whole = gzip.decompress((FOLDER / "nifti2-f64.nii.gz").read_bytes())
    parts = [gzip.compress(part, mtime=0) for part in (whole[:100], whole[100:571], whole[571:])]
    (FOLDER / "nifti2-members.nii.gz").write_bytes(b"".join(parts))
    by_nibabel("nifti2-members.nii.gz")


def metaimage():
    types = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
    for index, kind in enumerate(types):
        # Every second one packed, some with voxels in another file.
        name = f"{kind}.{'mhd' if index % 3 == 2 else 'mha'}"
        SimpleITK.WriteImage(itk_image(numbers(numpy.dtype(kind))), FOLDER / name, index % 2 == 1)
        by_itk(name)
    colours = numpy.stack([numbers(numpy.uint8), numbers(numpy.uint8) + 1, numbers(numpy.uint8) + 3], -1)
    SimpleITK.WriteImage(itk_image(colours, isVector=True), FOLDER / "colours.mha", True)
    by_itk("colours.mha")
    SimpleITK.WriteImage(itk_image(numbers(numpy.int16)[1]), FOLDER / "flat.mha", False)
    by_itk("flat.mha")
    # As old programs wrote them: other names of fields, most significant byte first, no places.
    head = "NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementByteOrderMSB = True\nElementSize = 2 3 4\n"
    values = numbers(numpy.int16).astype(">i2").tobytes()
    (FOLDER / "old.mhd").write_text(head + "HeaderSize = -1\nElementDataFile = old.img\n")
    (FOLDER / "old.img").write_bytes(b"something" + values)
    by_itk("old.mhd")
    expected["old.mhd"]["corners_mm"] = None
    head = "ObjectType = Image\nNDims = 3\nPosition = 1 2 3\nOrientation = 0 1 0 1 0 0 0 0 -1\nDimSize = 4 3 2\n"
    head += "ElementSpacing = 2 3 4\nBinaryDataByteOrderMSB = True\nElementType = MET_SHORT\n"
    (FOLDER / "msb.mha").write_bytes((head + "ElementDataFile = LOCAL\n").encode() + values)
    by_itk("msb.mha")


def write(name, values, header):
    """By pynrrd, without the comment that has the date."""
    nrrd.write(str(FOLDER / name), values, header)
    bytes_ = (FOLDER / name).read_bytes()
    head, blank, rest = bytes_.partition(b"\n\n")
    (FOLDER / name).write_bytes(re.sub(rb"(?m)^#.*\n", b"", head) + blank + rest)


def nrrds():
    for index, kind in enumerate(["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]):
        SimpleITK.WriteImage(itk_image(numbers(numpy.dtype(kind))), FOLDER / f"{kind}.nrrd", index % 2 == 1)
        by_itk(f"{kind}.nrrd")
    colours = numpy.stack([numbers(numpy.uint8), numbers(numpy.uint8) + 1, numbers(numpy.uint8) + 3], -1)
    SimpleITK.WriteImage(itk_image(colours, isVector=True), FOLDER / "colours.nrrd", True)
    by_itk("colours.nrrd")
    SimpleITK.WriteImage(itk_image(numbers(numpy.int16)[1]), FOLDER / "flat.nrrd", False)
    by_itk("flat.nrrd")
    steps = (rotation(0.3, -0.2, 0.5) @ numpy.diag([0.7, 1.3, 4.5])).T
    place = {"space directions": steps, "space origin": [-12.25, 30.5, 7.125]}
    for name, values, header in [
        ("ras.nrrd", numbers(numpy.int16), {"space": "right-anterior-superior", "encoding": "raw"}),
        ("las.nrrd", numbers(numpy.int16), {"space": "left-anterior-superior", "encoding": "gzip"}),
        ("text.nrrd", numbers(numpy.float32), {"space": "LPS", "encoding": "ascii"}),
        ("big.nrrd", numbers(numpy.int32), {"space": "LPS", "encoding": "raw", "endian": "big"}),
        ("unnamed.nrrd", numbers(numpy.int16), {"space dimension": 3, "encoding": "raw"}),
        ("detached.nhdr", numbers(numpy.int16), {"space": "LPS", "encoding": "raw"}),
        ("detached-packed.nhdr", numbers(numpy.int16), {"space": "LPS", "encoding": "gzip"}),
    ]:
        write(name, values.T, {**place, **header})
        by_itk(name)
    spaced = {"spacings": [0.7, 1.3, 4.5], "encoding": "raw"}
    write("spacings.nrrd", numbers(numpy.int16).T, spaced)
    by_itk("spacings.nrrd")
    expected["spacings.nrrd"]["corners_mm"] = None
    packed = {**place, "space": "LPS", "encoding": "bzip2"}
    write("refused-bzip2.nrrd", numbers(numpy.int16).T, packed)


def segmentations():
    """As 3D Slicer saves them: the array covers the segments alone, of an image of 4 x 5 x 6 voxels."""
    turn = rotation(0.3, -0.2, 0.5)
    steps = turn @ numpy.diag([0.7, 1.3, 4.5])
    origin = numpy.array([-12.25, 30.5, 7.125])
    image = SimpleITK.GetImageFromArray(numpy.arange(120, dtype=numpy.int16).reshape(4, 5, 6))
    image.SetSpacing([0.7, 1.3, 4.5])
    image.SetOrigin(origin.tolist())
    image.SetDirection(turn.ravel().tolist())
    SimpleITK.WriteImage(image, FOLDER / "drawn-on.nrrd", True)
    by_itk("drawn-on.nrrd")
    first = [2, 1, 1]
    common = {
        "space": "left-posterior-superior",
        "space origin": origin + steps @ first,
        "encoding": "gzip",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|Closed surface|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "2 1 1",
    }

    def segment(number, name, label, layer, colour):
        return {
            f"Segment{number}_ID": f"Segment_{number + 1}",
            f"Segment{number}_Name": name,
            f"Segment{number}_NameAutoGenerated": "0",
            f"Segment{number}_Color": colour,
            f"Segment{number}_ColorAutoGenerated": "1",
            f"Segment{number}_LabelValue": str(label),
            f"Segment{number}_Layer": str(layer),
            f"Segment{number}_Extent": "0 3 0 2 0 1",
            f"Segment{number}_Tags": "Segmentation.Status:inprogress|",
        }

    labels = (numpy.arange(24).reshape(SHAPE) ** 2 // 3 % 3).astype(numpy.uint8)
    header = {**common, "space directions": steps.T, "kinds": ["domain"] * 3}
    header |= segment(0, "Liver", 2, 0, "0.5 0.25 1") | segment(1, "background", 1, 0, "0 1 0")
    write("one-layer.seg.nrrd", labels.T, header)
    layers = numpy.stack([labels, (labels == 2).astype(numpy.uint8)])
    none = [numpy.nan] * 3
    header = {**common, "space directions": [none, *steps.T], "kinds": ["list"] + ["domain"] * 3}
    header |= segment(0, "Liver", 2, 0, "0.5 0.25 1") | segment(1, "background", 1, 0, "0 1 0")
    header |= segment(2, "tumour", 1, 1, "1 0 0")
    write("two-layers.seg.nrrd", layers.transpose(0, 3, 2, 1), header)
    for name in ("one-layer.seg.nrrd", "two-layers.seg.nrrd"):
        found = slicerio.read_segmentation(str(FOLDER / name))
        # From the voxels of the file to left, posterior, superior.
        matrix = numpy.asarray(found["ijkToLPS"])
        voxels = found["voxels"]
        spatial = voxels.shape[-3:]
        corners = [ras((matrix @ [*at, 1])[:3]) for at in ([0] * 3, [extent - 1 for extent in spatial])]
        segments = []
        for one in found["segments"]:
            layer = voxels[one["layer"]] if voxels.ndim == 4 else voxels
            where = (layer == one["labelValue"]).transpose(2, 1, 0)
            colour = [float(part) for part in one["color"]]
            segments.append({"name": one["name"], "colour": colour, "voxels": where.ravel().astype(int).tolist()})
        spacing = numpy.linalg.norm(matrix[:3, :3], axis=0)[::-1]
        note(name, numpy.zeros(spatial[::-1]), spacing, corners, 1, segments)
        expected[name]["voxels"] = None


def by_numpy(name, voxels, spacing=None, labels=None):
    """What tifffile or Pillow read: `[slices, rows, columns]`, with channels behind."""
    channels = voxels.shape[3] if voxels.ndim == 4 else 1
    shape = voxels.shape[:3]
    note(name, numpy.moveaxis(voxels, 3, 1) if channels > 1 else voxels, spacing, None, channels)
    expected[name]["shape"] = list(shape)
    if labels is not None:
        expected[name]["labels"] = [float(label) for label in labels.ravel()]


def tiffs():
    large = numpy.arange(3 * 40 * 50).reshape(3, 40, 50) ** 2 // 7
    zeros = {"photometric": "minisblack"}
    (FOLDER / "spaced.json").write_text(json.dumps({"spacing": [5.0, 0.8, 0.7]}))
    for name, voxels, options in [
        ("stack-u8.tif", numbers(numpy.uint8), zeros),
        ("spaced_0000.tif", numbers(numpy.int16), {**zeros, "compression": "zlib"}),
        ("stack-f32.tiff", numbers(numpy.float32), {**zeros, "byteorder": ">"}),
        ("stack-f64.tif", numbers(numpy.float64), {**zeros, "bigtiff": True, "compression": "zlib"}),
        ("stack-i32.tif", numbers(numpy.int32), {**zeros, "byteorder": ">", "bigtiff": True}),
        ("tiles.tif", (large[:2, :20, :40] % 5).astype(numpy.uint16), {**zeros, "tile": (16, 32), "compression": "zlib"}),
        ("differences.tif", (large % 3000).astype(numpy.uint16)[:1, :9, :9], {**zeros, "predictor": 2, "compression": "zlib"}),
        ("strips.tif", (large % 251).astype(numpy.uint8)[:, :9, :9], {**zeros, "rowsperstrip": 4, "compression": "zlib"}),
        ("imagej.tif", numbers(numpy.uint16), {"imagej": True}),
        ("colours.tif", numpy.stack([numbers(numpy.uint8)] * 3, -1)[:1] + numpy.arange(3, dtype=numpy.uint8), {"photometric": "rgb"}),
    ]:
        tifffile.imwrite(FOLDER / name, voxels, **options)
        found = tifffile.imread(FOLDER / name).reshape(voxels.shape)
        by_numpy(name, found, [5.0, 0.8, 0.7] if name.startswith("spaced") else None)
    pages = [Image.fromarray(page) for page in (large[:2, :20, :20] % 200).astype(numpy.uint8)]
    for name, compression in [("lzw.tif", "tiff_lzw"), ("packbits.tif", "packbits"), ("deflate.tif", "tiff_adobe_deflate")]:
        pages[0].save(FOLDER / name, save_all=True, append_images=pages[1:], compression=compression)
        image = Image.open(FOLDER / name)
        found = []
        for page in range(image.n_frames):
            image.seek(page)
            found.append(numpy.asarray(image))
        by_numpy(name, numpy.stack(found))


def arrays():
    """As NumPy writes them, in every type, both orders of bytes and both orders of axes."""
    for kind in ["bool", "u1", "i1", "<u2", ">i2", ">u4", "<i4", ">u8", "<i8", "<f2", ">f4", "<f8"]:
        kind = numpy.dtype(kind)
        values = numbers(numpy.uint8) % 2 if kind.kind == "b" else numbers(kind.newbyteorder("="))
        order = "big-" if kind.str[0] == ">" else ""
        name = f"array-{order}{kind.newbyteorder('=').name}.npy"
        numpy.save(FOLDER / name, values.astype(kind))
        by_numpy(name, numpy.load(FOLDER / name))
    numpy.save(FOLDER / "array-fortran.npy", numpy.asfortranarray(numbers(numpy.int16)))
    by_numpy("array-fortran.npy", numpy.load(FOLDER / "array-fortran.npy"))
    numpy.save(FOLDER / "array-flat.npy", numbers(numpy.int16)[1])
    by_numpy("array-flat.npy", numpy.load(FOLDER / "array-flat.npy")[None])
    numpy.savez(FOLDER / "one.npz", anything=numbers(numpy.float32))
    by_numpy("one.npz", numpy.load(FOLDER / "one.npz")["anything"])
    labels = numbers(numpy.uint8) % 4
    numpy.savez_compressed(FOLDER / "several.npz", age=numpy.array(61), image=numbers(numpy.float64), label=labels)
    by_numpy("several.npz", numpy.load(FOLDER / "several.npz")["image"], None, labels)
    numpy.save(FOLDER / "refused-objects.npy", numpy.array([[{"a": 1}, None]], dtype=object), allow_pickle=True)
    numpy.savez(FOLDER / "refused-names.npz", t1=labels, t2=labels)


EXPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
IMPLICIT, JPEG, RUNS = "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50", pydicom.uid.RLELossless


def slice_of(values, syntax, position=None, **more):
    """An image of pydicom; `position` is that of its first pixel, to the left and to the back."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{zlib.crc32(values.tobytes())}"
    meta.TransferSyntaxUID = syntax
    image = pydicom.dataset.Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID, image.SeriesDescription = "1.2.3.5", "T1 axial"
    image.Modality, image.PatientName = "MR", "Nobody"
    # Sequences within sequences, of which nothing is wanted.
    inner = pydicom.dataset.Dataset()
    inner.CodeValue = "113100"
    outer = pydicom.dataset.Dataset()
    outer.PurposeOfReferenceCodeSequence = pydicom.sequence.Sequence([inner])
    image.ReferencedImageSequence = pydicom.sequence.Sequence([outer, outer])
    image["ReferencedImageSequence"].is_undefined_length = True
    if position is not None:
        turn = rotation(0.3, -0.2, 0.5)
        image.ImagePositionPatient = [f"{part:.9g}" for part in position]
        image.ImageOrientationPatient = [f"{part:.9f}" for part in [*turn[:, 0], *turn[:, 1]]]
        image.PixelSpacing = [1.3, 0.7]
    image.Rows, image.Columns = values.shape[:2]
    image.SamplesPerPixel = 3 if values.ndim == 3 else 1
    image.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    if values.ndim == 3:
        image.PlanarConfiguration = 0
    bits = values.dtype.itemsize * 8
    image.BitsAllocated, image.BitsStored, image.HighBit = bits, bits, bits - 1
    image.PixelRepresentation = int(values.dtype.kind == "i")
    image.PixelData = values.astype(values.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    image["PixelData"].VR = "OW" if bits > 8 else "OB"
    for key, value in more.items():
        setattr(image, key, value)
    return image


def save(image, path):
    path.parent.mkdir(exist_ok=True)
    image.save_as(path, enforce_file_format=True)


def by_itk_series(name):
    """What SimpleITK reads of the slices of a folder."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(FOLDER / name)))
    image = reader.Execute()
    voxels = SimpleITK.GetArrayFromImage(image)
    last = [extent - 1 for extent in image.GetSize()]
    corners = [ras(image.TransformIndexToPhysicalPoint(at)) for at in ([0] * 3, last)]
    note(name, voxels, list(image.GetSpacing())[::-1], corners)


def dicom():
    """Slices whose names have another order than their places."""
    turn, origin = rotation(0.3, -0.2, 0.5), numpy.array([-12.25, 30.5, 7.125])
    places = [origin + 4.5 * index * turn[:, 2] for index in range(3)]
    stack = numpy.stack([numbers(numpy.int16)[0], numbers(numpy.int16)[1], numbers(numpy.int16)[0] * 3])
    for folder, values, syntax, more in [
        ("series-ct", stack, IMPLICIT, {"RescaleSlope": 1, "RescaleIntercept": -1024}),
        ("series-mr", (stack + 200).astype(numpy.uint16), BIG, {"BitsStored": 12, "HighBit": 11}),
        ("series-inverted", (stack % 251).astype(numpy.uint8), DEFLATED, {"PhotometricInterpretation": "MONOCHROME1"}),
    ]:
        for name, index in [("IM1", 1), ("IM2", 0), ("IM3", 2)]:
            save(slice_of(values[index], syntax, places[index], **more), FOLDER / folder / name)
        by_itk_series(folder)
    single = slice_of(stack[1], EXPLICIT, places[1], SliceThickness=4.5, RescaleSlope="0.5", RescaleIntercept="2")
    save(single, FOLDER / "single.dcm")
    by_itk("single.dcm")
    # ITK says 1 mm of every slice that stands alone; its file says how thick it is.
    expected["single.dcm"]["spacing_mm"][0] = 4.5
    runs = slice_of(stack[2], EXPLICIT, places[1], SliceThickness=4.5)
    runs.compress(RUNS)
    save(runs, FOLDER / "runs.dcm")
    found = pydicom.dcmread(FOLDER / "runs.dcm").pixel_array[None]
    note("runs.dcm", found, [4.5, 1.3, 0.7], [ras(places[1]), ras(places[1] + turn @ [3 * 0.7, 2 * 1.3, 0])])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.dcm"
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(path)
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(itk_image(stack[1:2]))
        packed = pydicom.dcmread(path)
    lossless = slice_of(stack[1], packed.file_meta.TransferSyntaxUID, places[1], PixelData=packed.PixelData)
    lossless["PixelData"].is_undefined_length = True
    save(lossless, FOLDER / "lossless.dcm")
    by_itk("lossless.dcm")
    colours = numpy.stack([numbers(numpy.uint8)[0] + shift for shift in range(3)], -1)
    planes = slice_of(colours, EXPLICIT, PlanarConfiguration=1, PixelData=colours.transpose(2, 0, 1).tobytes())
    save(planes, FOLDER / "colours.dcm")
    by_numpy("colours.dcm", pydicom.dcmread(FOLDER / "colours.dcm").pixel_array[None])
    jpeg = io.BytesIO()
    Image.fromarray((numpy.arange(256).reshape(16, 16) // 2).astype(numpy.uint8)).save(jpeg, "JPEG", quality=95)
    shown = numpy.asarray(Image.open(jpeg))
    packed = slice_of(shown, JPEG, PixelData=pydicom.encaps.encapsulate([jpeg.getvalue()]))
    packed["PixelData"].is_undefined_length = True
    save(packed, FOLDER / "jpeg.dcm")
    by_numpy("jpeg.dcm", shown[None])
    save(frames(stack, places), FOLDER / "frames.dcm")
    found = pydicom.dcmread(FOLDER / "frames.dcm").pixel_array[::-1] * 2.0 - 7
    note("frames.dcm", found, [4.5, 1.3, 0.7], [ras(places[0]), ras(places[2] + turn @ [3 * 0.7, 2 * 1.3, 0])])


def frames(stack, places):
    """All slices in one file, the last first, as new scanners write them."""
    def of(**elements):
        item = pydicom.dataset.Dataset()
        for key, value in elements.items():
            setattr(item, key, value)
        return pydicom.sequence.Sequence([item])

    first = slice_of(stack[0], EXPLICIT, places[0])
    image = slice_of(stack[0], EXPLICIT, None, NumberOfFrames=3, PixelData=stack[::-1].astype("<i2").tobytes())
    shared = of(
        PlaneOrientationSequence=of(ImageOrientationPatient=first.ImageOrientationPatient),
        PixelMeasuresSequence=of(PixelSpacing=[1.3, 0.7], SliceThickness=4.5),
        PixelValueTransformationSequence=of(RescaleSlope=2, RescaleIntercept=-7),
    )
    image.SharedFunctionalGroupsSequence = shared
    each = [of(PlanePositionSequence=of(ImagePositionPatient=[f"{part:.9g}" for part in place]))[0] for place in places[::-1]]
    image.PerFrameFunctionalGroupsSequence = pydicom.sequence.Sequence(each)
    return image


def pictures():
    grey = numbers(numpy.uint8)[0]
    colours = numpy.stack([grey, grey + 1, grey * 2], -1)
    palette = Image.fromarray(grey // 5 % 4, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 255])
    deep = Image.fromarray(numbers(numpy.uint16)[0] * 500)
    turned = Image.Exif()
    turned[274] = 6
    for name, image, options in [
        ("grey.png", Image.fromarray(grey), {}),
        ("grey.bmp", Image.fromarray(grey), {}),
        ("colours.png", Image.fromarray(colours), {}),
        ("colours.bmp", Image.fromarray(colours), {}),
        ("opaque.png", Image.fromarray(colours).convert("RGBA"), {}),
        ("palette.png", palette, {"bits": 2}),
        ("palette-turned.png", palette, {"exif": turned}),
        ("palette.bmp", palette, {}),
        ("deep.png", deep, {}),
        ("flat.jpg", Image.new("L", (8, 8), 77), {}),
    ]:
        image.save(FOLDER / name, **options)
        found = Image.open(FOLDER / name)
        if name == "palette-turned.png":
            found = found.transpose(Image.Transpose.ROTATE_270)
        labels = numpy.asarray(found) if found.mode == "P" and name.endswith(".png") else None
        shown = found.convert("RGB") if found.mode in ("P", "RGBA") else found
        by_numpy(name, numpy.asarray(shown)[None], None, labels)


if __name__ == "__main__":
    nifti()
    metaimage()
    nrrds()
    segmentations()
    tiffs()
    arrays()
    dicom()
    pictures()
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (FOLDER / "expected.json").write_text("{\n" + text + "\n}\n")
