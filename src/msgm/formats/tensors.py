"""Files of tensors: read without running anything that stands in them, compared with a network before they are."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..storage import write_bytes

MARK = "msgm"
"""In the metadata of weights that msgm has saved: the hash of what describes their network and process, or 1 in older
ones. A library that saves them again says nothing of it."""

POINTER = b"version https://git-lfs"

FLOATS = ("F64", "F32", "F16", "BF16")
"""Stored kinds of number that weights may have; all are read as those of the network."""


def weights_sha256(module: nn.Module) -> str:
    """Hash of all parameters and buffers, by name, whatever file they came from."""
    return sha256(module.state_dict())


def sha256(state: Mapping[str, Tensor]) -> str:
    """`weights_sha256` of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` of a safetensors file: the same bytes for the same tensors and words."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    if metadata:  # safetensors writes it in any order
        size = int.from_bytes(content[:8], "little")
        header = json.dumps({"__metadata__": dict(sorted(metadata.items())), **json.loads(content[8 : 8 + size])})
        words = header.encode() + b" " * (-len(header.encode()) % 8)
        content = len(words).to_bytes(8, "little") + words + content[8 + size :]
    write_bytes(path, content)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; a missing or truncated one is named."""
    return dict(stored(path).read())


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Tensors in a file, or in several that make up one, before they are read.

    Args:
        path: the file, or the index of several.
        layout: shape and kind of number (as safetensors writes it) of each.
        metadata: what the writer said of the file.
        read: reads them.
    """

    path: Path
    layout: Mapping[str, tuple[tuple[int, ...], str]]
    read: Callable[[], Mapping[str, Tensor]]
    metadata: Mapping[str, str] = field(default_factory=dict)


def stored(path: Path) -> Stored:
    """What is in a file of tensors: safetensors, or a pickle that holds nothing else. Raises UserError naming it."""
    if not path.is_file():
        raise UserError(f"{path} is missing; the model folder is incomplete: copy or save it again")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    state = unpickle(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    found = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not found:
        raise UserError(f"{path} holds no tensors by name; save the network's state_dict()")
    return Stored(path=path, layout=layout_of(found), read=lambda: found)


def layout_of(state: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    """`Stored.layout` of tensors that have been read."""
    return {name: (tuple(value.shape), _kind(value)) for name, value in state.items()}


def _safetensors(path: Path) -> Stored:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            layout = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        _refuse_pointer(path)
        raise UserError(
            f"{path} is truncated or not a safetensors file ({str(error)[:80]}); copy or save it again"
        ) from None
    return Stored(path=path, layout=layout, metadata=metadata, read=lambda: load_file(path))


def together(index: Path, files: list[Path]) -> Stored:
    """The tensors of several files, whose ``index`` names them."""
    parts = [stored(file) for file in files]
    layout = {name: kind for part in parts for name, kind in part.layout.items()}
    return Stored(
        path=index,
        layout=layout,
        metadata=parts[0].metadata,
        read=lambda: {name: value for part in parts for name, value in part.read().items()},
    )


def unpickle(path: Path) -> object:
    """What a pickle of tensors holds; one that would run code is refused, and not run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        _refuse_other_files(path)
        raise UserError(
            f"{path} is a pickle that holds code or objects beside tensors, and is not opened; where you trust it, "
            f"save the network's state_dict() alone, with torch.save or as safetensors"
        ) from None
    except Exception as error:  # whatever a broken file makes of a reader
        words = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise UserError(f"{path} is truncated or not a file of torch.save ({words}); copy or save it again") from None


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UserError(f"{path} is a pointer of git-lfs, not the file; fetch that with: git lfs pull") from None


def _refuse_other_files(path: Path) -> None:
    """UserError for what is no pickle at all."""
    _refuse_pointer(path)
    with path.open("rb") as file:
        if not file.read(4).startswith((b"PK\x03\x04", b"\x80")):
            raise UserError(f"{path} is not a file of torch.save; give the weights, or their folder") from None


def _kind(value: Tensor) -> str:
    kinds = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return kinds.get(value.dtype, str(value.dtype).removeprefix("torch."))


def fit(blueprint: nn.Module, given: Stored, config: Path) -> None:
    """Refuse tensors that are not those of the network that ``config`` describes; nothing is read for it."""
    wanted = {name: (tuple(value.shape), value.is_floating_point()) for name, value in blueprint.state_dict().items()}
    where = f"{given.path} does not fit {config}"
    for name, (shape, floating) in wanted.items():
        if name not in given.layout:
            raise UserError(f"{where}: {name} is not in the file; copy or save the folder again")
        stored_shape, kind = given.layout[name]
        if stored_shape != shape:
            raise UserError(f"{where}: {name} is {stored_shape} in the file, {shape} by the configuration")
        if floating and kind not in FLOATS:
            raise UserError(f"{where}: {name} is stored as {kind}; weights are {', '.join(FLOATS)}: convert them")
    if more := given.layout.keys() - wanted.keys():
        raise UserError(f"{where}: {min(more)} is in the file, and not in the network")


def fill(network: nn.Module, given: Stored) -> None:
    """Read the tensors into the network, in its own precision; one that is not finite is named."""
    own, read = network.state_dict(), given.read()
    values = {name: value.to(own[name].dtype) for name, value in read.items()}
    for name, value in values.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UserError(f"{given.path}: {name} holds values that are not finite; the model is broken")
    network.load_state_dict(values)
