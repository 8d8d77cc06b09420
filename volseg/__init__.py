"""volseg: medical volumes segmented slice-wise, in 3D, with MONAI bundles."""

__version__ = "0.1.0"
