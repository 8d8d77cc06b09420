"""Names and colours of labels in the files that 3D Slicer and ITK-SNAP read beside a label map."""

from __future__ import annotations

from collections.abc import Mapping

from volseg.reports.colours import class_colour

__all__ = ["itk_snap_labels", "slicer_colours"]

_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""


def itk_snap_labels(names: Mapping[int, str]) -> str:
    """Text of an ITK-SNAP label description: Segmentation, Import label descriptions.

    Args:
        names: of the labels from 1 on, see `name_classes`.

    Example:
        >>> print(itk_snap_labels({1: "drusen"}).splitlines()[-1])
            1   230   40   40        1  1  1    "drusen"
    """
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for label, name in names.items():
        red, green, blue = class_colour(label)
        quoted = " ".join(name.replace('"', "'").split())
        lines.append(f'{label:5} {red:5} {green:4} {blue:4}        1  1  1    "{quoted}"')
    return _SNAP_HEADER + "\n".join(lines) + "\n"


def slicer_colours(names: Mapping[int, str]) -> str:
    """Text of a 3D Slicer colour table, with underscores for the spaces of a name, as its format wants it.

    Args:
        names: of the labels from 1 on, see `name_classes`.

    Example:
        >>> print(slicer_colours({1: "kidney vessel"}).splitlines()[-1])
        1 kidney_vessel 230 40 40 255
    """
    lines = ["# Color table file", f"# {len(names) + 1} values", "0 Background 0 0 0 0"]
    for label, name in names.items():
        red, green, blue = class_colour(label)
        lines.append(f"{label} {'_'.join(name.split()) or '_'} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"
