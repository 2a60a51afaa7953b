"""Few images, and images that are nearly alike: what is done about them, and what is said."""

import pytest
import torch
from tiny import quiet, tiny_data, tiny_model, tiny_split

from msgm.data import ForgetRequest, Images, IndexRequest
from msgm.data.near import CLOSE, near, nearest, thumbnails
from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.training.few import FORGET, RETAIN, fitting, said
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings


def test_one_image_is_forgotten_seldom() -> None:
    split = IndexRequest((3,)).split(tiny_data())
    settings = UnlearnSettings(steps=100, batch=40)
    method, few = fitting(methods.orthogonal(every=1), settings, split)
    assert few == {"few": {"forget": 1, "draws": 4000, "every": 4}} and method.combine.every == 4
    assert sum(method.combine.due(step) for step in range(100)) * 40 <= FORGET
    assert said(few["few"]).startswith("1 image to forget: the forget loss is due on every 4th step only")
    # Five images are drawn a fifth as often, and a recipe that is already as seldom stays as it is.
    five = IndexRequest((1, 3, 5, 7, 9)).split(tiny_data())
    assert fitting(methods.orthogonal(every=1), settings, five) == (methods.orthogonal(every=1), {})
    assert fitting(methods.orthogonal(every=4), settings, split) == (methods.orthogonal(every=4), {})
    assert fitting(methods.unseen(), settings, split) == (methods.unseen(), {})


def test_the_record_says_it() -> None:
    child = unlearn(
        tiny_model(), IndexRequest((3,)).split(tiny_data()), method=methods.orthogonal(every=1),
        settings=UnlearnSettings(steps=3, batch=1000), run=quiet(),
    )  # fmt: skip
    assert child.record["few"] == {"forget": 1, "draws": 3000, "every": 3}
    assert child.record["method"]["combine"]["every"] == 3


def test_few_retained_images_are_refused_with_what_is_needed() -> None:
    ten = ForgetRequest("kept == 0").split(_with_kept(10))
    with pytest.raises(
        UserError, match=r"^10 images to retain would be drawn 1920 times each, .* Give at least 96, or"
    ):
        fitting(methods.unseen(), UnlearnSettings(), ten)
    with pytest.raises(UserError, match=r"take at most 31 steps of 64$"):
        fitting(methods.unseen(), UnlearnSettings(), ten)
    one = ForgetRequest("kept == 0").split(_with_kept(1))
    with pytest.raises(UserError, match=r"^1 image to retain would be drawn 19200 times each, .* Give at least 96, or"):
        unlearn(tiny_model(), one, settings=UnlearnSettings(), run=quiet())
    # At the limit it is allowed.
    settings = UnlearnSettings(steps=31, batch=64)
    assert RETAIN * 10 >= 31 * 64 and fitting(methods.unseen(), settings, ten)[0] == methods.unseen()


def _with_kept(count: int) -> Images:
    images = tiny_data()
    return Images.of(images.rows(), columns={"kept": (torch.arange(len(images)) < count).long()}, name="halves")


def test_near_duplicates_are_found() -> None:
    """Against all pairs, one by one; a copy with little noise is near, another image is not."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 16, 12), generator=generator, dtype=torch.uint8)
    pixels[40:50] = (
        (pixels[:10].int() + torch.randint(-6, 7, (10, 3, 16, 12), generator=generator)).clamp(0, 255).byte()
    )
    pixels[50] = pixels[3]
    images = Images.of(pixels, columns={"label": (torch.arange(60) < 10).long()}, name="x")
    split = ForgetRequest("label == 1").split(images)
    found = near(split.retain, split.forget)
    small = thumbnails(images)
    by_hand = torch.nn.functional.adaptive_avg_pool2d(pixels.double().mean(1), 8).flatten(1)
    torch.testing.assert_close(small.double(), by_hand, rtol=0, atol=1 / 16)
    gaps = (by_hand[10:, None] - by_hand[None, :10]).square().mean(2).sqrt()
    assert torch.equal(found, gaps.min(1).values <= CLOSE)
    assert found.nonzero().flatten().tolist() == list(range(30, 41))
    distance, row = nearest(small[10:], small[:10])
    assert torch.equal(row, gaps.argmin(1))
    torch.testing.assert_close(distance.double(), gaps.min(1).values, rtol=1e-4, atol=0.1)
    assert (split.duplicates, split.near_duplicates) == (1, 10)
    assert split.to_dict()["near_duplicates"] == 10
    assert "10 of the retained images look nearly like one to forget" in split.notes[1]


def test_vectors_and_tiny_images_have_no_thumbnails() -> None:
    assert not near(tiny_split(size=4).retain, tiny_split(size=4).forget).any()
    points = Images.of(torch.zeros(6, 2), columns={"label": torch.arange(6) % 2}, name="points")
    assert ForgetRequest("label == 1").split(points).near_duplicates == 0
