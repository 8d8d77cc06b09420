"""What transforms were made of, as plain JSON: the same result is to be expected where it is the same."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import Enum
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

__all__ = ["definition_of"]


def definition_of(value: object) -> Any:
    """Describe a transform, or several, by class and attributes, down to plain values.

    MONAI's config forgets the definition of what it has made, and the `repr` of a transform tells no
    argument, only an address that differs from run to run. Random state is named and not described.

    Args:
        value: a transform, a list or mapping of them, or an argument of one. A lambda is described by its
            code, any other function by its name.

    Returns:
        Values that `json.dumps` takes; equal definitions for equal arguments.

    Example:
        >>> from monai.transforms import ScaleIntensityRange
        >>> definition_of([ScaleIntensityRange(0, 255)])[0]["a_max"]
        255
    """
    if isinstance(value, Enum):
        return definition_of(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(key): definition_of(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [definition_of(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, functools.partial):
        return definition_of([value.func, value.args, value.keywords])
    if isinstance(value, CodeType):
        return [value.co_code.hex(), definition_of(value.co_consts), list(value.co_names)]
    if hasattr(value, "__qualname__"):
        return _function(value)
    return {"class": _name(type(value)), **definition_of(getattr(value, "__dict__", {}))}


def _function(value: Any) -> Any:
    name = _name(value)
    if not isinstance(value, FunctionType) or "<" not in name:
        return name
    # all lambdas of a module have one name
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return [name, definition_of([value.__code__, value.__defaults__, cells])]


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
