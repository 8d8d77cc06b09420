"""Lines of text and squares of colour."""

import numpy as np

from volseg.reports.captions import LINE_HEIGHT, draw_caption, draw_legend


def test_a_caption_keeps_its_width_however_long_the_text():
    line = draw_caption(37, "a text that is far too long for it", ink=31)
    assert line.shape == (LINE_HEIGHT, 37)
    assert 0 < line.max() <= 31


def test_a_caption_in_colour_has_three_channels():
    line = draw_caption(50, "text", ink=(0, 200, 0))
    assert line.shape == (LINE_HEIGHT, 50, 3)
    assert line[..., 1].any()
    assert not line[..., [0, 2]].any()


def test_every_name_has_a_square_of_its_colour():
    legend = draw_legend(300, [("a", 7), ("b", 9)], ink=1)
    assert legend.shape == (LINE_HEIGHT, 300)
    assert [np.count_nonzero(legend == colour) for colour in (7, 9)] == [144, 144]


def test_names_that_do_not_fit_go_on_in_the_next_line():
    legend = draw_legend(60, [("first", 7), ("second", 9)], ink=1)
    assert legend.shape == (2 * LINE_HEIGHT, 60)
    assert (legend[:LINE_HEIGHT] == 7).any()
    assert (legend[LINE_HEIGHT:] == 9).any()


def test_a_legend_of_nothing_is_an_empty_line():
    assert not draw_legend(60, [], ink=1).any()
