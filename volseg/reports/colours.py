"""The one table of class colours and names that pictures, animations and companion files share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from volseg.checks import check_positive

__all__ = ["CLASS_COLOURS", "UNLABELLED", "UNLABELLED_COLOUR", "class_colour", "name_classes"]

Colour = tuple[int, int, int]

CLASS_COLOURS: tuple[Colour, ...] = (
    *((230, 40, 40), (50, 190, 70), (40, 120, 230), (250, 210, 30)),
    *((240, 130, 40), (150, 60, 200), (60, 210, 220), (230, 60, 190)),
)
"""Colours of class 1, 2, ...; they begin anew after the last."""

UNLABELLED = 255
"""The label of voxels that nobody judged."""

UNLABELLED_COLOUR: Colour = (128, 128, 128)


def class_colour(label: int) -> Colour:
    """Colour of a label from 1 on; grey for 255, where nobody labelled.

    Example:
        >>> class_colour(2) == class_colour(10) == (50, 190, 70)
        True
    """
    return UNLABELLED_COLOUR if label == UNLABELLED else CLASS_COLOURS[(label - 1) % len(CLASS_COLOURS)]


def name_classes(
    classes: int, class_names: Sequence[str] | Mapping[int | str, str] | None = None
) -> dict[int, str]:
    """Names of all classes but the background, by label.

    Args:
        classes: channels of the network: 1, or as many as there are labels with the background.
        class_names: of label 1, 2, ... in this order, or by label; the others are "class 1" and so on. A name
            of label 0, the background, is left out.

    Raises:
        ValueError: for more names than classes, a label that is no class, or a single text.

    Example:
        >>> name_classes(4, {"2": "fluid"})
        {1: 'class 1', 2: 'fluid', 3: 'class 3'}
    """
    check_positive("classes", classes)
    labels = range(1, max(1, classes - 1) + 1)
    if isinstance(class_names, str):
        raise ValueError(f"class_names must be a list or a mapping, got {class_names!r}; put it in a list")
    named = class_names or {}
    if not isinstance(named, Mapping):
        named = dict(enumerate(named, start=1))
    known = {str(label): str(name) for label, name in named.items()}
    strange = known.keys() - {"0", *map(str, labels)}
    if strange:
        expected = f"labels 1 to {labels[-1]}, without the background"
        raise ValueError(f"class_names must name {expected}, got one for label {min(strange)}; check classes")
    return {label: known.get(str(label), f"class {label}") for label in labels}
