"""What every test runs under: no network, one thread, and where the real data sets are."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of decoded images that is nobody's own."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["MSGM_CACHE"] = str(path)
    return path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with ``mnist/``, ``cifar10/`` and ``celeba/`` that MSGM_TEST_DATA names, else a skip."""
    folder = os.environ.get("MSGM_TEST_DATA")
    if not folder:
        pytest.skip("needs real data: set MSGM_TEST_DATA to a folder with mnist/, cifar10/ and celeba/")
    path = Path(folder)
    assert path.is_dir(), f"MSGM_TEST_DATA={folder} is not a folder"
    return path
