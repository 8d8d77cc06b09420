"""Slices that are scored where a truth labels some of them: matched by number, never by guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from volseg.checks import InputError, refuse
from volseg.data.numbered_slices import has_gaps, labelled_numbers
from volseg.data.slice_folder import list_slices
from volseg.reports.score_files import MaskPair

__all__ = ["ScoredSlices", "scored_slices"]


@dataclass(frozen=True)
class ScoredSlices:
    """The slices of a numbered truth that are scored.

    Attributes:
        numbers: in the image, rising.
        places: of these slices in the truth.
        image_numbers: of all slices of the image, which a prediction has too; None where they are unknown.
    """

    numbers: tuple[int, ...]
    places: tuple[int, ...]
    image_numbers: tuple[int, ...] | None = None

    @property
    def are_neighbours(self) -> bool:
        """Whether no slice lies between two scored ones."""
        return all(following == number + 1 for number, following in pairwise(self.numbers))

    def places_in(self, path: Path, depth: int, truth: Path) -> list[int] | None:
        """Places of the scored slices in another volume of the case; None where it holds just these.

        Args:
            path: of the volume; the names in a folder tell its numbers.
            depth: its slices.
            truth: for messages.

        Raises:
            InputError: when a scored slice is not in it, or nothing tells the numbers of its slices.
        """
        own: Sequence[int] | None = _folder_numbers(path)
        if own is None and depth == len(self.numbers):
            return None
        if own is None or len(own) != depth:
            own = self._numbers_of_image(path, depth, truth)
        if depth == len(self.numbers) and not has_gaps(own) and not has_gaps(self.numbers):
            return None  # two whole stacks may count from different numbers
        lost = next((number for number in self.numbers if number not in own), None)
        if lost is not None:
            remedy = "name the slices of both after their numbers in the image"
            refuse(path, f"slice {lost}, which {truth} labels", f"{depth} slices without it", remedy)
        places = [own.index(number) for number in self.numbers]
        return None if places == list(range(depth)) else places

    def _numbers_of_image(self, path: Path, depth: int, truth: Path) -> Sequence[int]:
        count = len(self.numbers)
        if self.image_numbers is None:
            expected = f"{count} slices as {truth}, or slices whose numbers are known"
            remedy = "give a prepared folder as truth, whose images tell which slices are labelled"
            refuse(path, expected, f"{depth}", remedy)
        if len(self.image_numbers) != depth:
            expected = f"{len(self.image_numbers)} slices as the image, or the {count} of {truth}"
            refuse(path, expected, f"{depth}", "predict on the grid of the image")
        return self.image_numbers


def scored_slices(pair: MaskPair, numbers: Sequence[int] | None) -> ScoredSlices | None:
    """Find which slices of a truth are scored; None where no numbers tell.

    A labelled range of slices without gaps is left to the caller, who cuts it by place.

    Args:
        pair: the case.
        numbers: of the truth's slices.

    Raises:
        InputError: when the range needs the numbers of an image that is not there, or no slice lies in it.
    """
    if numbers is None or not pair.truth.is_dir():
        return None
    image = None if pair.image is None else _folder_numbers(pair.image)
    if pair.labelled_range is None:
        found = labelled_numbers(numbers, offset=pair.label_offset)
    elif has_gaps(numbers) or has_gaps(image or ()):
        if image is None:
            refuse(pair.truth, "the image, to count its labelled range", "none", f"restore {pair.image}")
        found = labelled_numbers(
            numbers, offset=pair.label_offset, labelled_range=pair.labelled_range, first_number=image[0]
        )
    else:
        return None
    if not found:
        refuse(pair.truth, f"labels in slices {pair.labelled_range}", "none", "correct the datalist")
    return ScoredSlices(tuple(found), tuple(found.values()), None if image is None else tuple(image))


def _folder_numbers(path: Path) -> list[int] | None:
    """Numbers in the names of a folder's slices; None for a file and for whatever else a folder holds."""
    if not path.is_dir():
        return None
    try:
        return list_slices(path, "keep")[1]
    except InputError:
        return None  # a DICOM series; what is wrong with a mask, its reader says
