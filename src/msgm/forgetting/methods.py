"""Recipes: each published method is a named set of parts, not a trainer of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .combine import Weighted
from .terms import Denoising, ForgetTerm, Obtuse, Orthogonal, Redirect


@dataclass(frozen=True, kw_only=True)
class Method:
    """A retain loss, and unless ``forget`` is None a forget term and the way the two are combined."""

    name: str
    retain: Denoising = field(default_factory=Denoising)
    forget: ForgetTerm | None = None
    combine: Weighted = field(default_factory=Weighted)
    sees_forget: bool = False
    """Whether the forget images count as retain data (the Standard model)."""

    def to_dict(self) -> dict[str, Any]:
        """The parts by name with their settings, for the record."""
        parts: dict[str, Any] = {"name": self.name, "retain": asdict(self.retain)}
        if self.forget is not None:
            parts["forget"] = {"term": type(self.forget).__name__, **asdict(self.forget)}  # type: ignore[call-overload]
            parts["combine"] = asdict(self.combine)
        return parts


def standard() -> Method:
    """The ordinary loss on all data: forgets nothing."""
    return Method(name="standard", sees_forget=True)


def unseen() -> Method:
    """The ordinary loss on the retain data only: the usual 'gold standard' (paper Sec. 3.2)."""
    return Method(name="unseen")


def orthogonal(
    *, alpha: float = 0.99, every: int = 4, form: Literal["elementwise", "inner", "literal"] = "elementwise"
) -> Method:
    """Orthogonal-MSGM (paper Eq. 7, 9)."""
    return Method(name="orthogonal", forget=Orthogonal(form=form), combine=Weighted(alpha=alpha, every=every))


def obtuse(
    *,
    alpha: float = 0.99,
    every: int = 4,
    form: Literal["windowed", "literal", "released_sign"] = "windowed",
    window: float = 1.0,
    clamp: float = 1.0,
) -> Method:
    """Obtuse-MSGM (paper Eq. 8, 9)."""
    term = Obtuse(form=form, window=window, clamp=clamp)
    return Method(name="obtuse", forget=term, combine=Weighted(alpha=alpha, every=every))


def redirect(*, alpha: float = 0.5, every: int = 1, low: float = 0.15, high: float = 1e6) -> Method:
    """The exact score of the retained images at the forget points; the default."""
    return Method(name="redirect", forget=Redirect(low=low, high=high), combine=Weighted(alpha=alpha, every=every))


METHODS: dict[str, Callable[..., Method]] = {f.__name__: f for f in (standard, unseen, orthogonal, obtuse, redirect)}
DEFAULT = "redirect"
