"""Small files of every format, written by the library that its users write them with."""

import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from kgmgt_jax.data.matfile import write_mat

SHAPE = (3, 2, 4, 9, 8)  # (t, z, coil, ky, kx), odd ky


def kspace(shape: tuple[int, ...] = SHAPE, name: str = "") -> np.ndarray:
    """Random k-space without a zero, another for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def maps(shape: tuple[int, ...]) -> np.ndarray:
    """Random coil maps, (..., coil, ky, kx), of a sum of squares of 1."""
    sens = kspace(shape, "sens")
    return sens / np.sqrt((np.abs(sens) ** 2).sum(axis=-3, keepdims=True))


def line_mask(h: int = 9, w: int = 8) -> np.ndarray:
    """Every third line and the three central ones, (ky, kx) in double precision."""
    mask = np.zeros((h, w))
    mask[::3] = mask[h // 2 - 1 : h // 2 + 2] = 1
    return mask


def write_cmrxrecon(folder: Path) -> Path:
    """An undersampled file of 2023 beside its mask."""
    write_mat(folder / "cine_sax_mask.mat", "mask04", line_mask())
    measured = kspace() * line_mask().astype(np.float32)
    return write_mat(folder / "cine_sax.mat", "kspace_sub04", measured)


def write_mat5(folder: Path) -> Path:
    """A fully sampled file of 2025 in MATLAB 5, axes reversed as MATLAB has them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cine_sax.mat"
    scipy.io.savemat(path, {"kspace": kspace().T}, do_compression=True)
    return path


def write_fastmri(folder: Path, *, masked: bool = True) -> Path:
    """A fastMRI file: (slices, coils, H, W), a mask over W."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "file1000.h5"
    data, lines = kspace((2, 4, 8, 9)), line_mask()[:, 0].astype(np.float32)
    with h5py.File(path, "w") as file:
        file["kspace"] = data * lines if masked else data
        if masked:
            file["mask"] = lines
        file["ismrmrd_header"] = "<ismrmrdHeader/>"
        file["reconstruction_rss"] = np.abs(data[:, 0, 1:7, 1:8])
        file.attrs.update(acquisition="CORPD_FBK", patient_id="0", max=1.0, norm=1.0)
    return path


def write_bart(folder: Path) -> Path:
    """A pair of BART's, dims 0 read, 1 phase, 3 coils, 10 time, 13 slices."""
    data = kspace() * line_mask().astype(np.float32)
    return write_bart_array(folder / "ksp.cfl", data)


def write_bart_array(path: Path, data: np.ndarray) -> Path:
    """A pair of BART's from an array (t, z, coil, ky, kx), or with sets of maps in front."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_maps, t, z, n, h, w = (1,) * (6 - data.ndim) + data.shape
    sizes = [w, h, 1, n, n_maps, 1, 1, 1, 1, 1, t, 1, 1, z, 1, 1]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))} \n")
    numbers = np.transpose(data.reshape(n_maps, t, z, n, h, w), (5, 4, 3, 0, 1, 2)).reshape(sizes)
    numbers.ravel(order="F").tofile(path)
    return path


def write_npy(folder: Path, *, sens_in_time: bool = False) -> Path:
    """K-space, maps and mask as three npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.stack([line_mask(), line_mask()[::-1], line_mask()])
    np.save(folder / "P1_kspace.npy", kspace((3, 4, 9, 8)) * mask[:, None].astype(np.float32))
    np.save(folder / "P1_sens.npy", maps((3, 4, 9, 8) if sens_in_time else (4, 9, 8)))
    np.save(folder / "P1_mask.npy", mask.astype(np.uint8))
    return folder / "P1_kspace.npy"


def images(shape: tuple[int, ...] = (3, 9, 8), name: str = "") -> np.ndarray:
    """Random magnitudes, (t, y, x), 0 to 4000."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, 4000, shape).astype(np.uint16)


def write_stacks(folder: Path) -> Path:
    """An HDF5 file with two image stacks at two depths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/one", data=images(), compression="gzip")
        file["two"] = images((4, 8, 9), "two")
    return path


def write_image_npy(folder: Path) -> Path:
    """An npy file with one image stack."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "cine.npy", images())
    return folder / "cine.npy"


def write_nifti(folder: Path) -> Path:
    """A NIfTI file (x, y, z, t) whose x runs to the right and y to the back."""
    import nibabel

    folder.mkdir(parents=True, exist_ok=True)
    data = np.transpose(images((3, 2, 9, 8)), (3, 2, 1, 0))  # t z y x -> x y z t
    image = nibabel.nifti1.Nifti1Image(data, np.diag([1.5, -1.25, 8.0, 1.0]))
    image.header.set_zooms((1.5, 1.25, 8.0, 40.0))
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, folder / "cine.nii.gz")
    return folder / "cine.nii.gz"


def _dicom(name: str) -> Any:
    """A DICOM image of 9 x 8 pixels without pixels, of one series."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID = "MR", generate_uid(entropy_srcs=["series"])
    data.Rows, data.Columns, data.SamplesPerPixel = 9, 8, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    return data


def edited_dicom(folder: Path) -> Iterator[Any]:
    """The images of a folder one after the other, each saved again with what was done to it."""
    import pydicom

    for path in sorted(folder.iterdir()):
        image = pydicom.dcmread(path)
        yield image
        image.save_as(path)


def write_dicom(
    folder: Path,
    angles: tuple[float, ...] = (0.0, 0.0),
    kinds: dict[str, list[str]] | None = None,
) -> Path:
    """A series of slices x 3 frames in one file each, numbered against their order in time.

    Args:
        folder: Where to write.
        angles: Of each slice about the second axis, in degrees; slices of one angle lie 8 mm apart.
        kinds: ``ImageType`` of each image at one place and time, by its name; those called other
            than ``"M"`` have other pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = images((3, len(angles), 9, 8))
    for kind, t in itertools.product(kinds or {"M": []}, range(3)):
        for z, angle in enumerate(np.deg2rad(angles)):
            data = _dicom(f"{kind}{t}{z}")
            if kinds:
                data.ImageType = kinds[kind]
            data.InstanceNumber, data.TriggerTime = 9 - t, 30.0 * t
            data.ImageOrientationPatient = [np.cos(angle), 0, np.sin(angle), 0, 1, 0]
            data.ImagePositionPatient = [0, 0, 8.0 * z if len(set(angles)) == 1 else 0]
            data.RescaleSlope, data.RescaleIntercept = 2, 1
            data.PixelSpacing = [1.25, 1.5]
            data.PixelData = (pixels if kind == "M" else 4095 - pixels)[t, z].tobytes()
            data.save_as(folder / f"im{kind}{5 - t}{z}.dcm", enforce_file_format=True)
    return folder


def write_enhanced_dicom(folder: Path) -> Path:
    """One file of 2 slices x 3 frames, each slice with a rescaling of its own, in mixed order."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(sequence: str, **values: Any) -> Dataset:
        inner, outer = Dataset(), Dataset()
        for keyword, value in values.items():
            setattr(inner, keyword, value)
        setattr(outer, sequence, Sequence([inner]))
        return outer

    folder.mkdir(parents=True, exist_ok=True)
    pixels = images((3, 2, 9, 8))
    order = [(2, 1), (0, 0), (1, 1), (2, 0), (0, 1), (1, 0)]
    data = _dicom("enhanced")
    data.NumberOfFrames = len(order)
    oriented = item("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data.SharedFunctionalGroupsSequence = Sequence([oriented])
    groups = []
    for t, z in order:
        group = item("PlanePositionSequence", ImagePositionPatient=[0, 0, 8.0 * z])
        group.update(
            item("CardiacSynchronizationSequence", NominalCardiacTriggerDelayTime=30.0 * t)
        )
        scale = {"RescaleSlope": z + 1, "RescaleIntercept": 0, "RescaleType": "US"}
        group.update(item("PixelValueTransformationSequence", **scale))
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data.PixelData = np.stack([pixels[t, z] for t, z in order]).tobytes()
    data.save_as(folder / "all.dcm", enforce_file_format=True)
    return folder / "all.dcm"


def write_ismrmrd(
    folder: Path,
    *,
    skip: tuple[int, ...] = (),
    late: int = 0,
    early: int = 0,
    centre: int = 4,
    peak: int | None = None,
    reverse: int | None = None,
    discard: tuple[int, int] = (0, 0),
    first: int = 0,
) -> Path:
    """An ISMRMRD file of 3 phases x 2 slices, two averages, and a noise scan in front.

    Args:
        folder: Where to write.
        skip: Lines that are not measured.
        late: Samples missing in front of each echo.
        early: Samples missing at its end.
        centre: Central line, as the header says.
        peak: A line ten times as strong.
        reverse: Parity of the lines that are stored from their end to their beginning.
        discard: Samples at the left and at the right end of a line that are marked as waste.
        first: The least line, as the header says.
    """
    import ismrmrd

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fs_0001.h5"
    path.unlink(missing_ok=True)
    data = kspace()
    if peak is not None:
        data[..., peak, :] *= 10
    with ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(_ismrmrd_header(centre, first).encode())
        noise = ismrmrd.Acquisition.from_array(kspace((4, 8), "noise"))
        noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(noise)
        for t, z, y, average in np.ndindex(3, 2, 9, 2):
            if y in skip:
                continue
            sign = 0.5 if average else -0.5  # averages to the data
            line = data[t, z, :, y, late : 8 - early] + sign
            turned = y % 2 == reverse
            line = np.ascontiguousarray(line[:, ::-1] if turned else line, np.complex64)
            acquisition = ismrmrd.Acquisition.from_array(line)
            if turned:
                acquisition.setFlag(ismrmrd.ACQ_IS_REVERSE)
            acquisition.idx.phase, acquisition.idx.slice = t, z
            acquisition.idx.kspace_encode_step_1, acquisition.idx.average = y, average
            before, behind = discard[::-1] if turned else discard
            acquisition.discard_pre, acquisition.discard_post = before, behind
            acquisition.center_sample = 3 - early if turned else 4 - late
            acquisition.read_dir[:], acquisition.phase_dir[:] = (1, 0, 0), (0, -1, 0)
            file.append_acquisition(acquisition)
    return path


def _ismrmrd_header(centre: int, first: int) -> str:
    from ismrmrd import xsd

    size = xsd.matrixSizeType(x=8, y=9, z=1)
    space = xsd.encodingSpaceType(
        matrixSize=size, fieldOfView_mm=xsd.fieldOfViewMm(x=300, y=300, z=8)
    )
    limit = xsd.limitType(minimum=first, maximum=8, center=centre)
    limits = xsd.encodingLimitsType(kspace_encoding_step_1=limit)
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=limits,
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63500000)
    header = xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding])
    return xsd.ToXML(header)
