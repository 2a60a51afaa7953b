"""What comes back from noise, against the flow of a Gaussian and the posterior of a mixture."""

import math
from types import SimpleNamespace

import pytest
import torch
from oracle import SDES, TOY, gaussian_model
from tiny import tiny_data, tiny_judge, tiny_model
from torch import Tensor

from msgm.data import ForgetRequest
from msgm.errors import UserError
from msgm.metrics.measures import GivenBack
from msgm.metrics.quantities import LEVELS
from msgm.metrics.renoise import evaluations, given_back, renoised
from msgm.metrics.subject import Subject
from msgm.model.space import Space
from msgm.process.sde import SDE, VESDE
from msgm.sampling import Ancestral, Heun, Streams


@pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
def test_a_gaussians_images_come_back_along_its_exact_flow(sde: SDE) -> None:
    """y - mean shrinks as sqrt(s^2 + r^2), so the image is mean + (y - mean) s / sqrt(s^2 + r^2)."""
    mean, std, level = 0.2, 0.5, 0.8
    model = gaussian_model(sde, (1, 3, 3), mean, std)
    images = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = renoised(Heun(model, steps=400), images, level, seed=3, batch=2)
    y = images + level * torch.cat([Streams(3, [i]).normal(images[i : i + 1]) for i in range(5)])
    low = float(sde.log_ratio(torch.tensor(sde.t_min, dtype=torch.float64)).exp())
    at_low = mean + (y - mean) * math.sqrt((std**2 + low**2) / (std**2 + level**2))
    expected = mean + (at_low - mean) * std**2 / (std**2 + low**2)  # the last step denoises
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert float((found - images).abs().max()) > 0.1


def test_the_share_that_comes_back_is_the_posteriors() -> None:
    """Drawn back by the SDE of the exact model, an image is a draw of the posterior given what the noise left of it."""
    sde, n, level = VESDE(), 1500, 1.5
    generator = torch.Generator().manual_seed(1)
    labels = torch.ones(n, dtype=torch.long)  # all from the middle mode
    images = torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def nearest(x: Tensor) -> Tensor:
        return torch.cdist(x, TOY.means).argmin(1)

    sampler = Ancestral(TOY.as_model(sde), steps=60, grid="log-snr")
    found = given_back(sampler, images, labels, SimpleNamespace(predict=nearest, space=Space()), levels=(0.05, level))  # type: ignore[arg-type]
    # The same by hand: noise, a component by its posterior, its Gaussian.
    hits, rounds = 0.0, 20
    t = sde.time(torch.tensor(math.log(level), dtype=torch.float64))
    for _ in range(rounds):
        x = images + level * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        k = torch.multinomial(TOY.component_posterior(x, sde, t), 1, generator=generator)[:, 0]
        mean = (TOY.means[k] * level**2 + x) / (1 + level**2)
        std = level / math.sqrt(1 + level**2)
        x0 = mean + std * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        hits += float((nearest(x0) == 1).double().mean()) / rounds
    assert found[level].n == n
    assert abs(found[level].value - hits) < 4.5 * math.sqrt(hits * (1 - hits) / n)
    # Little noise changes little, and what was not nearest its own mode still is not.
    own = float((nearest(images) == 1).double().mean())
    assert abs(found[0.05].value - own) < 0.02 and found[level].value < own - 0.1


def test_levels_that_a_process_does_not_reach_are_refused() -> None:
    model = gaussian_model(VESDE(), (1, 2, 2))
    for level in (0.001, 60.0, -1.0):
        with pytest.raises(UserError, match="noise level"):
            renoised(model, torch.zeros(1, 1, 2, 2, dtype=torch.float64), level)


def test_evaluations_are_those_of_the_network() -> None:
    model = gaussian_model(VESDE(), (1, 2, 2))
    judge = SimpleNamespace(predict=lambda x: torch.zeros(len(x), dtype=torch.long), space=model.space)
    x, labels = torch.zeros(3, 1, 2, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    renoised(model, x, 0.5, batch=3)
    before = model.network.images
    given_back(model, x, labels, judge, levels=(0.5, 2.0))  # type: ignore[arg-type]
    warm = model.network.images - before
    # To find out how many images fit, one image is evaluated for each level.
    assert warm == 3 * evaluations(model, (0.5, 2.0)) + 2


def test_the_measure_asks_the_judge_of_the_test_images_own_classes() -> None:
    """The untrained model gives nothing back that the judge does not see in it: the same numbers by hand."""
    request, test, judge = ForgetRequest("label == 1"), tiny_data(n=24, seed=3), tiny_judge()
    model = tiny_model()
    subject = Subject(
        name="a", sampler=Heun(model, steps=4), n=2, seed=0, judge=judge, forget={1}, request=request,
        retained=test.select(request.mask(test).logical_not()), forgotten=test.select(request.mask(test)),
        progress=False,
    )  # fmt: skip
    measure = GivenBack(images=5, seed=2)
    found = measure.measure(subject)
    assert tuple(found) == measure.names and len(found) == 6 and GivenBack(images=0, seed=0).names == ()
    images = subject.forgotten.select(slice(5))
    back = given_back(model, model.space.to_model(images.rows()), torch.ones(5, dtype=torch.long), judge, seed=2)
    assert [found[f"back r={level:g}"].value for level in LEVELS] == [rate.value for rate in back.values()]
    assert found["back r=0.5"].better == "lower" and found["kept r=1"].n == 5
