"""A differentiable stand-in for surface Dice at tolerance 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.metrics.utils import get_code_to_measure_table
from torch import nn

from volseg.checks import check_positive
from volseg.losses.rows import IGNORE, masked_mean, target_rows

__all__ = ["SurfaceCubeLoss"]


class SurfaceCubeLoss(nn.Module):
    """One minus the expected surface Dice at tolerance 0 of a probability stack.

    Surface Dice looks at each cube of 2x2x2 voxels (of M >= 2 slices; square of 2x2 for one slice). The
    pattern of its voxels, one of 256 codes, has a surface area A(code), which is 0 for all in and all out.
    At tolerance 0 a cube counts as hit when truth and prediction both have a surface in it:

        SD = sum over cubes of [A(t) b(p) + A(p) b(t)] / sum over cubes of [A(t) + A(p)],   b = (A > 0)

    With independent voxels of probability p, a cube has code c with probability P(c), the product of p or
    1 - p over its voxels. A(p) and b(p) are replaced by their expectations

        E[A] = sum over c of P(c) A(c),      E[b] = 1 - product of p - product of (1 - p).

    For probabilities of 0 and 1 this is SD itself. P(c) factors into the lower and the upper face of a cube,
    16 codes each, so E[A] is lower @ table (16 x 16) @ upper: each slice is coded once. A picture that holds
    no surface at all counts as a match. Surfaces are not closed at the border of the picture. A surface has
    no inside: the inverse of the truth scores as well as the truth, so add a loss of regions.

    Args:
        spacing_mm: voxel size through the slices, along the rows' axis H, and along W.
        batch: take the score over the whole batch instead of item by item; steadier where most are empty.
        smooth: added to numerator and denominator, in units of area.
        ignore_index: label of voxels that do not count; a cube with such a voxel does not count.

    Raises:
        ValueError: when `spacing_mm` is not three positive numbers.

    Source: Nikolov et al., Clinically applicable segmentation, JMIR 2021 (surface Dice, area table as in
    MONAI); the expectation is derived above.

    Example:
        >>> labels = torch.zeros(1, 3, 8, 8)
        >>> labels[:, 1, 2:5, 2:6] = 1
        >>> loss = SurfaceCubeLoss()
        >>> f"{loss(labels * 200 - 100, labels):.3f} {loss(labels * 0 - 100, labels):.3f}"
        '0.000 1.000'
    """

    def __init__(
        self,
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        batch: bool = False,
        smooth: float = 1e-5,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__()
        check_positive("spacing_mm", spacing_mm)
        if len(spacing_mm) != 3:
            raise ValueError(f"spacing_mm needs three numbers (slices, H, W), got {len(spacing_mm)}")
        self.batch = batch
        self.smooth = smooth
        self.ignore_index = ignore_index
        self.cube_area: torch.Tensor
        self.square_length: torch.Tensor
        cube, _ = get_code_to_measure_table(tuple(spacing_mm))
        square, _ = get_code_to_measure_table(tuple(spacing_mm[1:]))
        self.register_buffer("cube_area", torch.as_tensor(cube).double().reshape(16, 16), persistent=False)
        self.register_buffer("square_length", torch.as_tensor(square).double(), persistent=False)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, K*M, H, W) logits and (B, M, H, W) labels in, a scalar out.

        Raises:
            ValueError: when the logits are not four-dimensional or a picture has no 2x2 square.
        """
        if logits.ndim != 4 or min(logits.shape[2:]) < 2:
            raise ValueError(
                "a surface loss needs logits (B, K*M, H, W) with H and W at least 2, "
                f"got {tuple(logits.shape)}"
            )
        rows = target_rows(logits, target, self.ignore_index)
        items, slices = target.shape[:2]
        first = 0 if rows.logits.shape[1] == 1 else 1
        probabilities = rows.probabilities()[:, first:].unflatten(0, (items, slices))
        truth = rows.truth()[:, first:].round().long().unflatten(0, (items, slices))
        valid = rows.valid.unsqueeze(1).unflatten(0, (items, slices))
        # Autocast would round areas to 8 bits.
        with torch.autocast(logits.device.type, enabled=False):
            area, border = self._expected(probabilities)
            true_area, true_border = self._exact(truth, area.dtype)
        kept = _all_of_cube(valid).expand_as(area)
        hit = _sum(kept, area * true_border + true_area * border)
        total = _sum(kept, area + true_area)
        counted = kept.flatten(3).any(3).any(1)
        if self.batch:
            hit, total, counted = hit.sum(0), total.sum(0), counted.any(0)
        return masked_mean(1 - (hit + self.smooth) / (total + self.smooth), counted)

    def _expected(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, K, H, W) to expected area and probability of a surface, (B, M', K, H', W') of each cube."""
        codes = _face_codes(probabilities)
        if codes.shape[1] == 1:
            return codes @ self.square_length.to(codes), 1 - codes[..., 0] - codes[..., 15]
        lower, upper = codes[:, :-1], codes[:, 1:]
        area = ((lower @ self.cube_area.to(codes)) * upper).sum(-1)
        return area, 1 - lower[..., 0] * upper[..., 0] - lower[..., 15] * upper[..., 15]

    def _exact(self, truth: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Integers (B, M, K, H, W) to the area in each cube and whether there is any, (B, M', K, H', W')."""
        rows = 2 * truth[..., :-1] + truth[..., 1:]
        codes = 4 * rows[..., :-1, :] + rows[..., 1:, :]
        table = self.square_length
        if codes.shape[1] > 1:
            codes = 16 * codes[:, :-1] + codes[:, 1:]
            table = self.cube_area.flatten()
        border = (codes > 0) & (codes < len(table) - 1)
        return table.to(dtype)[codes], border.to(dtype)


def _face_codes(probabilities: torch.Tensor) -> torch.Tensor:
    """(..., H, W) to the probability of each pattern of a 2x2 face, (..., H-1, W-1, 16).

    The bits of a code are those of MONAI's table:  8 4
                                                    2 1
    """
    corners = torch.stack([1 - probabilities, probabilities], dim=-1)
    upper = _joined(corners[..., :-1, :], corners[..., 1:, :])
    return _joined(upper[..., :-1, :, :], upper[..., 1:, :, :])


def _joined(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Probabilities of `high` and `low` codes to those of the code that has both."""
    return (high.unsqueeze(-1) * low.unsqueeze(-2)).flatten(-2)


def _all_of_cube(valid: torch.Tensor) -> torch.Tensor:
    whole = valid[..., :-1] & valid[..., 1:]
    whole = whole[..., :-1, :] & whole[..., 1:, :]
    return whole if whole.shape[1] == 1 else whole[:, :-1] & whole[:, 1:]


def _sum(kept: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(B, M, K, H, W) to (B, K)."""
    return torch.where(kept, values, torch.zeros_like(values)).sum(dim=(1, 3, 4))
