"""Read network weights from a file without running anything that is in it."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from volseg.checks import InputError, refuse

__all__ = ["apply_state", "load_weights", "read_state"]

_NESTS = ("model", "network", "state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")
_FILE_REMEDY = (
    "give a file written by torch.save or a MONAI checkpoint handler, and copy it again if it was cut"
)


def load_weights(network: nn.Module, path: str | Path, *, strict: bool = True) -> nn.Module:
    """Fill a network with the weights of a checkpoint file, or leave it as it was and say why.

    Accepts a plain state dict, one nested under "model", "network", "state_dict" or "net" (a training
    checkpoint), and names that carry the prefix of DistributedDataParallel or torch.compile.

    Args:
        network: changed in place.
        path: of the file.
        strict: every weight of the network is in the file and the other way round. If False, names may be
            missing on either side, as long as one fits.

    Returns:
        The network.

    Raises:
        InputError: when the file cannot be read safely, belongs to another architecture or holds a value that
            is not finite; the network is then unchanged.

    Example:
        >>> load_weights(nn.Linear(2, 2), "missing.pt")
        Traceback (most recent call last):
        volseg.checks.InputError: missing.pt: expected a file of weights, got no such file; check the path
    """
    apply_state(network, read_state(path), source=path, strict=strict)
    return network


def apply_state(
    network: nn.Module, state: Mapping[str, torch.Tensor], *, source: str | Path, strict: bool = True
) -> None:
    """Fill a network with named tensors, or leave it as it was and say why.

    Args:
        network: changed in place.
        state: tensors by name.
        source: what the message names, usually a file.
        strict: as in `load_weights`.

    Raises:
        InputError: when names, shapes or types do not fit, or a value is not finite.
    """
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own}
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    if (strict and (missing or unexpected)) or not fitting:
        refuse(
            source,
            f"the {len(own)} weights of {type(network).__name__}",
            f"{len(fitting)} of them, {_listed('missing', missing)}, {_listed('unexpected', unexpected)}",
            "use the file that belongs to this network_def, or change network_def to what was trained",
        )
    for name, value in fitting.items():
        _check_value(source, name, value, own[name])
    network.load_state_dict(fitting, strict=False)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read names and tensors of a checkpoint, on CPU, with nests and prefixes taken off.

    Raises:
        InputError: when the file is missing, empty, damaged, holds no weights, or would run code.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old file formats; what matters is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        told = str(error)
        if "GLOBAL" in told or "allowed" in told:
            refuse(path, "tensors only", _code_reason(told), "never load it; ask for a file of plain weights")
        refuse(path, "a PyTorch checkpoint", f"damaged content ({_first_line(error)})", _FILE_REMEDY)
    except Exception as error:
        # A damaged file ends in whatever its bytes happen to mean: EOFError, RuntimeError, KeyError, ...
        refuse(path, "a PyTorch checkpoint", f"damaged content ({_first_line(error)})", _FILE_REMEDY)
    return _unprefixed(_unnested(path, content))


def _check_file(path: Path) -> None:
    if not path.exists():
        refuse(path, "a file of weights", "no such file", "check the path")
    if not path.is_file():
        refuse(
            path,
            "a file of weights",
            "a folder or device",
            "give the file itself, for example models/model.pt",
        )
    try:
        with path.open("rb") as stream:
            if not stream.read(1):
                refuse(path, "a file of weights", "an empty file", _FILE_REMEDY)
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            # Stored, not deflated: what is read is then never larger than the file.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                refuse(path, "a PyTorch checkpoint", "a compressed archive", _FILE_REMEDY)
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception as error:  # zipfile raises many types on damaged archives
        refuse(path, "a readable PyTorch checkpoint", f"an error ({_first_line(error)})", _FILE_REMEDY)
    if damaged is not None:
        refuse(path, "a PyTorch checkpoint", f"a wrong checksum in {damaged}", _FILE_REMEDY)


def _unnested(path: Path, content: object) -> dict[str, torch.Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = [content[name] for name in _NESTS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    found = (
        f"a mapping with {_listed('keys', content)}"
        if isinstance(content, Mapping)
        else type(content).__name__
    )
    refuse(path, "a mapping of names to tensors", found, f"put the weights under one of {', '.join(_NESTS)}")


def _unprefixed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def _check_value(path: str | Path, name: str, value: torch.Tensor, own: torch.Tensor) -> None:
    if value.shape != own.shape or value.layout != torch.strided:
        refuse(
            path,
            f"{name} of shape {tuple(own.shape)}",
            str(tuple(value.shape)),
            "use the same features, slices and channels in network_def as in training",
        )
    if value.is_floating_point() != own.is_floating_point() or value.is_complex() != own.is_complex():
        refuse(path, f"{name} of type {own.dtype}", str(value.dtype), "use the file that was trained")
    if not bool(torch.isfinite(value).all()):
        count = int((~torch.isfinite(value)).sum())
        refuse(
            path, "finite weights", f"{count} NaN or infinite values in {name}", "use an earlier checkpoint"
        )


def _listed(word: str, names: Iterable[object]) -> str:
    listed = [str(name)[:60] for name in names]
    shown = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
    return f"{len(listed)} {word}" + (f" ({shown})" if listed else "")


def _code_reason(told: str) -> str:
    for line in told.splitlines():
        if "GLOBAL" in line:
            return f"a pickle that would run code ({line.strip()[:120]})"
    return "a pickle that would run code"


def _first_line(error: Exception) -> str:
    # torch puts advice before the reason when it refuses a pickle.
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
