"""What the paper prints of edited images (Tables 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Edit = Literal["inpaint", "reconstruct"]
Printed = tuple[float | None, ...]

EDITED: dict[str, Mapping[Edit, Mapping[str, Printed]]] = {
    "table3-cifar10": {
        "inpaint": {
            "retain": (72.5, 75.5, 74.7, 75.8, None), "forget": (75.0, 57.2, 49.6, 59.7, None),
            "frechet": (13.11, 15.96, 13.46, 13.64, None), "features": (6.80, 6.80, 6.77, 6.72, None),
            "psnr": (31.09, 31.09, 31.01, 31.03, None), "ssim": (0.56, 0.55, 0.54, 0.54, None),
        },
    },
    "table3-celeba": {
        "inpaint": {
            "retain": (95.5, 99.0, 99.5, 98.0, None), "forget": (53.0, 1.0, 0.5, 2.0, None),
            "frechet": (29.42, 30.31, 29.43, 30.42, None), "features": (8.96, 8.96, 8.97, 8.94, None),
            "psnr": (34.54, 34.52, 34.50, 34.54, None), "ssim": (0.83, 0.82, 0.81, 0.82, None),
        },
    },
    "table4-cifar10": {
        "reconstruct": {
            "retain": (88.1, 87.7, 87.0, 87.9, None), "forget": (74.4, 48.4, 69.6, 70.3, None),
            "frechet": (5.52, 5.71, 5.57, 5.94, None), "features": (6.91, 6.90, 6.89, 6.90, None),
            "psnr": (31.91, 32.15, 32.19, 31.82, None), "ssim": (0.92, 0.92, 0.93, 0.91, None),
        },
    },
}  # fmt: skip
"""By table, then by column: accuracies of both sets in per cent; of retained images FID, CLIP distance, PSNR, SSIM."""
