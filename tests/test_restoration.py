"""What is said of edited images: numbers that can be worked out by hand, and a picture that holds its images."""

import math

import pytest
import torch
from torch import Tensor

from msgm.data import ForgetRequest, Images
from msgm.errors import UserError
from msgm.metrics.judge import JUNK, UNKNOWN, Judge
from msgm.metrics.restoration import check_judge, restored
from msgm.metrics.similarity import psnr
from msgm.report.comparison import comparison

RULE = ForgetRequest("label == 2")


class Reader(Judge):
    """A judge of classes 0, 1 and 2 that reads its verdict from the first pixel; more is junk."""

    def __init__(self) -> None:
        super().__init__(range(3), (1, 8, 8), width=2)

    def predict(self, x: Tensor, batch: int = 500) -> Tensor:
        value = x[:, 0, 0, 0].long()
        return torch.where(value < 3, value, JUNK)


def marked(first: list[int]) -> Tensor:
    images = torch.zeros(len(first), 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(first, dtype=torch.uint8)
    return images


def test_psnr_is_that_of_the_mean_square_in_the_region() -> None:
    before = torch.full((3, 2, 4, 4), 100, dtype=torch.uint8)
    after = before.clone()
    after[0] += 5
    after[1, :, :2] -= 10
    assert psnr(before, after).tolist() == pytest.approx(
        [20 * math.log10(255 / 5), 10 * math.log10(255**2 / 50), math.inf]
    )
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[:2] = True
    assert psnr(before, after, region).tolist() == pytest.approx(
        [20 * math.log10(255 / 5), 20 * math.log10(255 / 10), math.inf]
    )


def test_classes_are_compared_by_their_names() -> None:
    judge = Reader()
    judge.names = ("ant", "bee", "cat")
    labels = {"label": torch.tensor([0, 1, 2, 3])}
    before = Images.of(marked([2, 0, 1, 9]), columns=labels, name="a", label_names=("cat", "ant", "bee", "fly"))
    assert judge.labels(before).tolist() == [2, 0, 1, UNKNOWN]
    found = restored(before, marked([2, 0, 1, 2]), judge=judge)
    assert found.accuracy is not None and found.accuracy_before is not None
    assert (found.accuracy.value, found.accuracy_before.value) == (0.75, 0.75)
    check_judge(judge, before, ForgetRequest("label == 'ant'"))
    with pytest.raises(UserError, match="write the rule with names"):
        check_judge(judge, before, ForgetRequest("label == 1"))
    # Where one of the two has no names for them, or the judge two of one, the numbers are all there is.
    for names in ((), ("emu", "fox", "gnu", "hen")):
        bare = Images.of(marked([0, 1, 2, 2]), columns=labels, name="a", label_names=names)
        assert torch.equal(judge.labels(bare), labels["label"])
    judge.names = ("cat", "cat", "bee")
    assert torch.equal(judge.labels(before), labels["label"])


def test_the_judges_word_is_held_against_the_labels() -> None:
    before = Images.of(marked([0, 1, 2, 2]), columns={"label": torch.tensor([0, 1, 2, 1])}, name="marked")
    found = restored(before, marked([0, 2, 9, 1]), judge=Reader(), request=RULE)
    assert found.images == 4
    assert found.accuracy is not None
    assert found.accuracy_before is not None
    assert found.shares is not None
    assert (found.accuracy.value, found.accuracy.n, found.accuracy_before.value) == (0.5, 4, 0.75)
    assert (found.shares.value, found.shares.junk.value, found.shares.retained.value) == (0.25, 0.25, 0.5)
    written = found.to_dict()
    assert written["unlearning_ratio"]["value"] == 0.25
    assert written["accuracy"] == {"value": 0.5, "low": found.accuracy.low, "high": found.accuracy.high, "n": 4}
    assert "UR 25.0%" in str(found)


def test_without_labels_its_word_on_the_originals_is_the_reference() -> None:
    before = Images.of(marked([0, 1, 2, 9]), name="unlabelled")
    found = restored(before, marked([0, 2, 2, 9]), judge=Reader())
    assert found.accuracy is not None
    assert found.accuracy.value == 0.75
    assert found.accuracy_before is None
    assert found.shares is None
    assert "UR" not in str(found)


def test_without_a_judge_there_is_the_error_alone() -> None:
    before = Images.of(marked([0, 10]), name="marked")
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[0, 0] = True
    found = restored(before, marked([1, 20]), region=region)
    each = [20 * math.log10(255), 20 * math.log10(25.5)]
    assert found.psnr == pytest.approx(sum(each) / 2)
    assert found.psnr_stderr == pytest.approx(abs(each[0] - each[1]) / 2)
    assert found.accuracy is None
    assert restored(before.select(slice(1)), marked([1])).psnr_stderr is None


def test_a_judge_of_something_else_is_refused() -> None:
    images = Images.of(marked([0, 1]), columns={"label": torch.tensor([0, 1])}, name="marked")
    check_judge(Reader(), images, RULE)
    with pytest.raises(UserError, match="none or all"):
        check_judge(Reader(), images, ForgetRequest("label < 9"))
    with pytest.raises(UserError, match="colour"):
        check_judge(Reader(), images, ForgetRequest("colour == 1"))
    wide = Images.of(torch.zeros(1, 1, 9, 9, dtype=torch.uint8), name="wide")
    with pytest.raises(UserError, match=r"\(1, 9, 9\)"):
        check_judge(Reader(), wide, None)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_comparison_shows_every_image_beside_its_others(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = (
        torch.randint(0, 256, (5, channels, 28, 28), generator=generator, dtype=torch.uint8) for _ in range(2)
    )
    picture = comparison({"retain": {"before": before, "after": after}, "": {"before": after}}, rows=3)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    size, line = 2 * 28, 28
    assert picture.size == (2 * (2 * size + 2) + 2 * size + 3 * 14, line + 3 * size + 4)
    block = 2 * size + 2 + 14
    for left, top, image in [
        (0, 0, before[0]),
        (size + 2, 2 * (size + 2), after[2]),
        (block, size + 2, before[4]),
        (block + size + 2, 0, after[3]),
        (2 * block, 0, after[0]),
        (2 * block + size + 14, size + 2, after[4]),
    ]:
        crop = picture.crop((left, line + top, left + size, line + top + size)).resize((28, 28), 0)
        shown = torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8).view(28, 28, channels).permute(2, 0, 1)
        assert torch.equal(shown, image), (left, top)
    heading = picture.crop((0, 0, size, line))
    assert min(heading.convert("L").tobytes()) < 100  # something is written there
