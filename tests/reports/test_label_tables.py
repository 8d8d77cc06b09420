"""What ITK-SNAP and 3D Slicer find in the files beside a label map."""

import re

from volseg.reports import class_colour, itk_snap_labels, slicer_colours

NAMES = {1: "kidney vessel", 2: 'the "other"', 11: "größe"}


def parsed_snap(text):
    """Read as ITK-SNAP does: comments left out, seven numbers, then what stands between quotes."""
    rows = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            numbers, name, rest = re.fullmatch(r'([\d\s]+)"([^"]*)"(.*)', line).groups()
            assert rest == ""
            label, *values = map(int, numbers.split())
            rows[label] = (*values, name)
    return rows


def test_the_label_description_reads_back_as_the_table():
    rows = parsed_snap(itk_snap_labels(NAMES))
    assert rows.pop(0) == (0, 0, 0, 0, 0, 0, "Clear Label")
    assert {label: row[:3] for label, row in rows.items()} == {label: class_colour(label) for label in NAMES}
    assert {row[3:6] for row in rows.values()} == {(1, 1, 1)}
    assert [row[6] for row in rows.values()] == ["kidney vessel", "the 'other'", "größe"]


def test_the_colour_table_reads_back_as_the_table():
    header, count, *lines = slicer_colours(NAMES).splitlines()
    assert header.startswith("# Color table file")
    assert count == f"# {len(lines)} values"
    rows = {int(label): (name, *map(int, colour)) for label, name, *colour in map(str.split, lines)}
    assert rows.pop(0) == ("Background", 0, 0, 0, 0)
    assert {label: row[1:] for label, row in rows.items()} == {
        label: (*class_colour(label), 255) for label in NAMES
    }
    assert rows[1][0] == "kidney_vessel"


def test_a_name_of_several_lines_stays_in_its_line():
    names = {1: "a\nb", 2: " "}
    assert list(parsed_snap(itk_snap_labels(names))) == [0, 1, 2]
    assert all(len(line.split()) == 6 for line in slicer_colours(names).splitlines()[2:])
