"""The judge on small synthetic images: four patterns that a tiny network learns in seconds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from msgm.data import Images
from msgm.errors import UserError
from msgm.metrics.judge import JUNK, Judge
from msgm.metrics.judge_training import JudgeSettings, _order, train_judge
from msgm.metrics.junk import KINDS, JunkMaker
from msgm.model.space import Space

CLASSES = (0, 2, 5, 9)


def patterns(n: int, seed: int, channels: int = 1) -> Images:
    """A bright bar that lies, stands, or follows one of the diagonals of 12x12, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    lines = torch.stack([rows - 6, columns - 6, rows - columns, rows + columns - 11])
    kind = torch.randint(4, (n,), generator=g)
    shift = torch.randint(-2, 3, (n, 1, 1), generator=g)
    bars = 255.0 * ((lines[kind] - shift).abs() <= 1)
    noisy = bars + 20 * torch.rand(n, 12, 12, generator=g)
    images = noisy.clamp(0, 255).to(torch.uint8)[:, None].expand(-1, channels, -1, -1).contiguous()
    return Images.of(
        images,
        columns={"label": torch.tensor(CLASSES)[kind], "stands": (kind == 1).long()},
        name="patterns",
        label_names=tuple("abcdefghij"),
    )


SETTINGS = JudgeSettings(epochs=8, batch=32, width=8, seed=3)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(patterns(512, 0), patterns(300, 1), SETTINGS, progress=False)


@pytest.fixture(scope="module")
def maker() -> JunkMaker:
    data = patterns(200, 2)
    return JunkMaker(Space().to_model(data.rows()), data.labels)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_judge_learns_and_measures_itself(judge: Judge) -> None:
    assert (judge.classes, judge.names) == (CLASSES, ("a", "c", "f", "j"))
    assert judge.accuracy > 0.9
    assert judge.real_called_junk < 0.1
    assert set(judge.junk_recall) == set(KINDS)
    assert min(judge.junk_recall.values()) > 0.7
    assert judge.confusion.shape == (5, 5)
    assert int(judge.confusion[:4].sum()) == 300
    assert int(judge.confusion[4].sum()) == 500 * len(KINDS)
    # The record is what the judge says now, counted another way.
    test = patterns(300, 1)
    said = judge.predict(test.rows())
    assert judge.accuracy == pytest.approx(float((said == test.labels).float().mean()))
    assert judge.real_called_junk == pytest.approx(float((said == JUNK).float().mean()))
    assert judge.record["settings"]["seed"] == 3
    assert judge.record["data"]["test"] == test.to_dict()


def test_training_is_a_function_of_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        settings = JudgeSettings(epochs=1, batch=16, width=4, seed=seed)
        made = train_judge(patterns(64, 0), patterns(40, 1), settings, progress=False)
        return torch.cat([value.flatten() for value in made.parameters()])

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.manual_seed(2)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_a_judge_of_an_attribute_in_colour() -> None:
    train, test = patterns(256, 0, channels=3), patterns(100, 1, channels=3)
    settings = JudgeSettings(epochs=6, batch=32, width=8, flip=True)
    judge = train_judge(train, test, settings, column="stands", names=("other", "stands"), progress=False)
    assert (judge.classes, judge.names, judge.column) == ((0, 1), ("other", "stands"), "stands")
    assert judge.accuracy > 0.8


def test_classes_are_drawn_alike_where_that_is_asked() -> None:
    target, draw = torch.tensor([0] * 950 + [1] * 40 + [2] * 10), torch.Generator().manual_seed(0)
    seen = target[_order(target, True, draw)].bincount()
    assert len(_order(target, True, draw)) == 1000
    # A third each; the standard deviation of a count is 15.
    assert (seen - 1000 / 3).abs().max() < 60
    assert torch.equal(_order(target, False, draw).sort().values, torch.arange(1000))


def test_accuracy_with_the_classes_weighed_alike(judge: Judge) -> None:
    n = len(judge.classes)
    confusion = torch.zeros(n + 1, n + 1, dtype=torch.int64)
    confusion[:n, :n] = torch.diag(torch.tensor([90] + [1] * (n - 1)))
    confusion[0, 1], confusion[1, -1] = 10, 3
    other = Judge(judge.classes, judge.shape)
    other.record = {"confusion": confusion.tolist()}
    assert other.accuracy == pytest.approx((90 + n - 1) / (100 + 4 + n - 2))
    assert other.balanced_accuracy == pytest.approx((0.9 + 0.25 + (n - 2)) / n)


def test_progress_goes_to_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    settings = JudgeSettings(epochs=1, batch=32, width=4)
    train_judge(patterns(32, 0), patterns(40, 1), settings, progress=True)
    assert capsys.readouterr().out == ""


def test_predictions_probabilities_and_features_agree(judge: Judge) -> None:
    x = Space().to_model(patterns(30, 4).rows())
    p = judge.probabilities(x)
    assert p.shape == (30, 5)
    assert torch.allclose(p.sum(1), torch.ones(30))
    values = torch.tensor([*CLASSES, JUNK])
    assert torch.equal(judge.predict(x), values[p.argmax(1)])
    assert torch.equal(judge.predict(x, batch=7), judge.predict(x))
    features = judge.features(x, batch=11)
    assert features.shape == (30, 128)
    logits = judge.network.out(features)
    assert torch.allclose(logits.softmax(1), p, atol=1e-5)
    assert judge.predict(x[:0]).shape == (0,)


def test_judging_leaves_the_mode_and_the_statistics_alone(judge: Judge) -> None:
    x = Space().to_model(patterns(30, 4).rows())
    before = judge.predict(x)
    judge.train()
    try:
        assert torch.equal(judge.predict(x), before)
        assert judge.training
    finally:
        judge.eval()
    assert torch.equal(judge.predict(x), before)


def test_values_beyond_the_range_are_judged_as_they_would_be_shown(judge: Judge) -> None:
    x = 3 * Space().to_model(patterns(30, 4).rows())
    assert torch.equal(judge.probabilities(x), judge.probabilities(x.clamp(-1, 1)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_image_that_is_not_finite_is_junk(judge: Judge, value: float) -> None:
    x = Space().to_model(patterns(3, 4).rows())
    before = judge.predict(x)
    x[1, 0, 0, 0] = value
    assert judge.predict(x).tolist() == [before[0], JUNK, before[2]]
    assert judge.probabilities(x)[1].tolist() == [0, 0, 0, 0, 1]
    assert bool(judge.features(x).isfinite().all())


def test_pixels_are_read_in_the_judges_own_space(judge: Judge) -> None:
    pixels = patterns(30, 4).rows()
    x = Space().to_model(pixels)
    assert torch.equal(judge.probabilities(pixels, batch=7), judge.probabilities(x, batch=7))
    assert torch.equal(judge.features(pixels), judge.features(x))
    unit = Space(scale=1 / 256, shift=0)
    said = judge.log_retain({0}, unit)(unit.to_model(pixels))
    assert torch.equal(said, judge.log_retain({0})(x))


def test_images_of_another_kind_are_refused(judge: Judge) -> None:
    for x in (
        torch.zeros(2, 3, 12, 12),
        torch.zeros(2, 1, 28, 28),
        torch.zeros(2, 1, 12, 12, dtype=torch.int64),
    ):
        with pytest.raises(UserError, match=r"\(1, 12, 12\)"):
            judge.predict(x)


@pytest.mark.parametrize("half", [False, True])
def test_saving_and_loading_changes_nothing(judge: Judge, tmp_path: Path, half: bool) -> None:
    judge.record["command"] = "msgm train-judge"
    judge.save(tmp_path / "judge", half=half)
    loaded = Judge.load(tmp_path / "judge")
    x = Space().to_model(patterns(50, 5).rows())
    assert torch.equal(loaded.probabilities(x), judge.probabilities(x))
    assert (loaded.classes, loaded.names, loaded.shape) == (judge.classes, judge.names, judge.shape)
    assert (loaded.column, loaded.record) == (judge.column, judge.record)
    assert torch.equal(loaded.confusion, judge.confusion)
    assert not loaded.training
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_half_precision_halves_the_file(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path / "full")
    judge.save(tmp_path / "half", half=True)
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full


def test_damaged_folders_are_named(judge: Judge, tmp_path: Path) -> None:
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    with pytest.raises(UserError, match=r"config\.json is missing"):
        Judge.load(tmp_path)
    judge.save(tmp_path)
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        Judge.load(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        Judge.load(tmp_path)
    weights.write_bytes(content)
    settings = json.loads(config.read_text())
    for text in (
        "{",
        "[]",
        json.dumps({**settings, "classes": None}),
        json.dumps({**settings, "network": {}}),
    ):
        config.write_text(text)
        with pytest.raises(UserError, match=r"config\.json is not"):
            Judge.load(tmp_path)


def test_a_failed_save_keeps_the_old_files(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        judge.save(tmp_path, half=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_judge_that_was_not_measured_says_so() -> None:
    with pytest.raises(UserError, match="not been measured"):
        _ = Judge((0, 1), (1, 12, 12)).accuracy


@pytest.mark.parametrize("classes", [(0,), (0, 0), (JUNK, 0)])
def test_classes_that_make_no_judge(classes: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="distinct classes"):
        Judge(classes, (1, 12, 12))


def test_data_that_do_not_fit_are_refused() -> None:
    train, test = patterns(64, 0), patterns(40, 1)
    with pytest.raises(UserError, match="no column 'colour'; it has label, stands"):
        train_judge(train, test, SETTINGS, column="colour", progress=False)
    with pytest.raises(UserError, match="one shape"):
        train_judge(train, patterns(40, 1, channels=3), SETTINGS, progress=False)
    some = (train.labels != 5).nonzero()[:, 0]
    with pytest.raises(UserError, match="same classes"):
        train_judge(train.select(some), test, SETTINGS, progress=False)
    with pytest.raises(UserError, match="at least 8 images"):
        train_judge(train, test.select(torch.arange(4)), SETTINGS, progress=False)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"lr": 0.0}, {"junk_share": 1.0}, {"junk_share": 0.0}])
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="must be positive"):
        JudgeSettings(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_junk_is_a_function_of_the_generator(maker: JunkMaker, kind: str) -> None:
    first = maker.make(kind, 9, generator(1))
    assert first.shape == (9, 1, 12, 12)
    assert first.dtype == torch.float32
    assert float(first.abs().max()) <= 1
    assert torch.equal(first, maker.make(kind, 9, generator(1)))
    assert not torch.equal(first, maker.make(kind, 9, generator(2)))
    # No junk image is one of the images that it is made from.
    assert float(torch.cdist(first.flatten(1), maker.images.flatten(1)).min()) > 0.1
    assert not torch.equal(first[0], first[1])
    assert [len(maker.make(kind, n, generator())) for n in (0, 1)] == [0, 1]


def test_shuffled_images_keep_their_pixels(maker: JunkMaker) -> None:
    made = maker.make("shuffled", 9, generator()).flatten(1).sort(1).values
    assert float(torch.cdist(made, maker.images.flatten(1).sort(1).values).amin(1).max()) < 1e-5


def test_blends_lie_between_two_classes(maker: JunkMaker) -> None:
    for image in maker.make("blend", 5, generator()):
        # Least squares over all pairs: some pair of another class explains the blend exactly.
        a, b = maker.images.flatten(1)[:, None], maker.images.flatten(1)[None]
        gap = a - b
        weight = ((image.flatten() - b) * gap).sum(2) / gap.square().sum(2).clamp(min=1e-9)
        error = (image.flatten() - b - weight[..., None] * gap).square().sum(2)
        error[maker.labels[:, None] == maker.labels] = torch.inf
        error[(weight < 0.34) | (weight > 0.66)] = torch.inf
        assert float(error.min()) < 1e-6


def test_half_denoised_junk_is_far_from_every_image(maker: JunkMaker) -> None:
    made = maker.make("half_denoised", 20, generator())
    distance = torch.cdist(made.flatten(1), maker.images.flatten(1)).amin(1)
    assert float(distance.min()) > maker.gap / 2


def test_glued_halves_belong_to_two_images(maker: JunkMaker) -> None:
    upright, sideways = maker.make("glued", 10, generator()).split(5)
    for made, images in ((upright, maker.images), (sideways.transpose(2, 3), maker.images.transpose(2, 3))):
        first = torch.cdist(made[:, :, :6].flatten(1), images[:, :, :6].flatten(1))
        second = torch.cdist(made[:, :, 6:].flatten(1), images[:, :, 6:].flatten(1))
        assert float(first.amin(1).max()) < 1e-3
        assert float(second.amin(1).max()) < 1e-3
        assert not bool((maker.labels[first.argmin(1)] == maker.labels[second.argmin(1)]).any())


def test_a_mixture_has_every_kind_in_equal_parts(maker: JunkMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = dict.fromkeys(KINDS, 0)

    def count(kind: str, n: int, generator: torch.Generator) -> Tensor:
        sizes[kind] += n
        return torch.zeros(n, 1, 12, 12)

    monkeypatch.setattr(maker, "make", count)
    assert len(maker.mixture(7 * 3 + 2, generator())) == 23
    assert sorted(sizes.values()) == [3, 3, 3, 3, 3, 4, 4]
    assert len(maker.mixture(2, generator())) == 2


def test_junk_needs_images_and_a_known_kind(maker: JunkMaker) -> None:
    with pytest.raises(UserError, match="no kind of junk 'odd'; known: noise"):
        maker.make("odd", 1, generator())
    for n, labels in ((4, torch.arange(4)), (9, torch.zeros(9))):
        with pytest.raises(UserError, match="at least 8 images of at least 2 classes"):
            JunkMaker(torch.zeros(n, 1, 12, 12), labels)


def test_any_size_and_colour_makes_every_kind() -> None:
    """A side that the shuffling's blocks do not divide, and colour."""
    images = 2 * torch.rand(20, 3, 30, 30, generator=generator()) - 1
    maker = JunkMaker(images, torch.arange(20) % 2)
    for kind in KINDS:
        assert maker.make(kind, 3, generator()).shape == (3, 3, 30, 30)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"classes": [0, "1"]}, "classes"),
        ({"names": ["a", ["b"]]}, "names"),
        ({"names": ["a"]}, "names"),
        ({"shape": [1, 10**6, 10**6]}, "shape"),
        ({"network": {"width": 10**9}}, "width"),
        ({"column": None}, "column"),
        ({"record": {"confusion": "x"}}, "confusion"),
        ({"record": {}}, "confusion"),
        ({"record": {"confusion": [[0, 0, 0]] * 3}}, "confusion"),
        ({"record": {"junk_recall": {"noise": "all"}}}, "junk_recall"),
        ({"record": {"data": {"train": 3}}}, r"record\.data"),
        ({"record": {"data": {"train": {"name": []}}}}, r"record\.data"),
        ({"record": []}, "record"),
    ],
    ids=str,
)
def test_a_hostile_configuration_is_named(change: dict[str, Any], named: str, judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path)
    config = tmp_path / "config.json"
    before = {**json.loads(config.read_text()), "record": {}}
    before |= {"classes": [0, 1], "names": ["0", "1"]} if "record" in change else {}
    config.write_text(json.dumps({**before, **change}))
    with pytest.raises(UserError, match=rf"config\.json is not a judge's configuration .*{named}"):
        Judge.load(tmp_path)


@pytest.mark.parametrize("broken", ["NaN", "shape", "missing", "header"])
def test_hostile_weights_of_a_judge_are_named(broken: str, judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path)
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    state = load_file(path)
    if broken == "NaN":
        state["hidden.bias"] *= float("nan")
    elif broken == "shape":
        state["hidden.bias"] = state["hidden.bias"][None]
    elif broken == "missing":
        del state["hidden.bias"]
    save_file(state, path)
    if broken == "header":
        path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    config.write_text(json.dumps({**json.loads(config.read_text()), "weights_sha256": sha}))
    with pytest.raises(UserError, match=r"hidden\.bias|safetensors is truncated"):
        Judge.load(tmp_path)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_images_that_are_too_small_make_no_judge(side: int) -> None:
    with pytest.raises(UserError, match="4 to 1024 pixels a side"):
        Judge([0, 1], (1, side, side))


def test_a_training_that_diverges_makes_no_judge() -> None:
    with pytest.raises(UserError, match="lr must lie between"):
        JudgeSettings(lr=1e9)
    with pytest.raises(UserError, match="junk_share must lie between"):
        JudgeSettings(junk_share=0.999)
