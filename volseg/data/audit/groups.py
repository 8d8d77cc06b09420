"""Groups of what belongs together: pictures that are or show the same, and pairs joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from volseg.checks import InputError
from volseg.data.audit.absolute_difference import SAME_DISTANCE, find_close_pairs
from volseg.data.audit.frames import FrameStore, read_grey
from volseg.data.audit.similarity import SAME_PICTURE, describe_picture, find_similar_pairs

__all__ = ["find_same_pictures", "group_pictures", "join_pairs"]


def group_pictures(paths: Sequence[str | Path], *, above: float = SAME_PICTURE) -> list[int]:
    """Find which pictures show the same under flips, turns by any angle and mild changes of intensity.

    Pictures of several sizes may be mixed. A picture without texture is alone.

    Args:
        paths: pictures, grey or colour.
        above: least correlation of two textures that counts, see `SAME_PICTURE`.

    Returns:
        for each picture the index of its group; groups are numbered in order of their first picture.

    Raises:
        InputError: naming the picture that cannot be read.
        ValueError: when `above` is no fraction.
    """
    pairs = find_similar_pairs([describe_picture(read_grey(path)) for path in paths], above=above)
    return join_pairs(len(paths), [(pair.first, pair.second) for pair in pairs])


def find_same_pictures(paths: Sequence[str | Path], *, below: int = SAME_DISTANCE) -> list[tuple[int, int]]:
    """Find every pair of pictures of one size and type that are the same as they lie, pixel by pixel.

    The search is exact and much faster than that of `group_pictures`, and finds no turned or brightened
    version. Pictures whose pixels are all equal, or of other types than 8 or 16 bit, are not compared.
    Decoded pictures lie in the system's temporary folder meanwhile.

    Args:
        paths: pictures, grey or colour.
        below: sum of absolute differences that is too large for the same picture.

    Returns:
        pairs of indices, the lower first.

    Raises:
        InputError: naming the picture that cannot be read.
        ValueError: when `below` is less than 1.
    """
    if len(paths) < 2:
        return []
    items = [{"image": str(path), "case": str(path), "group": str(path)} for path in paths]
    pairs: list[tuple[int, int]] = []
    with FrameStore(items) as store:
        if store.faults:
            raise InputError(store.faults[0])
        for indices, stack in store.measurable_stacks():
            found = find_close_pairs(stack, below=below)
            pairs += zip(indices[found.first].tolist(), indices[found.second].tolist(), strict=True)
    return sorted(pairs)


def join_pairs(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Number the groups that pairs make of `count` items, in order of their first item.

    Raises:
        ValueError: when a pair names an item that there is not.

    Example:
        >>> join_pairs(5, [(1, 3), (4, 3)])
        [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        if not (0 <= first < count and 0 <= second < count):
            raise ValueError(f"a pair must name items from 0 to {count - 1}, got ({first}, {second})")
        low, high = sorted((root(first), root(second)))
        parent[high] = low  # the lowest item is the root, so that numbering follows the order of the items
    number = {item: index for index, item in enumerate(sorted({root(item) for item in range(count)}))}
    return [number[root(item)] for item in range(count)]
