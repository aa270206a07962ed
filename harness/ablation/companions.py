"""Which implementation trains an arm: the asked one, or for another family a companion of it."""

from __future__ import annotations

import impls
from impls.contract import Implementation, Placement, SpecError
from impls.nets import NetSpec
from impls.training import framework_of


def companion(net: NetSpec, asked: str, placement: Placement) -> tuple[str | None, str | None]:
    """The implementation that trains the network, and a remark or the reason why there is none.

    A network of the asked card's own family is trained by it and by nobody else; one of another
    family by the first available implementation of that family, of the same framework if there
    is one.
    """
    card = impls.get(asked)
    if card.family == net.core.family:
        reason = _hindrance(card, net, placement)
        return (None, f"{asked} cannot train it: {reason}") if reason else (asked, None)
    reasons = []
    found: list[Implementation] = []
    for name in impls.names():
        try:
            other = impls.get(name)
        except impls.BrokenImplementation:
            continue
        if other.family != net.core.family or (other.core is None and other.trainer is None):
            continue
        reason = _hindrance(other, net, placement)
        if reason is None:
            found.append(other)
        else:
            reasons.append(f"{name}: {reason}")
    home = framework_of(card)
    for other in found:
        if framework_of(other) == home:
            return other.name, None
    if found:
        away = found[0]
        return away.name, f"trained by {away.name}, {home} has no {net.core.family} with a core"
    why = "; ".join(reasons) or "none offers a core"
    return None, f"no available implementation supports family {net.core.family!r} ({why})"


def _hindrance(card: Implementation, net: NetSpec, placement: Placement) -> str | None:
    """Why this card cannot train this network here, or None."""
    try:
        framework_of(card)
    except SpecError as error:
        return str(error)
    return impls.missing(card) or impls.hindrance(card, net.core, placement)
