"""What every loss of voxels must do; a test class inherits it and says how to build one."""

import pytest
import torch

SURE = 50.0


def logits_of(labels, classes, *, wrong=False):
    """Logits (B, K*M, H, W) that are sure of these labels, or of the opposite."""
    if classes == 1:
        sign = torch.where(labels == 1, SURE, -SURE)
        return -sign if wrong else sign
    chosen = (labels.long() + 1) % classes if wrong else labels.long()
    one_hot = torch.nn.functional.one_hot(chosen, classes).permute(0, 4, 1, 2, 3).flatten(1, 2)
    return one_hot.double() * SURE


class LossContract:
    """Inherit and override `build`."""

    slices = 3

    def build(self):
        raise NotImplementedError

    def wrong_logits(self, labels, classes):
        return logits_of(labels, classes, wrong=True)

    @pytest.fixture(params=[1, 4], ids=["sigmoid", "softmax"])
    def classes(self, request):
        return request.param

    def labels(self, classes, seed=0):
        """Blobs of each class on background, (2, M, 9, 7)."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.zeros(2, self.slices, 9, 7, dtype=torch.uint8)
        for item in range(2):
            for index in range(1, max(classes, 2)):
                row, column = (int(torch.randint(0, high, (1,), generator=generator)) for high in (6, 4))
                labels[item, :, row : row + 3, column : column + 3] = index
        return labels

    def logits(self, classes, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(2, classes * self.slices, 9, 7, dtype=torch.float64, generator=generator)

    def value_and_gradient(self, logits, labels):
        logits = logits.clone().requires_grad_()
        loss = self.build()(logits, labels)
        loss.backward()
        return loss.detach(), logits.grad

    def test_right_is_nearly_zero_and_wrong_is_more_both_with_finite_gradients(self, classes):
        labels = self.labels(classes)
        right, right_slope = self.value_and_gradient(logits_of(labels, classes), labels)
        wrong, wrong_slope = self.value_and_gradient(self.wrong_logits(labels, classes), labels)
        assert 0 <= right < 1e-3
        assert wrong > right + 0.1
        assert torch.isfinite(wrong)
        assert torch.isfinite(right_slope).all()
        assert torch.isfinite(wrong_slope).all()

    @pytest.mark.parametrize("sure", [1e4, -1e4], ids=["all on", "all off"])
    @pytest.mark.parametrize("value", [0, 1], ids=["empty", "full"])
    def test_empty_and_full_truth_have_finite_value_and_gradient(self, classes, value, sure):
        labels = torch.full((2, self.slices, 9, 7), value, dtype=torch.uint8)
        logits = torch.zeros(2, classes * self.slices, 9, 7)
        logits[:, -self.slices :] = sure
        for each in (logits, torch.zeros_like(logits)):
            loss, slope = self.value_and_gradient(each, labels)
            assert torch.isfinite(loss)
            assert torch.isfinite(slope).all()

    def test_all_ignored_is_zero_with_zero_gradient(self, classes):
        labels = torch.full((2, self.slices, 9, 7), 255, dtype=torch.uint8)
        loss, slope = self.value_and_gradient(self.logits(classes), labels)
        assert loss == 0
        assert torch.equal(slope, torch.zeros_like(slope))

    def test_ignored_voxels_change_neither_value_nor_gradient(self, classes):
        labels, logits = self.labels(classes), self.logits(classes)
        labels[0, :, 5:] = 255
        labels[1, 0] = 255
        other = logits.clone().unflatten(1, (classes, self.slices))
        other = torch.where((labels == 255).unsqueeze(1), other * -3 + 1, other).flatten(1, 2)
        (value, slope), (other_value, other_slope) = (
            self.value_and_gradient(each, labels) for each in (logits, other)
        )
        torch.testing.assert_close(value, other_value)
        torch.testing.assert_close(slope, other_slope)
        ignored = (labels == 255).unsqueeze(1).expand(-1, classes, -1, -1, -1).flatten(1, 2)
        assert (slope[ignored] == 0).all()
        assert (slope != 0).any()

    def test_an_ignored_item_is_as_if_it_were_not_there(self, classes):
        labels, logits = self.labels(classes), self.logits(classes)
        labels[1] = 255
        torch.testing.assert_close(self.build()(logits, labels), self.build()(logits[:1], labels[:1]))

    def test_the_order_of_items_does_not_matter(self, classes):
        labels, logits = self.labels(classes), self.logits(classes)
        labels[0, :, 5:] = 255
        torch.testing.assert_close(self.build()(logits, labels), self.build()(logits.flip(0), labels.flip(0)))

    def test_flipping_pictures_does_not_matter(self, classes):
        labels, logits = self.labels(classes), self.logits(classes)
        torch.testing.assert_close(
            self.build()(logits, labels), self.build()(logits.flip(-1, -2), labels.flip(-1, -2))
        )

    def test_the_gradient_is_that_of_the_value(self, classes):
        labels = self.labels(classes)[:, :, :5, :4]
        labels[0, :, 0] = 255
        logits = self.logits(classes)[:, :, :5, :4].requires_grad_()
        assert torch.autograd.gradcheck(lambda each: self.build()(each, labels), (logits,), fast_mode=True)

    @pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
    def test_bfloat16_logits_give_what_their_float32_values_give(self, classes, autocast):
        labels, logits = self.labels(classes), self.logits(classes).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss, slope = self.value_and_gradient(logits, labels)
        assert loss.dtype == torch.float32
        assert slope.dtype == torch.bfloat16
        torch.testing.assert_close(loss, self.build()(logits.float(), labels), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32], ids=str)
    def test_the_type_of_the_labels_does_not_matter(self, classes, dtype):
        labels, logits = self.labels(classes), self.logits(classes)
        labels[0, :, 0] = 255
        assert torch.equal(self.build()(logits, labels.to(dtype)), self.build()(logits, labels))

    @pytest.mark.parametrize("value", [-1.0, 1.5, 128.0, torch.nan], ids=str)
    def test_impossible_labels_are_refused(self, value):
        labels = torch.zeros(2, self.slices, 9, 7)
        labels[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=r"labels must be values in \[0, 1\] or 255 \(ignored\), got"):
            self.build()(self.logits(1), labels)

    def test_a_class_too_many_is_refused(self):
        labels = torch.full((2, self.slices, 9, 7), 4, dtype=torch.uint8)
        with pytest.raises(ValueError, match="labels must be class indices 0 to 3 or 255"):
            self.build()(self.logits(4), labels)

    def test_shapes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match=r"labels \(B, M, H, W\), got \(2, 3, 9, 7\) and \(2, 2, 9, 7\)"):
            self.build()(torch.zeros(2, 3, 9, 7), torch.zeros(2, 2, 9, 7))
