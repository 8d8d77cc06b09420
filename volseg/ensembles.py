"""Members of an ensemble as a config names them: checkpoints, networks, bundles."""

from __future__ import annotations

import copy
import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from torch import nn

from volseg.checks import nearest, refuse
from volseg.files import sha256_of
from volseg.handlers import load_threshold
from volseg.inferers import TriAxisInferer
from volseg.inferers.slice_stack import check_slices
from volseg.networks import Ensemble, load_weights
from volseg.networks.ensemble import member_shares

__all__ = ["MemberList"]

_KEYS = ("bundle", "network", "checkpoint", "inferer")
_REMEDY = "pass --members \"['a/model.pt','b/model.pt']\", or a pattern such as 'runs/fold_*/models/model.pt'"
_PROBE = 32  # rows and columns
_MOST_CHANNELS = 16


@dataclass(frozen=True)
class _Member:
    name: str
    network: nn.Module
    checkpoint: Path
    inferer: Inferer
    is_of_this_bundle: bool


class MemberList:
    """What a config says about the members of an ensemble, and the ensemble made from it.

    An entry is one of these:

    - a checkpoint of the running bundle's network, or a pattern of several such as
      "runs/fold_*/models/model.pt", in the order of their names;
    - `{"network": network, "checkpoint": file}`, another network;
    - `{"bundle": folder}`, the `network_def` of its configs/inference.json with its models/model.pt.

    Every member gets images as the running bundle prepares them, and is run by the running bundle's inferer;
    a bundle's network sees as many slices as its own inferer gives it. `"inferer": inferer` in an entry
    replaces the inferer, `"checkpoint": file` a bundle's weights.

    Args:
        entries: one entry or several, or one pattern.
        network: of the running bundle. The first checkpoint is loaded into it, the others into copies.
        inferer: of the running bundle, which gives the mean alone.
        classes: K that each member has to give.
        weights: one positive number per member, of any sum; None is the same for all.

    Raises:
        InputError: for no entry, one that is none, a pattern or a folder without checkpoint.
        ValueError: for weights that do not fit the members.
    """

    def __init__(
        self,
        entries: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        network: nn.Module,
        inferer: Inferer,
        *,
        classes: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        listed = [entries] if isinstance(entries, str | Mapping) else list(entries)
        if not listed:
            refuse("members", "checkpoints, networks or bundles", "none", _REMEDY)
        self.network, self.inferer, self.classes = network, inferer, classes
        self._members = list(_members(listed, network, inferer))
        self.shares = member_shares(weights, len(self._members))

    @property
    def names(self) -> list[str]:
        """What each member is called in messages, in their order."""
        return [member.name for member in self._members]

    @property
    def inferers(self) -> list[Inferer]:
        """The inferer of each member."""
        return [member.inferer for member in self._members]

    @property
    def threshold(self) -> float:
        """Mean of the thresholds that are stored beside the members' weights, 0.5 where none is.

        Raises:
            InputError: as `load_threshold`.
        """
        return fmean(load_threshold(member.checkpoint) for member in self._members)

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """What the result depends on, in an order that is not that of the entries: hashes and shares."""
        rows = []
        for member, share in zip(self._members, self.shares, strict=True):
            row: dict[str, Any] = {"weights": sha256_of(member.checkpoint), "share": share}
            if member.inferer is not self.inferer:
                row["inferer"] = {name: str(value) for name, value in vars(member.inferer).items()}
            rows.append(row)
        return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))

    def load(self) -> Ensemble:
        """Read the weights of every member.

        Raises:
            InputError: when weights do not fit, or another network takes other channels or gives other
                classes than the running bundle's.
        """
        if not all(member.is_of_this_bundle for member in self._members):
            self._check_formats()
        networks = [load_weights(member.network, member.checkpoint) for member in self._members]
        return Ensemble(networks, self.shares).eval()

    def _check_formats(self) -> None:
        expected = _channels("network_def", self.network, self.inferer, self.classes)
        for number, member in enumerate(self._members, start=1):
            if not member.is_of_this_bundle:
                name = f"member {number}, {member.name}"
                channels = _channels(name, member.network, member.inferer, self.classes)
                if channels != expected and None not in (channels, expected):
                    remedy = "leave it out, its images are others"
                    refuse(name, f"{expected} channels, as network_def takes", channels, remedy)


def _members(listed: Iterable[Any], network: nn.Module, inferer: Inferer) -> Iterator[_Member]:
    is_first = True
    for entry in listed:
        if isinstance(entry, str):
            for file in _files(entry):
                # The first is network_def itself: whatever else asks for that gets a member, not noise.
                own = network if is_first else copy.deepcopy(network)
                yield _Member(str(file), own, file, inferer, is_of_this_bundle=True)
                is_first = False
        elif isinstance(entry, Mapping):
            yield _other_member(entry, inferer)
        else:
            refuse("members", "paths or mappings", f"{type(entry).__name__} {entry!r}", _REMEDY)


def _files(pattern: str) -> list[Path]:
    if Path(pattern).is_file():  # a name may hold the signs of a pattern
        return [Path(pattern)]
    files = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    if not files:
        remedy = "check the path; several are listed as \"['a/model.pt','b/model.pt']\""
        refuse(pattern, "a checkpoint, or a pattern of some", "no such file", remedy)
    return files


def _other_member(entry: Mapping[str, Any], inferer: Inferer) -> _Member:
    for key in entry:
        if key not in _KEYS:
            refuse("members", f"one of {', '.join(_KEYS)}", repr(key), nearest(str(key), _KEYS))
    if ("bundle" in entry) == ("network" in entry):
        got = "both" if "bundle" in entry else "neither"
        refuse("members", "a bundle or a network in each entry", got, _REMEDY)
    if "bundle" in entry:
        name = str(entry["bundle"])
        network, inferer = _from_bundle(Path(name), inferer)
        checkpoint = Path(entry.get("checkpoint", Path(name) / "models" / "model.pt"))
    else:
        network, name = entry["network"], str(entry.get("checkpoint"))
        if not isinstance(network, nn.Module) or "checkpoint" not in entry:
            got = f"{type(network).__name__} and {name}"
            refuse("members", "a network with its _target_, and its checkpoint", got, _REMEDY)
        checkpoint = Path(name)
    if not checkpoint.is_file():
        refuse(checkpoint, f"the weights of the member {name}", "no such file", "check the path")
    return _Member(name, network, checkpoint, entry.get("inferer", inferer), is_of_this_bundle=False)


def _from_bundle(folder: Path, inferer: Inferer) -> tuple[nn.Module, Inferer]:
    """A bundle's network, and the inferer with the slices that the bundle's own gives it."""
    file = folder / "configs" / "inference.json"
    if not file.is_file():
        refuse(folder, "a bundle with configs/inference.json", "no such file", "check the path")
    config = ConfigParser.load_config_file(str(file))
    missing = [name for name in ("network_def", "inferer") if name not in config]
    if missing:
        refuse(
            file, "network_def and inferer", f"no {missing[0]}", "use a bundle that follows MONAI's layout"
        )
    # its own expression would find the bundle that is running
    parser = ConfigParser({**config, "bundle_root": str(folder)})
    network, own = parser.get_parsed_content("network_def"), parser.get_parsed_content("inferer")
    if not (isinstance(own, TriAxisInferer) and isinstance(inferer, TriAxisInferer)):
        return network, inferer
    if (own.in_slices, own.out_slices) == (inferer.in_slices, inferer.out_slices):
        return network, inferer
    check_slices(own.in_slices, own.out_slices, inferer.slice_step)
    inferer = copy.copy(inferer)
    inferer.in_slices, inferer.out_slices = own.in_slices, own.out_slices
    return network, inferer


def _channels(name: str, network: nn.Module, inferer: Inferer, classes: int) -> int | None:
    """How many channels of a slice a network takes; None where the inferer gives it no slice stacks.

    A network states neither count. It is tried with blank slices, a few of which cost nothing.
    """
    if not isinstance(inferer, TriAxisInferer):
        return None
    network.eval()
    for channels in range(1, _MOST_CHANNELS + 1):
        stack = torch.zeros(1, channels * inferer.in_slices, _PROBE, _PROBE)
        try:
            with torch.no_grad():
                logits = network(stack)
        except (RuntimeError, ValueError):
            continue
        expected = classes * inferer.out_slices
        if logits.shape[1] != expected:
            given = f"{classes} classes of {inferer.out_slices} slices"
            refuse(name, f"{given}, {expected} maps", logits.shape[1], "leave it out, or set its inferer")
        return channels
    got = "one that takes none of them"
    refuse(
        name, f"a network for stacks of {inferer.in_slices} slices", got, "leave it out, or set its inferer"
    )
