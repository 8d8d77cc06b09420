"""A small data set whose every fault is known."""

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from volseg.checks import InputError
from volseg.data.audit import FrameStore, audit_frames


def photograph(seed, shape=(64, 64)):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = sum(ndimage.gaussian_filter(noise, width) * width for width in (1.5, 4))
    return np.uint8(np.clip(128 + 45 * smooth / smooth.std(), 0, 255))


def disc(row, shape=(64, 64)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.uint8(255 * (np.hypot(rows - row, columns - 20) < 9))


class DataSet:
    """Writes pictures and masks, and lists them."""

    def __init__(self, folder):
        self.folder = folder
        self.items = []

    def add(self, name, pixels, mask=None, **more):
        item = {"case": name, "group": more.pop("group", name), **more}
        for key, array in (("image", pixels), ("label", mask)):
            if array is not None:
                path = self.folder / f"{name}_{key}.png"
                Image.fromarray(np.ascontiguousarray(array)).save(path)
                item[key] = str(path)
        self.items.append(item)
        return item

    def audit(self, **options):
        with FrameStore(self.items) as store:
            return audit_frames(store, **options)


@pytest.fixture
def data_set(tmp_path):
    return DataSet(tmp_path)


def names(pair):
    return pair.first, pair.second


def test_the_same_picture_with_another_mask_is_a_contradiction(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("b", photograph(0), disc(24))
    data_set.add("c", photograph(1), disc(24))
    findings = data_set.audit()
    (pair,) = findings.contradictions
    assert names(pair) == ("a", "b")
    assert pair.distance == 0
    overlap = ((disc(20) > 0) & (disc(24) > 0)).sum()
    assert pair.mask_dice == pytest.approx(2 * overlap / ((disc(20) > 0).sum() + (disc(24) > 0).sum()))
    assert not findings.is_clean


def volume_of(folder, numbers, part, seed=0):
    place = folder / part
    place.mkdir()
    for number in numbers:
        pixels = photograph(seed + number) if part == "images" else disc(number)
        Image.fromarray(pixels).save(place / f"{number:03}.png")
    return str(place)


@pytest.mark.parametrize(
    ("labels", "more", "labelled"),
    [
        ((10, 15, 18), {}, (0, 1, 2)),
        ((15,), {}, (1,)),
        ((11, 16, 19), {"label_offset": 1, "labelled_range": [2, 9]}, (1, 2)),
    ],
    ids=["all", "one", "offset and range"],
)
def test_slices_that_are_there_are_audited_with_the_labels_of_their_numbers(tmp_path, labels, more, labelled):
    item = {"case": "a", "group": "a", "image": volume_of(tmp_path, (10, 15, 18), "images")}
    item |= {"label": volume_of(tmp_path, labels, "labels"), **more}
    with FrameStore([item]) as store:
        assert (store.faults, [frame.name for frame in store.frames]) == ([], ["a[0]", "a[1]", "a[2]"])
        assert tuple(k for k, frame in enumerate(store.frames) if frame.has_mask) == labelled
        for k in labelled:
            number = (10, 15, 18)[k] + more.get("label_offset", 0)
            assert np.array_equal(store.pixels(k), photograph((10, 15, 18)[k]))
            assert np.array_equal(store.mask(k), disc(number) > 0)


def test_a_label_of_a_slice_that_is_not_there_is_a_fault(tmp_path):
    item = {"case": "a", "group": "a", "image": volume_of(tmp_path, (10, 15), "images")}
    other = {"case": "b", "group": "b", "image": item["image"]}
    with FrameStore([{**item, "label": volume_of(tmp_path, (11,), "labels")}, other]) as store:
        assert "expected an image slice 11" in store.faults[0]


def test_equal_masks_do_not_contradict(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("b", photograph(0), disc(20))
    findings = data_set.audit()
    assert findings.contradictions == []
    assert findings.is_clean
    assert findings.groups == {"a": "a", "b": "a"}


def test_masks_of_a_turned_picture_are_laid_onto_each_other_first(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("turned", np.rot90(photograph(0))[::-1], np.rot90(disc(20))[::-1])
    data_set.add("wrong", photograph(0)[:, ::-1], disc(20))
    findings = data_set.audit()
    assert {names(pair) for pair in findings.pairs} == {("a", "turned"), ("a", "wrong"), ("turned", "wrong")}
    assert all(pair.is_same and pair.distance == 0 for pair in findings.pairs)
    assert {names(pair) for pair in findings.contradictions} == {("a", "wrong"), ("turned", "wrong")}


def test_a_similar_picture_is_no_contradiction(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("brighter", np.uint8(photograph(0) * 0.7 + 60), disc(40))
    (pair,) = data_set.audit().pairs
    assert not pair.is_same
    assert pair.correlation > 0.9
    assert not pair.is_contradiction


def test_an_unlabelled_copy_does_not_contradict(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("b", photograph(0))
    (pair,) = data_set.audit().pairs
    assert pair.mask_dice is None
    assert not pair.is_contradiction


def test_one_empty_mask_of_two_contradicts_and_is_counted(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("b", photograph(0), 0 * disc(20))
    findings = data_set.audit()
    assert (findings.labelled, findings.empty_masks) == (2, 1)
    assert findings.contradictions[0].mask_dice == 0


def test_a_resolution_settles_its_pair(data_set):
    data_set.add("a", photograph(0), disc(20))
    data_set.add("b", photograph(0), disc(24))
    findings = data_set.audit(resolutions={frozenset(("a", "b")): "b"})
    assert [pair.keep for pair in findings.contradictions] == ["b"]
    assert findings.is_clean


def test_copies_on_both_sides_of_a_split_leak(data_set):
    data_set.add("a", photograph(0), side="fold 0")
    data_set.add("b", photograph(1), side="fold 1")
    data_set.add("a2", photograph(0)[::-1], side="test")
    findings = data_set.audit()
    (leak,) = findings.leaks
    assert leak.cases == ("a", "a2")
    assert leak.sides == ("fold 0", "test")
    assert findings.pairs[0].is_leak
    assert not findings.is_clean


def test_declared_groups_are_joined_where_they_share_a_picture(data_set):
    data_set.add("a1", photograph(0), group="patient a")
    data_set.add("a2", photograph(1), group="patient a")
    data_set.add("b1", photograph(1), group="patient b")
    data_set.add("b2", photograph(2), group="patient b")
    data_set.add("c", photograph(3), group="patient c")
    findings = data_set.audit()
    assert findings.groups == dict.fromkeys(("a1", "a2", "b1", "b2"), "patient a") | {"c": "patient c"}
    assert [group.declared_groups for group in findings.duplicates] == [("patient a", "patient b")]


def test_blank_frames_are_counted_and_not_compared(data_set):
    for name in "abc":
        data_set.add(name, np.full((64, 64), 3, np.uint8))
    data_set.add("d", photograph(0))
    findings = data_set.audit()
    assert findings.blank == ("a", "b", "c")
    assert findings.pairs == ()


def test_a_grey_picture_stored_as_colours_counts_each_pixel_once(data_set):
    data_set.add("a", np.repeat(photograph(0)[..., None], 3, axis=-1))
    changed = photograph(0)
    changed[5, 5] ^= 8
    data_set.add("b", changed)
    (pair,) = data_set.audit().pairs
    assert pair.distance == 8


def test_the_histogram_counts_every_pair_below_the_threshold(data_set):
    picture = photograph(0)
    for name, change in (("a", 0), ("b", 0), ("c", 5), ("d", 100)):
        changed = picture.astype(int)
        changed[0, :] += change * (np.arange(64) == 9)
        data_set.add(name, np.uint8(changed % 256))
    data_set.add("e", photograph(1))
    (histogram,) = data_set.audit().histograms
    assert (histogram.frames, histogram.pairs) == (5, 10)
    assert histogram.edges[:4] == (0, 1, 10, 100)
    assert histogram.found[:4] == (1, 2, 1, 2)
    assert sum(histogram.sampled) == 10
    assert histogram.sampled[:4] == histogram.found[:4]


def test_a_case_that_cannot_be_read_costs_one_case(data_set, tmp_path):
    data_set.add("a", photograph(0))
    data_set.add("b", photograph(0))
    broken = data_set.add("broken", photograph(1))
    (tmp_path / "broken_image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    findings = data_set.audit()
    assert len(findings.faults) == 1
    assert broken["image"] in findings.faults[0]
    assert len(findings.pairs) == 1
    assert not findings.is_clean


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    store = FrameStore([{"image": str(tmp_path / "a.png"), "case": "a", "group": "a"}])
    with pytest.raises(InputError, match="a picture that can be read"):
        store.__enter__()


def test_a_mask_of_another_size_is_a_fault(data_set):
    data_set.add("a", photograph(0), disc(20, (64, 60)))
    data_set.add("b", photograph(0))
    (fault,) = data_set.audit().faults
    assert "the size of its image, 64x64, got 64x60" in fault


def volume_file(path, array):
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return str(path)


def test_slices_of_volumes_are_compared_with_their_masks(tmp_path):
    first = np.stack([photograph(seed, (40, 50)).T for seed in (0, 1, 2)], axis=-1)
    second = np.stack([photograph(seed, (40, 50)).T for seed in (3, 1, 4, 3)], axis=-1)
    masks = np.zeros((50, 40, 2), np.uint8)
    masks[5:9, 5:9, 0] = 1
    items = [
        {"case": "v", "group": "v", "image": volume_file(tmp_path / "v.nii", first),
         "label": volume_file(tmp_path / "vl.nii", np.ones_like(first)), "side": "fold 0"},
        {"case": "w", "group": "w", "image": volume_file(tmp_path / "w.nii", second),
         "label": volume_file(tmp_path / "wl.nii", masks), "labelled_range": [1, 3], "side": "fold 1"},
    ]  # fmt: skip
    with FrameStore(items) as store:
        assert store.pixels(0).shape == (40, 50)
        findings = audit_frames(store)
    assert {names(pair) for pair in findings.pairs} == {("v[1]", "w[1]"), ("w[0]", "w[3]")}
    assert [names(pair) for pair in findings.contradictions] == [("v[1]", "w[1]")]
    assert (findings.labelled, findings.empty_masks) == (5, 1)
    assert findings.groups == {"v": "v", "w": "v"}
    assert len(findings.leaks) == 1


def test_neighbouring_slices_of_a_volume_are_not_called_similar(tmp_path):
    slow = np.stack([photograph(0) + np.uint8(step) for step in range(3)], axis=-1)
    path = volume_file(tmp_path / "v.nii", slow)
    with FrameStore([{"case": "v", "group": "v", "image": path}]) as store:
        assert audit_frames(store).pairs == ()


def test_floating_point_frames_are_compared_by_texture_only(tmp_path):
    volumes = [np.repeat(photograph(0).astype(np.float32)[..., None], 1, axis=-1) * k for k in (1, 1)]
    items = [
        {"case": name, "group": name, "image": volume_file(tmp_path / f"{name}.nii", volume)}
        for name, volume in zip("ab", volumes, strict=True)
    ]
    with FrameStore(items) as store:
        findings = audit_frames(store)
    assert findings.not_measured == 2
    (pair,) = findings.pairs
    assert pair.distance is None
    assert not pair.is_same


def test_temporary_files_are_gone_after_the_audit(data_set, tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    data_set.add("a", photograph(0))
    with FrameStore(data_set.items):
        assert len(list(place.iterdir())) == 1
    assert not list(place.iterdir())
