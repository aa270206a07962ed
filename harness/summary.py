"""What a table of speed results says, in words: the verdict, the ranking, what failed.

Works on the table of `harness.results.load`; draws nothing. Ratios are baseline time over arm
time: above 1 the arm is faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.speed.modes import WHOLE
from harness.speed.stats import Interval, geometric_mean

SCENE_FIELDS = (
    "dtype device ragged input_size hidden_size layers kernel_width pooling zoneout zoneout_mode "
    "zoneout_eval dense bidirectional dilated heads threads"
).split()
"""Fields that, where a run varies them, split a batch x steps grid into several."""

MODES = {
    "graph": "CUDA-graph replays, against the LSTM's own replay. ",
    "default": "Called one by one, against the LSTM called so. ",
}
"""Ways to time a whole layer, each with a baseline of its own, in the order they are told."""

OTHER_FAMILIES = ("conv", "attention")
"""No recurrent layers: contenders of equal width, which a sentence of their own speaks of."""

SEED = 0


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, never in exponent form; "–" for null."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:.{places}f}" if places <= 8 else f"{value:.{digits - 1}e}"


def duration(ns: float | None) -> str:
    """A time in the unit that reads best, e.g. "1.23 ms"."""
    if ns is None or not math.isfinite(ns):
        return "–"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{number(ns / size)} {unit}"
    return f"{number(ns)} ns"


def bracket(value: float, lo: float | None, hi: float | None) -> str:
    """A number with its interval, e.g. "2.41 [2.35, 2.48]"."""
    known = all(end is not None and math.isfinite(end) for end in (lo, hi))
    return f"{number(value)} [{number(lo)}, {number(hi)}]" if known else number(value)


def interval(row: Any, name: str = "speedup") -> str:
    """The ratio in `row` with its interval."""
    return bracket(row[name], row[f"{name}_lo"], row[f"{name}_hi"])


def count(amount: int, noun: str) -> str:
    """ "1 cell", "2 cells"."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listing(words: Sequence[str], most: int = 6, separator: str = ", ") -> str:
    """ "a, b and c"; beyond `most` words "a, b, c and 4 more"."""
    shown = list(words[:most])
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    return " and ".join([separator.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with `scene` (what else varies, in words, or "") and `cell` (the point in words)."""
    own = frame[frame["family"] != "lstm"]
    varying = [f for f in SCENE_FIELDS if f in frame and own[f].nunique(dropna=False) > 1]
    scenes = [
        ", ".join(
            f"{field.replace('_', ' ')} {value}" for field, value in zip(varying, row, strict=True)
        )
        for row in frame[varying].itertuples(index=False)
    ] or [""] * len(frame)
    frame = frame.assign(scene=pd.Series(scenes if varying else "", index=frame.index, dtype=str))
    place = [
        f"{row.kind}, batch {row.batch}, steps {row.steps}" + (f", {row.scene}" * bool(row.scene))
        for row in frame.itertuples()
    ]
    return frame.assign(cell=pd.Series(place, index=frame.index, dtype=str))


def arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Timed rows of the contenders that are compared with the LSTM: no twins, LSTMs or parts."""
    kept = (frame["status"] == "ok") & ~frame["twin"] & (frame["family"] != "lstm")
    kept &= frame["mode"].isin(WHOLE)
    return frame[kept & frame["speedup"].notna()]


def ranking(frame: pd.DataFrame) -> tuple[dict[str, Interval], int]:
    """Geometric-mean speedup per contender of one mode, fastest first, and the points behind it.

    Only grid points count where every compared contender is ok, so that nobody gains by
    failing where it would have been slow; a contender that ran nowhere is not compared.
    """
    wide = arms(frame).pivot_table(index="point_id", columns="contender", values="speedup")
    wide = wide.dropna()
    if wide.empty:
        return {}, 0
    means = {str(name): geometric_mean(wide[name].to_list(), SEED) for name in wide}
    return dict(sorted(means.items(), key=lambda item: -item[1].value)), len(wide)


def verdict(frame: pd.DataFrame) -> list[str]:
    """The result in a few sentences, each a plain string."""
    frame = labelled(frame)
    if frame.empty:
        return ["This folder holds no measured cell yet."]
    timed, whole = arms(frame), frame
    if timed.empty:
        return [_why_nothing(frame)]
    recurrent = ~timed["family"].isin(OTHER_FAMILIES)
    if recurrent.any():
        frame, timed = frame[~frame["family"].isin(OTHER_FAMILIES)], timed[recurrent]
    sentences, several = [], timed["mode"].nunique() > 1
    for mode, words in MODES.items():
        own = timed[timed["mode"] == mode]
        if own.empty:
            continue
        best = own.loc[own.groupby("point_id")["speedup"].idxmax()]
        first, *rest = _fastest(frame[frame["mode"] == mode])
        sentences += [words * several + first, *rest, _range(best), *_lstm_wins(best)]
    sentences += _without_replay(frame)
    if recurrent.any():
        sentences += _beside(whole)
    return [*sentences, *_left_out(whole)]


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells without a time, noisy ones, and those with a remark, each with its reason."""
    frame = labelled(frame)
    noisy = frame["noisy"] & (frame["status"] == "ok")
    bad = (frame["status"] != "ok") | noisy | frame["reason"].notna()
    control = [_noise(row) for row in frame.to_dict("records")]
    reason = frame["reason"].where(
        frame["reason"].notna() | ~noisy, pd.Series(control, frame.index)
    )
    status = frame["status"].where(~noisy, "noisy")
    return frame.assign(status=status, reason=reason)[bad & ~frame["twin"]]


def _noise(row: Any) -> str:
    if pd.isna(row["control"]):
        return "the machine was busy, and no control says how much that mattered"
    return "the machine was busy, or identical code differed, in its sitting"


def _why_nothing(frame: pd.DataFrame) -> str:
    if (frame["status"] == "ok").any():
        return (
            "No speedup can be stated: there is no cell where both an LSTM and another contender "
            "were timed. The times themselves are in the tables below."
        )
    words = frame.loc[~frame["twin"], "status"].value_counts()
    return "No cell could be timed: " + listing([f"{n} {word}" for word, n in words.items()]) + "."


def _fastest(frame: pd.DataFrame) -> list[str]:
    (means, points), timed = ranking(frame), arms(frame)
    names = timed.drop_duplicates("point_id")["yardstick"].value_counts()
    against = listing([f"{name} in {points}" for name, points in names.items()])
    total = frame["point_id"].nunique()
    scope = f"The yardstick is the fastest LSTM of each grid point ({against} of {total})."
    if not means:
        return [scope, "No grid point was timed for every contender, so none is named fastest."]
    (name, mean), *others = means.items()
    if mean.lo > 1:
        lead = f"Fastest overall: {name}, {_mean(mean)} times as fast as the LSTM"
    elif mean.hi < 1:
        lead = (
            "Fastest overall: the LSTM. The nearest contender, "
            f"{name}, runs at {_mean(mean)} times its speed"
        )
    else:
        lead = (
            f"No clear winner overall: the fastest contender, {name}, runs at {_mean(mean)} "
            "times the speed of the LSTM"
        )
    lead += (
        f" (geometric mean over the {count(points, 'grid point')} of {total} that every compared "
        "contender finished, with its 95 % interval)"
    )
    rest = listing([f"{other} {_mean(ratio)}" for other, ratio in others])
    return [f"{lead}; then {rest}." if others else f"{lead}.", scope]


def _without_replay(frame: pd.DataFrame) -> list[str]:
    """How contenders that have no replay of their own stand to the LSTM's replay."""
    replayed = set(frame.loc[frame["mode"] == "graph", "impl"])
    timed = arms(frame).dropna(subset=["graph_speedup"])
    timed = timed[~timed["impl"].isin(replayed)]
    means = [
        f"{name} {_mean(geometric_mean(own['graph_speedup'].to_list(), SEED))} over "
        f"{count(len(own), 'grid point')}"
        for name, own in timed.groupby("contender")
    ]
    if not means:
        return []
    return [f"Without a replay of their own, beside the LSTM's replay: {listing(means)}."]


def _beside(frame: pd.DataFrame) -> list[str]:
    """How layers of other families and the same width stand to the LSTM."""
    timed = arms(frame)
    timed = timed[timed["family"].isin(OTHER_FAMILIES)]
    means = [
        f"{name} {_mean(geometric_mean(own['speedup'].to_list(), SEED))} over "
        f"{count(len(own), 'grid point')}"
        for name, own in timed.groupby("contender")
    ]
    if not means:
        return []
    return [
        "Layers of other families and the same width, which compute something else, to the LSTM: "
        f"{listing(means)}."
    ]


def _mean(ratio: Interval) -> str:
    return bracket(ratio.value, ratio.lo, ratio.hi)


def _range(best: pd.DataFrame) -> str:
    high, low = best.loc[best["speedup"].idxmax()], best.loc[best["speedup"].idxmin()]
    return (
        "Taking the fastest contender at every grid point, the speedup to the LSTM runs from "
        f"{interval(low)} ({low.contender}; {low.cell}) to {interval(high)} "
        f"({high.contender}; {high.cell})."
    )


def _lstm_wins(best: pd.DataFrame) -> list[str]:
    words = best["verdict"].value_counts()
    faster, lost = int(words.get("FASTER", 0)), best[best["verdict"] == "SLOWER"]
    open_ = len(best) - faster - len(lost) - int(words.get("SAME", 0))
    first = f"That contender is clearly faster at {faster} of {count(len(best), 'grid point')}"
    if open_:
        verb = "is" if open_ == 1 else "are"
        first += f"; {open_} {verb} left open (the interval is too wide, or the cell was noisy)"
    if lost.empty:
        return [f"{first}. The LSTM is clearly faster at none."]
    groups = lost.sort_values("steps").groupby(["scene", "kind", "batch"])
    where = listing([_stretch(group) for _, group in groups], separator="; ")
    return [f"{first}. The LSTM wins at {len(lost)}: {where}."]


def _stretch(lost: pd.DataFrame) -> str:
    """Cells of one row of the grid with their ratios, in words."""
    scene, kind, batch = lost[["scene", "kind", "batch"]].iloc[0]
    steps = listing([str(value) for value in lost["steps"].unique()])
    if len(lost) == 1:
        ratios = interval(lost.iloc[0])
    else:
        ratios = f"{number(lost['speedup'].min())} to {number(lost['speedup'].max())}"
    return f"{kind}, batch {batch}, steps {steps}" + f", {scene}" * bool(scene) + f" ({ratios})"


def _left_out(frame: pd.DataFrame) -> list[str]:
    own = frame[~frame["twin"]]
    ran = set(own.loc[own["status"] == "ok", "contender"])
    absent = own[~own["contender"].isin(ran)].groupby("contender")["status"].first()
    if absent.empty:
        return []
    who = listing([f"{name} ({status})" for name, status in absent.items()])
    return [f"Not compared, because they ran nowhere: {who}."]
