"""The front door, where volumes are read, and the back door, where predictions are written."""

from volseg.data.case_dataset import CaseDataset, CaseSampler, check_cases, collate_cases, root_cause
from volseg.data.cases import find_cases
from volseg.data.datalist import Datalist, load_cases, read_datalist, write_datalist
from volseg.data.datasets.chase import prepare_chase
from volseg.data.datasets.drive import prepare_drive
from volseg.data.datasets.duke_dme import prepare_duke_dme
from volseg.data.datasets.fundus import prepare_fundus
from volseg.data.datasets.nerve import prepare_nerve
from volseg.data.datasets.oct_edema import prepare_oct_edema
from volseg.data.datasets.sennet import prepare_sennet
from volseg.data.datasets.shapes import prepare_shapes
from volseg.data.hashes import add_hashes, check_hashes
from volseg.data.merge import merge_datalists
from volseg.data.nifti_writer import write_nifti
from volseg.data.phantoms import write_sennet_phantom
from volseg.data.picture_reader import PictureReader, picture_geometry, read_picture
from volseg.data.predictions import PredictionFolder
from volseg.data.rle import decode_rle, encode_rle, read_rle_csv, write_rle_csv
from volseg.data.slice_stack_dataset import EpochSampler, SliceStackDataset
from volseg.data.slice_writer import write_slice_folder
from volseg.data.splits import assign_folds, check_groups_do_not_cross
from volseg.data.volume_reader import VolumeReader, check_voxels, read_header, read_volume, slice_numbers

__all__ = [
    "CaseDataset",
    "CaseSampler",
    "Datalist",
    "EpochSampler",
    "PictureReader",
    "PredictionFolder",
    "SliceStackDataset",
    "VolumeReader",
    "add_hashes",
    "assign_folds",
    "check_cases",
    "check_groups_do_not_cross",
    "check_hashes",
    "check_voxels",
    "collate_cases",
    "decode_rle",
    "encode_rle",
    "find_cases",
    "load_cases",
    "merge_datalists",
    "picture_geometry",
    "prepare_chase",
    "prepare_drive",
    "prepare_duke_dme",
    "prepare_fundus",
    "prepare_nerve",
    "prepare_oct_edema",
    "prepare_sennet",
    "prepare_shapes",
    "read_datalist",
    "read_header",
    "read_picture",
    "read_rle_csv",
    "read_volume",
    "root_cause",
    "slice_numbers",
    "write_datalist",
    "write_nifti",
    "write_rle_csv",
    "write_sennet_phantom",
    "write_slice_folder",
]
