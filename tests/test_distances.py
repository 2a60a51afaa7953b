"""Distances and similarities against closed forms, brute force and, where it is installed, scikit-image."""

import math

import pytest
import torch
from torch import Tensor

from msgm.errors import UserError
from msgm.metrics.distances import bootstrap, frechet_distance, kernel_distance
from msgm.metrics.manifold import density_coverage, precision_recall
from msgm.metrics.similarity import ssim


def normal(n: int, features: int, seed: int, mean: float = 0.0) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_kernel_distance_by_hand() -> None:
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    # k(1, 2) = 27, k(0, -1) = 1; k(1, 0) = k(2, 0) = 1, k(1, -1) = 0, k(2, -1) = -1.
    assert kernel_distance(a, b) == pytest.approx(27 + 1 - 2 * (1 + 1 + 0 - 1) / 4)
    assert kernel_distance(b, a) == pytest.approx(kernel_distance(a, b))


def test_kernel_distance_has_no_bias() -> None:
    """Of two Gaussians in one dimension the kernel means are known."""
    found = torch.tensor([kernel_distance(normal(40, 1, 2 * k, 0.5), normal(30, 1, 2 * k + 1)) for k in range(400)])

    def moments(m: float) -> tuple[float, float, float]:
        return m, 1 + m**2, m**3 + 3 * m

    # E (xy + 1)^3 = E[x³]E[y³] + 3 E[x²]E[y²] + 3 E[x]E[y] + 1.
    def expected(m: float, n: float) -> float:
        (a1, a2, a3), (b1, b2, b3) = moments(m), moments(n)
        return a3 * b3 + 3 * a2 * b2 + 3 * a1 * b1 + 1

    exact = expected(0.5, 0.5) + expected(0, 0) - 2 * expected(0.5, 0)
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - exact) < 4 * error and error < 0.2 * exact


def test_the_bootstrap_covers_a_known_distance() -> None:
    # Of two unit Gaussians in one dimension the squared Fréchet distance is that of the means.
    inside = 0
    for k in range(60):
        value, low, high = bootstrap(
            frechet_distance, normal(80, 1, 2 * k, 1.0), normal(80, 1, 2 * k + 1), draws=60, seed=k
        )
        assert low <= value <= high
        inside += low <= 1.0 <= high
    assert inside >= 0.88 * 60
    with pytest.raises(UserError, match="2 or more draws"):
        bootstrap(frechet_distance, normal(5, 1, 0), normal(5, 1, 1), draws=1)


def balls(centres: Tensor, k: int) -> list[float]:
    return [sorted(float((c - other).norm()) for other in centres)[k] for c in centres]


def test_manifolds_against_their_definition() -> None:
    real, fake, k = normal(23, 3, 0), normal(31, 3, 1, 0.7), 2
    near = [[float((r - f).norm()) for f in fake] for r in real]
    around_real, around_fake = balls(real, k), balls(fake, k)
    precision = sum(any(near[i][j] <= around_real[i] for i in range(23)) for j in range(31)) / 31
    recall = sum(any(near[i][j] <= around_fake[j] for j in range(31)) for i in range(23)) / 23
    assert precision_recall(real, fake, k) == pytest.approx((precision, recall))
    density = sum(near[i][j] <= around_real[i] for i in range(23) for j in range(31)) / (k * 31)
    coverage = sum(any(near[i][j] <= around_real[i] for j in range(31)) for i in range(23)) / 23
    assert density_coverage(real, fake, k) == pytest.approx((density, coverage))


def test_manifolds_of_equal_and_of_far_sets() -> None:
    x = normal(1500, 2, 0)
    assert precision_recall(x, x) == (1, 1) and density_coverage(x, x)[1] == 1
    assert precision_recall(x, x + 100) == (0, 0) == density_coverage(x, x + 100)
    # Half of the data are missing: what there is looks right, and a part is not covered.
    precision, recall = precision_recall(x, x[x[:, 0] > 0])
    assert precision == 1 and 0.4 < recall < 0.7
    for bad in ((x[:3], x), (x, x[:, :1])):
        with pytest.raises(UserError):
            precision_recall(*bad)


def pictures(seed: int) -> Tensor:
    smooth = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(smooth, size=24, mode="bilinear")).round().to(torch.uint8)


def test_structural_similarity_of_constant_images_is_that_of_their_means() -> None:
    a, b = torch.full((1, 1, 12, 12), 100, dtype=torch.uint8), torch.full((1, 1, 12, 12), 140, dtype=torch.uint8)
    c1 = 2.55**2
    assert float(ssim(a, b)) == pytest.approx((2 * 100 * 140 + c1) / (100**2 + 140**2 + c1))
    assert ssim(pictures(0), pictures(0)).tolist() == pytest.approx([1, 1, 1])
    with pytest.raises(UserError, match="at least 11x11"):
        ssim(a[..., :8], b[..., :8])


def test_structural_similarity_at_one_place_by_hand() -> None:
    a, b = pictures(0)[:1, :1, :11, :11].double(), pictures(1)[:1, :1, :11, :11].double()
    line = torch.tensor([math.exp(-((k - 5) ** 2) / 4.5) for k in range(11)], dtype=torch.float64)
    w = torch.outer(line, line) / line.sum() ** 2
    x, y = a[0, 0], b[0, 0]
    mx, my = float((w * x).sum()), float((w * y).sum())
    vx, vy = float((w * (x - mx) ** 2).sum()), float((w * (y - my) ** 2).sum())
    cov = float((w * (x - mx) * (y - my)).sum())
    c1, c2 = 2.55**2, 7.65**2
    exact = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert float(ssim(a.to(torch.uint8), b.to(torch.uint8))) == pytest.approx(exact)


def test_structural_similarity_as_scikit_image_has_it() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    for a, b, ours in zip(pictures(0), pictures(1), ssim(pictures(0), pictures(1)), strict=True):
        _, whole = metrics.structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert float(ours) == pytest.approx(whole[:, 5:-5, 5:-5].mean(), rel=1e-6)
