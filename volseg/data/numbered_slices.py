"""Numbers in the names of slices: which slice of a label belongs to which slice of its image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["has_gaps", "labelled_numbers"]


def has_gaps(numbers: Sequence[int]) -> bool:
    """Tell whether a number is missing between the first and the last of rising ones.

    Example:
        >>> has_gaps([10, 11, 12]), has_gaps([10, 15])
        (False, True)
    """
    return any(following != number + 1 for number, following in pairwise(numbers))


def labelled_numbers(
    label_numbers: Sequence[int],
    *,
    offset: int = 0,
    labelled_range: Sequence[int] | None = None,
    first_number: int = 0,
) -> dict[int, int]:
    """Number in the image, for each slice of a label that counts, to its place in the label.

    Args:
        label_numbers: in order.
        offset: what they are above those of the image, as `label_offset` of a case item.
        labelled_range: first and end slice that count, from the image's first number on.
        first_number: of the image.

    Example:
        >>> labelled_numbers([11, 16, 21], offset=1, labelled_range=(5, 20), first_number=10)
        {15: 1, 20: 2}
    """
    first, end = (-float("inf"), float("inf")) if labelled_range is None else labelled_range
    places = {number - offset: place for place, number in enumerate(label_numbers)}
    return {number: place for number, place in places.items() if first <= number - first_number < end}
