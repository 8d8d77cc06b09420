from __future__ import annotations

from dataclasses import replace

import cc3d
import numpy as np
import pytest
from PIL import Image

from volseg.checks import InputError
from volseg.data.phantoms import OctSettings, draw_oct_volume, write_oct_edema
from volseg.data.phantoms.oct_layers import LAYERS, PED, RPE, SRF, lay_surfaces
from volseg.data.phantoms.oct_lesions import OctLesions, place_lesions
from volseg.data.phantoms.oct_settings import OctField, seeded
from volseg.data.volume_reader import read_volume

SIZE = (53, 96, 11)
CERTAIN = {"edema_probability": 1.0, "srf_probability": 1.0, "ped_probability": 1.0}
HEALTHY = {"edema_probability": 0.0, "srf_probability": 0.0, "ped_probability": 0.0}
ILL = [draw_oct_volume(SIZE, seed=k, settings=replace(OctSettings.draw(k), **CERTAIN)) for k in range(12)]


def calm(**changes: object) -> OctSettings:
    """Settings without what hides the anatomy."""
    quiet = {"speckle": 0.1, "noise": 0.1, "spread": 0.0, "vessels": 0, "spots": 0, "flicker": 0.0}
    return replace(OctSettings(vignette=0.0, motion_um=0.0), **quiet, **changes)


@pytest.mark.parametrize("seed", [0, (4, 1)], ids=["number", "numbers"])
def test_the_same_seed_gives_the_same_bytes(seed):
    first, second = draw_oct_volume((21, 40, 5), seed=seed), draw_oct_volume((21, 40, 5), seed=seed)
    assert [part.tobytes() for part in first] == [part.tobytes() for part in second]


def test_another_seed_gives_another_eye():
    images = {draw_oct_volume((21, 40, 3), seed=seed)[0].tobytes() for seed in (0, 1, (0, 1), (1, 0))}
    assert len(images) == 4
    assert OctSettings.draw(0) != OctSettings.draw(1)


def test_global_random_state_is_left_as_found():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    draw_oct_volume((21, 40, 3), seed=0)
    assert np.random.random() == expected


@pytest.mark.parametrize("size", [(8, 32, 1), (83, 166, 5), (37, 301, 2)], ids=str)
def test_the_size_is_what_was_asked_for(size):
    image, label = draw_oct_volume(size, seed=2)
    assert image.shape == label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous


@pytest.mark.parametrize("size", [(7, 64, 9), (64, 31, 9), (64, 64, 0), (64, 64)], ids=str)
def test_a_size_that_is_too_small_is_refused(size):
    with pytest.raises(ValueError, match=r"size must be \(x, y, z\) of at least \(8, 32, 1\), got"):
        draw_oct_volume(size, seed=0)


def test_each_class_is_present_where_it_is_certain():
    held = np.array([[np.any(label == index) for index in range(4)] for _, label in ILL])
    assert held[:, 0].all()
    # a flat lesion may be thinner than a voxel of this coarse grid, or lie outside of it
    assert (held[:, 1:].mean(axis=0) > 0.8).all()
    assert max(label.max() for _, label in ILL) == 3


def test_a_healthy_eye_has_shadows_and_bright_spots_but_no_label():
    look = calm(**HEALTHY)
    plain = draw_oct_volume(SIZE, seed=1, settings=look)
    spotted = draw_oct_volume(SIZE, seed=1, settings=replace(look, vessels=9, spots=90, shadow=0.4))
    assert not plain[1].any()
    assert not spotted[1].any()
    difference = spotted[0].astype(int) - plain[0]
    assert (difference < -20).any()
    assert (difference > 20).any()


def test_shares_of_volumes_with_a_lesion_are_those_of_the_settings():
    look, field = OctSettings(), OctField((9, 32, 7), (6.0, 2.0, 6.0))
    drawn = [place_lesions(seeded(seed, 1), field, look) for seed in range(400)]
    held = np.array([[m.edema.any(), m.srf_um.any(), m.ped_um.any()] for m in drawn])
    edema = 0.7 + 0.3 * 0.5 * 0.9  # some come with the fluid alone
    # four standard errors of a share among 400
    assert np.abs(held.mean(axis=0) - (edema, 0.5, 0.4)).max() < 0.1
    assert 0.03 < (~held.any(axis=1)).mean() < 0.16
    assert held.all(axis=1).any()


def test_many_b_scans_of_ill_eyes_hold_no_lesion():
    empty = np.concatenate([~label.any(axis=(0, 1)) for _, label in ILL])
    assert 0.1 < empty.mean() < 0.8


def test_classes_follow_each_other_from_the_vitreous_to_the_choroid():
    for _, label in ILL:
        for column in np.moveaxis(label, 1, 2).reshape(-1, SIZE[1]):
            runs = column[np.flatnonzero(np.diff(column, prepend=0))]
            order = [index for index in runs.tolist() if index]
            # edema, fluid below it, edema again with the epithelium, detachment
            assert order in (
                [],
                [1],
                [2],
                [3],
                [1, 2],
                [1, 3],
                [2, 3],
                [1, 2, 1],
                [2, 1],
                [1, 2, 1, 3],
                [2, 1, 3],
            )


def test_fluid_lies_between_two_bright_layers_and_a_detachment_below_one():
    for seed in range(4):
        look = calm(**CERTAIN, edema_um=120.0, cysts_per_mm2=0.0, ped_level=0.05)
        image, label = draw_oct_volume((61, 200, 9), seed=seed, settings=look)
        for index, above in ((2, 3), (3, 2)):
            places = np.argwhere((label == index) & (np.roll(label, 1, axis=1) != index))
            inside = np.mean([image[x, y + 1, z] for x, y, z in places])
            over = np.mean([image[x, max(0, y - above), z] for x, y, z in places])
            assert over > inside + 30


def test_lesions_lift_what_is_above_them_and_nothing_below():
    field, look = OctField(SIZE, (6.0, 2.0, 6.0)), OctSettings(**CERTAIN)
    lesions = place_lesions(seeded(5, 1), field, look)
    flat = np.zeros_like(lesions.edema)
    healthy = lay_surfaces(seeded(5, 2), field, look, OctLesions(flat, flat, flat))
    ill = lay_surfaces(seeded(5, 2), field, look, lesions)
    assert np.array_equal(ill[LAYERS], healthy[LAYERS])
    lifted = (healthy - ill) * field.um_per_row
    tolerance_um = 0.1  # float32 sums of a few hundred micrometres
    np.testing.assert_allclose(lifted[PED], lesions.ped_um, atol=tolerance_um)
    np.testing.assert_allclose(lifted[SRF], lesions.ped_um + lesions.srf_um, atol=tolerance_um)
    assert lifted[0][lesions.edema_area].mean() > 50


@pytest.mark.parametrize("seed", range(4))
def test_surfaces_never_cross(seed):
    look = replace(OctSettings.draw(seed), **CERTAIN)
    field = OctField(SIZE, look.field_mm)
    lesions = place_lesions(seeded(seed, 1), field, look)
    thickness = np.diff(lay_surfaces(seeded(seed, 2), field, look, lesions), axis=0)
    assert thickness.min() > -1e-4
    assert thickness[[*range(SRF), RPE]].min() > 0


def test_lesions_reach_over_neighbouring_b_scans():
    for index in (1, 2, 3):
        lengths = []
        for _, label in ILL:
            seen = (label == index).any(axis=1)
            parts = cc3d.connected_components(seen[:, None], connectivity=26)
            for number in range(1, int(parts.max()) + 1):
                x, _, z = np.nonzero(parts == number)
                inner = z.min() > 0 and z.max() < SIZE[2] - 1
                if inner and len(x) > 6:
                    lengths.append(np.ptp(z) + 1)
        assert lengths
        assert min(lengths) >= 2
        assert np.median(lengths) >= 3


def test_every_look_shows_the_retina_above_the_vitreous():
    for seed in range(12):
        look = replace(OctSettings.draw(seed), edema_probability=1.0)
        image, label = draw_oct_volume(SIZE, seed=seed, settings=look)
        if (label == 1).sum() > 100:
            above = np.cumsum(label != 0, axis=1) == 0
            assert image[label == 1].mean() > image[above & (label.any(axis=1)[:, None])].mean() + 5


def test_margins_of_registered_volumes_are_blank_and_unlabelled():
    look = calm(registered=True, margin_grey=255, blank_columns=0.1, edema_probability=1.0)
    image, label = draw_oct_volume((41, 80, 23), seed=3, settings=replace(look, motion_um=250.0))
    blank_rows = (image == 255).all(axis=0)
    assert blank_rows[[0, -1]].any(axis=1).all()
    assert (image[:4] == 255).all() or (image[-4:] == 255).all()
    assert not label[image == 255].any()


def test_motion_moves_whole_b_scans():
    field, flat = OctField((21, 200, 31), (6.0, 2.0, 6.0)), np.zeros((21, 31), np.float32)
    still, moved = (
        lay_surfaces(seeded(1, 2), field, OctSettings(motion_um=motion), OctLesions(flat, flat, flat))
        for motion in (0.0, 25.0)
    )
    shift = (moved - still)[LAYERS]
    assert shift.std(axis=1).max() > 1.0
    assert np.ptp(shift, axis=0).max() < 1e-3


def test_written_volumes_are_read_back_by_the_front_door(tmp_path):
    write_oct_edema(tmp_path, 2, seed=7, size=(29, 40, 12))
    for number, case in enumerate(("phantom_000", "phantom_001")):
        image, label = draw_oct_volume((29, 40, 12), seed=(7, number))
        assert np.array_equal(read_volume(tmp_path / "original_images" / case)[0], image)
        greys = read_volume(tmp_path / "label_images" / case)[0]
        assert np.array_equal(greys, np.array([0, 255, 191, 128])[label])


def test_slices_are_grey_bmp_files_numbered_from_one(tmp_path):
    write_oct_edema(tmp_path, 1, seed=7, size=(29, 40, 3), name="eye")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    parts = ("label_images", "original_images")
    assert written == [f"{part}/eye_000/{k}.bmp" for part in parts for k in (1, 2, 3)]
    with Image.open(tmp_path / "original_images/eye_000/2.bmp") as picture:
        assert (picture.format, picture.mode, picture.size) == ("BMP", "L", (29, 40))


def test_a_volume_is_the_same_however_many_are_written(tmp_path):
    for name, count in (("a", 1), ("b", 2)):
        write_oct_edema(tmp_path / name, count, seed=(7, 1), size=(29, 40, 2))
    first, second = ((tmp_path / name / "original_images/phantom_000/2.bmp").read_bytes() for name in "ab")
    assert first == second


def test_slices_are_replaced_only_when_asked(tmp_path):
    write_oct_edema(tmp_path, 1, seed=1, size=(29, 40, 2))
    path = tmp_path / "original_images/phantom_000/1.bmp"
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"1\.bmp: expected a folder for generated volumes alone"):
        write_oct_edema(tmp_path, 1, seed=2, size=(29, 40, 2))
    assert path.read_bytes() == before
    write_oct_edema(tmp_path, 1, seed=2, size=(29, 40, 2), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    "foreign",
    ["original_images/patient", "label_images/phantom_000/3.bmp", "original_images/phantom_000/a.txt"],
)
def test_foreign_files_are_refused_before_anything_is_written(tmp_path, foreign):
    (tmp_path / foreign).mkdir(parents=True)
    with pytest.raises(InputError, match="expected a folder for generated volumes alone, got another file"):
        write_oct_edema(tmp_path, 1, seed=1, size=(29, 40, 2), overwrite=True)
    assert not list(tmp_path.rglob("*.bmp"))[1:]


def test_no_volume_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        write_oct_edema(tmp_path, 0, seed=1)
