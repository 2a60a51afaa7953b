"""Combiners: their directions in closed form, and what each promises of the two losses."""

import math

import pytest
import torch
from torch import Tensor

from msgm.errors import UserError
from msgm.forgetting.combine import Adaptive, Bargain, Combiner, NormFixed, PCGrad, Turns, Weighted
from msgm.forgetting.methods import PARTS


def vector(seed: int, n: int = 12) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PAIRS = [(vector(k), 10.0 ** (k % 3 - 1) * vector(k + 100)) for k in range(12)]
"""Pairs of gradients of unlike length, in conflict and not."""


def unused(shift: Tensor) -> Tensor:
    raise AssertionError("no second look at the forget loss is needed")


def meet(combine: Combiner, r: Tensor, f: Tensor) -> Tensor:
    (direction,) = combine.direction([r, f], unused)
    return direction


def test_pairs_conflict_and_agree() -> None:
    signs = {bool(r @ f > 0) for r, f in PAIRS}
    assert signs == {True, False}


def test_erasediff_is_the_nearest_direction_that_forgets_enough() -> None:
    """The minimiser of |d - g_r|^2 subject to <d, g_f> >= eta |g_f|^2, by its conditions (KKT)."""
    for r, f in PAIRS:
        d, square = meet(Adaptive(eta=0.3), r, f), float(f @ f)
        slack = float(d @ f) - 0.3 * square
        assert slack > -1e-9 * square
        if float(r @ f) >= 0.3 * square:
            assert torch.equal(d, r)  # it forgets enough by itself
        else:
            assert slack == pytest.approx(0, abs=1e-9 * square)
            multiplier = float((d - r) @ f) / square
            torch.testing.assert_close(d, r + multiplier * f)
            assert multiplier > 0


def test_erasediffs_inner_steps_on_a_quadratic() -> None:
    """L_f = |A theta|^2 / 2 at theta: K descent steps leave (1 - rate A^T A)^K of it, in closed form."""
    a, theta, rate, k = vector(1, 16).view(4, 4), vector(2, 4), 0.05, 3
    square = a.T @ a
    shrink = torch.eye(4, dtype=torch.float64) - rate * square
    ahead = torch.linalg.matrix_power(shrink, k) @ theta
    gain = square @ (theta - ahead)
    r, asked = vector(3, 4), []

    def probe(shift: Tensor) -> Tensor:
        asked.append(shift)
        return square @ (theta + shift)

    (d,) = Adaptive(eta=0.5, inner=k, rate=rate).direction([r, square @ theta], probe)
    assert len(asked) == k
    torch.testing.assert_close(theta + asked[-1], ahead)
    torch.testing.assert_close(d, r + max(0.0, 0.5 - float(r @ gain) / float(gain @ gain)) * gain)


def test_bargain_is_nashs_solution() -> None:
    """d = G a with G^T G a = 1 / a, from the definition; both losses fall; lengths do not matter."""
    for r, f in PAIRS:
        d, g = meet(Bargain(), r, f), torch.stack([r, f], 1)
        a = torch.linalg.lstsq(g, d[:, None]).solution[:, 0]
        torch.testing.assert_close(g @ a, d)
        torch.testing.assert_close(g.T @ g @ a, 1 / a)
        assert float(d @ r) > 0 and float(d @ f) > 0
        assert float(d.norm()) == pytest.approx(math.sqrt(2))
        torch.testing.assert_close(meet(Bargain(), 7 * r, f / 9), d)


def test_pcgrad_takes_conflict_out_and_nothing_else() -> None:
    for r, f in PAIRS:
        d, a, b = meet(PCGrad(alpha=0.3), r, f), 0.3 * r, 0.7 * f
        if float(r @ f) >= 0:
            torch.testing.assert_close(d, a + b)
        else:
            torch.testing.assert_close(d, a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a)
            # Each loses just what was along the other: neither loss rises.
            assert float(d @ r) > -1e-12 and float(d @ f) > -1e-12


def test_the_forget_gradients_length_is_fixed() -> None:
    for r, f in PAIRS:
        d = meet(NormFixed(share=0.1), r, f) - r
        assert float(d.norm() / r.norm()) == pytest.approx(0.1)
        assert float(d @ f / (d.norm() * f.norm())) == pytest.approx(1)


@pytest.mark.parametrize("combine", [Adaptive(), NormFixed(), Bargain(), PCGrad()], ids=lambda c: type(c).__name__)
def test_gradients_that_vanish_or_oppose_give_finite_directions(combine: Combiner) -> None:
    zero, r = torch.zeros(12), vector(0).float()
    for a, b in ((r, zero), (zero, r), (zero, zero), (r, -r), (r, r)):
        assert bool(meet(combine, a, b).isfinite().all())


@pytest.mark.parametrize("name", PARTS["combine"])
def test_which_losses_are_differentiated(name: str) -> None:
    """A weighted sum and turns cost one backward pass, what looks at both gradients two; alone, the retain loss."""
    combine = PARTS["combine"][name](every=3)
    assert [k for k in range(7) if combine.due(k)] == [0, 3, 6]
    retain, forget = torch.tensor(2.0), torch.tensor(-3.0)
    both = [v.item() for v in combine.parts(retain, forget)]
    expected = {"weighted": [0.7 * 2 - 0.3 * 3], "turns": [-3.0]}.get(name, [2.0, -3.0])
    assert both == pytest.approx(expected)
    (alone,) = combine.parts(retain, None)
    assert alone.item() == pytest.approx(1.4 if name == "weighted" else 2.0)
    assert combine.direction([vector(1)], unused)[0].equal(vector(1))


def test_separate_optimisers_get_their_own_gradients() -> None:
    given = [vector(1), vector(2)]
    assert Weighted(separate=True).direction(given, unused) == given


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: Turns(every=0), "every"),
        (lambda: Adaptive(eta=0.0), "eta"),
        (lambda: Adaptive(inner=-1), "inner"),
        (lambda: NormFixed(share=-0.1), "share"),
        (lambda: PCGrad(alpha=1.0), "alpha"),
    ],
)
def test_settings_out_of_range(made, name: str) -> None:
    with pytest.raises(UserError, match=name):
        made()
