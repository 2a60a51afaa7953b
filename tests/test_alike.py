"""Features by the networks that are named, and requests by similarity in them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_clip import tiny_clip

from msgm.cli.main import main
from msgm.data import ImageRequest, Images, Source, request_of
from msgm.errors import UserError
from msgm.formats.native import EMBEDDED, embedded
from msgm.metrics.alike import alike, similarity
from msgm.metrics.clip import MEAN, STD
from msgm.metrics.features import ClipFeatures, JudgeFeatures, features, features_of
from msgm.metrics.judge import Judge

transformers = pytest.importorskip("transformers", reason="the extra clip is not installed")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def demo() -> Images:
    return Source("demo").open("test")


def test_clip_features_are_those_of_transformers(clip: Path, demo: Images) -> None:
    network = features(str(clip))
    assert isinstance(network, ClipFeatures)
    pixels = demo.rows(slice(5))
    shaped = pixels.expand(-1, 3, -1, -1) / 255
    x = (shaped - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    tokens = network.clip.tokens(["a cat"], return_tensors="pt")
    own = transformers.CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        expected = own(pixel_values=x, **tokens)
    assert torch.allclose(network(pixels), expected.image_embeds, atol=1e-6)
    assert torch.allclose(network.text("a cat"), expected.text_embeds[0], atol=1e-6)


def test_imagenet_features_are_what_its_classes_are_made_of() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra imagenet is not installed")
    network: Any = features("imagenet")
    pixels = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = network(pixels)
    assert found.shape == (2, 1280)
    with torch.no_grad():
        classes = network.network(2 * (pixels.float() / 255) - 1)
        assert torch.allclose(network.network._fc(found), classes, atol=1e-4)


def test_judge_features_are_the_judges_in_blocks(demo: Images) -> None:
    some = demo.select(slice(250))
    found = features_of(some, features(EMBEDDED), show=False)
    assert torch.allclose(found, Judge.load(EMBEDDED).features(some.rows()), atol=1e-5)
    assert isinstance(features(str(embedded("judge"))), JudgeFeatures)


def test_what_is_like_an_example_is_of_its_class(demo: Images) -> None:
    some, example = demo.select(slice(400)), demo.select(demo.labels == 7).select([50])
    judge = features(EMBEDDED)
    request = alike(some, example, judge, 0.85, show=False)
    found = request.split(some).forget
    assert (found.labels == 7).float().mean() > 0.95 and len(found) > 20
    cosine = torch.nn.functional.cosine_similarity(judge(some.rows()), judge(example.rows()))
    assert torch.allclose(similarity(some, example, judge, show=False), cosine, atol=1e-5)
    assert int((cosine >= 0.85).sum()) == len(found)
    assert request_of(request.to_dict()) == request
    assert "similarity of at least 0.85 to one of 1 images, features of the judge demo" in request.words


def test_words_ask_clip(clip: Path, demo: Images) -> None:
    some, network = demo.select(slice(60)), features(str(clip))
    with pytest.raises(UserError, match=r"the nearest have (-?\d\.\d{3}) \(no. 1\), -?\d\.\d{3} \(no. 10\)$") as told:
        alike(some, "a cat", network, None, show=False)
    tenth = float(str(told.value).split(",")[-1].split()[0])
    assert 8 <= len(alike(some, "a cat", network, tenth, show=False).marks) <= 12
    with pytest.raises(UserError, match="no image of demo has a similarity of 1"):
        alike(some, "a cat", network, 1.0, show=False)
    with pytest.raises(UserError, match="words are understood by CLIP alone"):
        alike(some, "a cat", features(EMBEDDED), 0.5, show=False)
    with pytest.raises(UserError, match="between -1 and 1"):
        alike(some, "a cat", network, 2.0, show=False)


def test_a_request_by_examples_on_the_command_line(
    demo: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    examples = tmp_path / "like"
    examples.mkdir()
    Image.fromarray(demo.select(demo.labels == 1).rows([0])[0, 0].numpy()).save(examples / "one.png")
    words = ["request", "--data", "demo", "--like", str(examples), "--features", "demo"]
    main([*words, "--similarity", "0.9", "--preview", str(tmp_path / "look")])
    said = capsys.readouterr().out.splitlines()[0]
    assert "images, cosine similarity of at least 0.9 to" in said
    main(["request", "--data", "demo", "--forget-list", str(tmp_path / "look/request.json")])
    assert capsys.readouterr().out.splitlines()[0] == said
    (tmp_path / "other.json").write_text("{}")
    for wrong, told in (
        (words, "--similarity"),
        (["request", "--data", "demo"], "in one way"),
        ([*words, "--forget", "label == 1"], "in one way"),
        ([*words, "--text", "a one"], "not by both"),
        (["request", "--data", "demo", "--forget-list", str(tmp_path / "other.json")], "holds no request"),
    ):
        with pytest.raises(SystemExit):
            main(wrong)
        assert told in capsys.readouterr().err


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match="cannot be read as a CLIP model"):
        features(str(tmp_path))
    with pytest.raises(UserError, match="cannot be read as a CLIP model"):
        features("nobody/no-such-clip")


def test_requests_without_a_way_they_were_found_are_as_before() -> None:
    assert ImageRequest(("00000000000000ff",)).to_dict() == {"images": ["00000000000000ff"]}
