"""An untrained CLIP, as small as can be."""

from pathlib import Path
from typing import Any

import torch


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """An untrained CLIP of 28 x 28 pixels, as transformers saves one."""
    import transformers

    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    words = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    text = {
        **size, "vocab_size": len(vocabulary), "max_position_embeddings": 40,
        "eos_token_id": vocabulary["<|endoftext|>"], "bos_token_id": vocabulary["<|startoftext|>"],
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**size, "image_size": 28, "patch_size": 7}, projection_dim=8
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder
