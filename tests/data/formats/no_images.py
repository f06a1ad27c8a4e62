"""What folders of DICOM have beside images."""

from pathlib import Path


def add_files_without_images(folder: Path) -> Path:
    """Puts a DICOMDIR and a report into a folder, which is made if need be."""
    import pydicom

    folder.mkdir(parents=True, exist_ok=True)
    directory, report = pydicom.uid.MediaStorageDirectoryStorage, pydicom.uid.BasicTextSRStorage
    for name, kind in {"DICOMDIR": directory, "report.dcm": report}.items():
        data = pydicom.Dataset()
        data.Modality, data.SeriesInstanceUID = "OT", pydicom.uid.generate_uid()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = kind
        data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        pydicom.dcmwrite(folder / name, data, enforce_file_format=True)
    return folder
