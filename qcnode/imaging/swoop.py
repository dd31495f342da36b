"""A volume as DICOM instances: one Enhanced MR object as a Swoop sends it, or one classic MR object a slice."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from qcnode.imaging.volume import Volume

# AcquisitionContrast → RepetitionTime, EchoTime, InversionTime in ms, as real Swoop headers give them.
TIMING_MS: dict[str, tuple[float, float, float | None]] = {
    "T2": (2000.0, 160.0, None),
    "T1": (1500.0, 6.4, None),
    "FLUID_ATTENUATED": (4000.0, 194.4, 1400.0),
}
TRANSMITTER_MHZ = 2.692619  # 63 mT
_COIL = "815-11016-03"


def swoop_series(
    volume: Volume,
    *,
    patient_id: str,
    generator: np.random.Generator,
    patient_name: str = "SYNTHETIC^HEAD",
    study_uid: str | None = None,
    series_number: int = 1,
    acquisition_contrast: str = "T2",
    at: datetime = datetime(2025, 1, 1, 12, 0, tzinfo=UTC),
) -> Dataset:
    """One Enhanced MR object, with what a Swoop's header has and without what it lacks.

    Shared orientation, spacing and timing, a position a frame; no AccessionNumber, PatientBirthDate, PatientSex,
    ReferringPhysicianName or MagneticFieldStrength. Its UIDs are drawn from `generator`.
    """
    ds = _header(volume, EnhancedMRImageStorage, patient_id, patient_name, generator, study_uid, series_number, at)
    repetition_ms, echo_ms, inversion_ms = TIMING_MS[acquisition_contrast]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.ScanningSequence = ["SE", "IR"] if inversion_ms else "SE"
    ds.RepetitionTime, ds.EchoTime = f"{repetition_ms:.2f}", f"{echo_ms:.2f}"
    if inversion_ms:
        ds.InversionTime = f"{inversion_ms:.2f}"
    ds.InstanceNumber = 1
    ds.ImagePositionPatient = _position(volume, 0)
    ds.ImageOrientationPatient = _orientation(volume)
    ds.PixelSpacing = _pixel_spacing(volume)
    ds.NumberOfFrames = len(volume.array)
    ds.SharedFunctionalGroupsSequence = [_shared_groups(volume, acquisition_contrast)]
    ds.PerFrameFunctionalGroupsSequence = [_frame_groups(volume, i) for i in range(len(volume.array))]
    ds.PixelData = _pixels(volume.array).tobytes()
    return ds


def classic_series(
    volume: Volume,
    *,
    patient_id: str,
    generator: np.random.Generator,
    patient_name: str = "SYNTHETIC^HEAD",
    study_uid: str | None = None,
    series_number: int = 1,
    acquisition_contrast: str = "T2",
    at: datetime = datetime(2025, 1, 1, 12, 0, tzinfo=UTC),
) -> list[Dataset]:
    """One MR Image Storage object a slice, in the order of the volume's slices, as a converter would store it."""
    repetition_ms, echo_ms, inversion_ms = TIMING_MS[acquisition_contrast]
    series: list[Dataset] = []
    for i, pixels in enumerate(_pixels(volume.array)):
        ds = _header(volume, MRImageStorage, patient_id, patient_name, generator, study_uid, series_number, at)
        if series:
            ds.StudyInstanceUID, ds.SeriesInstanceUID = series[0].StudyInstanceUID, series[0].SeriesInstanceUID
            ds.FrameOfReferenceUID = series[0].FrameOfReferenceUID
        else:
            ds.FrameOfReferenceUID = _uid(generator)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
        ds.ScanningSequence = ["SE", "IR"] if inversion_ms else "SE"
        ds.ScanOptions = ""
        ds.RepetitionTime, ds.EchoTime = f"{repetition_ms:.2f}", f"{echo_ms:.2f}"
        ds.EchoTrainLength = 80
        if inversion_ms:
            ds.InversionTime = f"{inversion_ms:.2f}"
        ds.AccessionNumber = ds.PatientBirthDate = ds.PatientSex = ds.ReferringPhysicianName = ""
        ds.PositionReferenceIndicator = ""
        ds.ImagingFrequency = f"{TRANSMITTER_MHZ:.6f}"
        ds.InstanceNumber = i + 1
        ds.ImagePositionPatient = _position(volume, i)
        ds.ImageOrientationPatient = _orientation(volume)
        ds.PixelSpacing = _pixel_spacing(volume)
        ds.SliceThickness = f"{volume.spacing_mm[0]:.2f}"
        ds.PixelData = pixels.tobytes()
        series.append(ds)
    return series


def to_bytes(dataset: Dataset) -> bytes:
    """The instance as a Part 10 file in the transfer syntax of its file meta information."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _header(
    volume: Volume,
    sop_class: UID,
    patient_id: str,
    patient_name: str,
    generator: np.random.Generator,
    study_uid: str | None,
    series_number: int,
    at: datetime,
) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = _uid(generator)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{at:%Y%m%d}"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{at:%H%M%S.%f}"
    ds.Modality = "MR"
    ds.Manufacturer = "Hyperfine Research"
    ds.SeriesDescription = f"T2 {volume.plane.suffix.upper()}"
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.SequenceVariant, ds.MRAcquisitionType = "NONE", "3D"
    ds.DeviceSerialNumber, ds.PatientPosition = "0000", "HFS"
    drawn_study_uid = _uid(generator)
    ds.StudyInstanceUID = study_uid or drawn_study_uid
    ds.SeriesInstanceUID = _uid(generator)
    ds.StudyID, ds.SeriesNumber = "1", series_number
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    _, ds.Rows, ds.Columns = volume.array.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


def _shared_groups(volume: Volume, acquisition_contrast: str) -> Dataset:
    repetition_ms, echo_ms, inversion_ms = TIMING_MS[acquisition_contrast]
    shared = Dataset()
    shared.MRImagingModifierSequence = [
        _item(
            PixelBandwidth="571.428571428571",
            MagnetizationTransfer="NONE",
            BloodSignalNulling="NO",
            Tagging="NONE",
            TransmitterFrequency=TRANSMITTER_MHZ,
        )
    ]
    coil = _item(ReceiveCoilName=_COIL, ReceiveCoilManufacturerName="Hyperfine Research", ReceiveCoilType="MULTICOIL")
    coil.QuadratureReceiveCoil = "NO"
    coil.MultiCoilDefinitionSequence = [_item(MultiCoilElementName="YES", MultiCoilElementUsed="YES")]
    shared.MRReceiveCoilSequence = [coil]
    shared.MRTransmitCoilSequence = [
        _item(TransmitCoilName=_COIL, TransmitCoilManufacturerName="Hyperfine Research", TransmitCoilType="VOLUME")
    ]
    timing = _item(RepetitionTime=f"{repetition_ms:.2f}", EchoTrainLength=80, FlipAngle="90.0")
    timing.OperatingModeSequence = [_item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL")]
    timing.SpecificAbsorptionRateSequence = [
        _item(SpecificAbsorptionRateDefinition="IEC_HEAD", SpecificAbsorptionRateValue=0.0)
    ]
    timing.RFEchoTrainLength = timing.GradientEchoTrainLength = 1
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MREchoSequence = [_item(EffectiveEchoTime=echo_ms)]
    modifier = _item(ScanOptions="", InversionRecovery="YES" if inversion_ms else "NO", FlowCompensation="NONE")
    if inversion_ms:
        modifier.InversionTime = f"{inversion_ms:.2f}"
    modifier.T2Preparation, modifier.SpectrallySelectedExcitation = "NO", "NONE"
    modifier.SpatialPresaturation, modifier.ParallelAcquisition, modifier.PartialFourier = "NONE", "NO", "NO"
    shared.MRModifierSequence = [modifier]
    shared.MRAveragesSequence = [_item(NumberOfAverages="80.0")]
    _, rows, columns = volume.array.shape
    shared.MRFOVGeometrySequence = [
        _item(
            PercentSampling="100.0",
            PercentPhaseFieldOfView="100.0",
            InPlanePhaseEncodingDirection="ROW",
            MRAcquisitionFrequencyEncodingSteps=columns,
            MRAcquisitionPhaseEncodingStepsInPlane=rows,
        )
    ]
    shared.MRImageFrameTypeSequence = [
        _item(
            FrameType=["ORIGINAL", "PRIMARY", "T2", "NONE"],
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
            ComplexImageComponent="MAGNITUDE",
            AcquisitionContrast=acquisition_contrast,
        )
    ]
    region = _item(CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain")
    shared.FrameAnatomySequence = [_item(AnatomicRegionSequence=[region], FrameLaterality="U")]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=_orientation(volume))]
    shared.PixelMeasuresSequence = [
        _item(SliceThickness=f"{volume.spacing_mm[0]:.2f}", PixelSpacing=_pixel_spacing(volume))
    ]
    shared.PixelValueTransformationSequence = [_item(RescaleIntercept="0.0", RescaleSlope="1.0", RescaleType="US")]
    return shared


def _frame_groups(volume: Volume, index: int) -> Dataset:
    frame = Dataset()
    content = _item(StackID="1", InStackPositionNumber=index + 1, FrameAcquisitionNumber=1)
    content.DimensionIndexValues = [1, index + 1]
    frame.FrameContentSequence = [content]
    frame.PlanePositionSequence = [_item(ImagePositionPatient=_position(volume, index))]
    return frame


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _pixels(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.clip(np.rint(array), 0, 65535).astype("<u2")


def _lps(vector: NDArray[np.float64]) -> list[str]:
    """RAS → the patient's coordinate system of DICOM, as decimal strings of at most 16 characters."""
    return [f"{round(float(v), 7) + 0.0:.10g}" for v in vector * (-1, -1, 1)]


def _position(volume: Volume, index: int) -> list[str]:
    return _lps(volume.affine[:3, 3] + index * volume.affine[:3, 0])


def _orientation(volume: Volume) -> list[str]:
    _, row_mm, column_mm = volume.spacing_mm
    return _lps(volume.affine[:3, 2] / column_mm) + _lps(volume.affine[:3, 1] / row_mm)


def _pixel_spacing(volume: Volume) -> Sequence[str]:
    return [f"{mm:.10g}" for mm in volume.spacing_mm[1:]]


def _uid(generator: np.random.Generator) -> UID:
    return UID(f"2.25.{uuid.UUID(bytes=generator.bytes(16), version=4).int}")
