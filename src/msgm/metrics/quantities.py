"""What the measures of this room measure, each with its unit, which way is better, and a sentence for legends."""

from __future__ import annotations

from .measured import Quantity

UR = Quantity(
    name="UR", unit="%", better="lower",
    about="UR: share of all samples that the judge puts into the forget classes",
)  # fmt: skip
JUNK = Quantity(name="junk", unit="%", better="lower", about="junk: neither forgotten nor retained")
RETAINED = Quantity(name="retained", unit="%", about="retained: the rest of the samples")
BENT = Quantity(
    name="TV", unit="%", better="lower",
    about="TV: total variation distance of the kept classes' shares among the samples from those among real "
    "retained images",
)  # fmt: skip
NEAR = Quantity(
    name="near", unit="%", better="lower",
    about="near: share of samples whose nearest training image (L2) is one to be forgotten",
)  # fmt: skip
CLOSEST = Quantity(
    name="closest", unit="grey levels", better="higher",
    about="closest: distance (root mean square) from an image to be forgotten to the sample nearest to it, a mean",
)  # fmt: skip
FRECHET = Quantity(
    name="Fréchet", better="lower",
    about="Fréchet: distance of the judge's features of all samples from those of real retained images; it is no FID",
)  # fmt: skip
LIKENESS = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            name="FD", better="lower",
            about="FD: Fréchet distance of kept samples from real retained images, in the features of the network "
            "that was named; it is FID in Inception's alone",
        ),
        Quantity(
            name="KD", better="lower", about="KD: kernel distance of the same, in thousandths; KID in Inception's"
        ),
        Quantity(
            name="precision", unit="%", better="higher", about="precision: of kept samples, those like real images"
        ),
        Quantity(name="recall", unit="%", better="higher", about="recall: of real images, those like kept samples"),
        Quantity(name="density", better="higher", about="density: of real images about a kept sample; 1 is as real"),
        Quantity(name="coverage", unit="%", better="higher", about="coverage: of real images, those with a sample by"),
    )
}  # fmt: skip
NLL = {
    "retain": Quantity(
        name="NLL retain", unit="bits/dim", better="lower",
        about="NLL: of retained and of forgotten test images in bits/dim; what is forgotten is to be unlikely",
    ),
    "forget": Quantity(name="NLL forget", unit="bits/dim", better="higher", about=""),
}  # fmt: skip
DOUBLING = {
    key: Quantity(
        name=f"doubling {key}", unit="bits/dim", detail=True,
        about=f"doubling {key}: by how much twice the steps change the NLL",
    )
    for key in NLL
}  # fmt: skip
BENT_FROM_PARENT = Quantity(
    name="TV parent", unit="%",
    about="TV parent: the same distance from the kept samples of the first row's model",
)  # fmt: skip
CORRECTED = Quantity(
    name="UR corrected", unit="%",
    about="UR corrected: UR without the judge's own errors on real images (Rogan and Gladen 1978)",
)  # fmt: skip
LEVELS = (0.5, 1.0, 2.0)
"""Noise levels from which test images are drawn back."""
BACK = {
    ("forget", level): Quantity(
        name=f"back r={level:g}", unit="%", better="lower",
        about="back: share of forgotten test images that, noised to r = sigma / alpha and denoised, come back as their "
        "class" * (level == LEVELS[0]),
    )
    for level in LEVELS
} | {
    ("retain", level): Quantity(
        name=f"kept r={level:g}", unit="%", better="higher", detail=True,
        about="kept: the same of retained ones" * (level == LEVELS[0]),
    )
    for level in LEVELS
}  # fmt: skip
DRAWN = Quantity(
    name="drawn", unit="%", better="lower",
    about="drawn: share of samples that are the one image, as far as their pixels tell",
)  # fmt: skip
AGAIN = {
    level: Quantity(
        name=f"again r={level:g}", unit="%", better="lower",
        about="again: how often the one image, noised to r = sigma / alpha and denoised, is there again"
        * (level == LEVELS[0]),
    )
    for level in LEVELS
}  # fmt: skip
STEPS = Quantity(name="steps", unit="steps", better="lower", about="steps: those that the run took")
IMAGES = Quantity(name="images", unit="images", detail=True, about="images: those that the run saw")
SECONDS = Quantity(name="seconds", unit="s", about="seconds: that the run took")
AUDIT_SECONDS = Quantity(name="evaluation seconds", unit="s", detail=True, about="evaluation seconds: of all this")

ABOUT = {
    quantity.name: quantity.about
    for quantity in (
        UR, NEAR, CLOSEST, JUNK, RETAINED, BENT, FRECHET, *LIKENESS.values(), *NLL.values(), *BACK.values(),
        *DOUBLING.values(), BENT_FROM_PARENT, CORRECTED, DRAWN, *AGAIN.values(), STEPS, IMAGES, SECONDS, AUDIT_SECONDS,
    )
}  # fmt: skip
"""For legends, by name."""
