"""A GPU's clock, power, temperature and throttling while a sitting samples; nothing is altered.

NVML by its Python binding where that can be imported, else one question to `nvidia-smi`; null
columns where neither answers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import statistics
import time
import warnings
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.machine import system

EVERY_S = 0.05
"""NVML is asked this often at most: between two blocks, while the GPU has just worked."""
QUERIES = tuple(
    f"clocks.sm,power.draw,temperature.gpu,clocks_{word}_reasons.active"
    for word in ("event", "throttle")
)
"""What `nvidia-smi` is asked, in its newer and its older words."""
HARMLESS = 0x1 | 0x2
"""Bits of the throttle reasons that are none: an idle GPU, clocks set by an application."""


@dataclass(frozen=True)
class Reading:
    """One look: SM clock in MHz, watts, degrees Celsius, NVML's bits of throttle reasons."""

    sm_mhz: float
    power_w: float
    temp_c: float
    throttle: int


class Reader(Protocol):
    """Gives one reading, None where the driver does not answer."""

    def __call__(self) -> Reading | None:
        """One look."""


@dataclass
class Gauge:
    """Readings of one sitting.

    Attributes:
        read: asks the GPU; None on a CPU.
        often: whether asking is cheap enough to do it between blocks.
    """

    read: Reader | None = None
    often: bool = False
    found: list[Reading] = field(default_factory=list)
    _last: float = -EVERY_S

    def look(self) -> None:
        """Take a reading if that is cheap and the last one is old enough."""
        if self.often and time.monotonic() - self._last >= EVERY_S:
            self.note()

    def note(self) -> None:
        """Take a reading."""
        self._last = time.monotonic()
        reading = self.read() if self.read is not None else None
        if reading is not None:
            self.found.append(reading)

    def columns(self) -> dict[str, Any]:
        """Columns of the sitting's rows: medians, the slowest clock, all throttle bits seen."""
        if not self.found:
            return {}
        throttle = 0
        for reading in self.found:
            throttle |= reading.throttle
        return {
            "sm_mhz": statistics.median(one.sm_mhz for one in self.found),
            "sm_mhz_min": min(one.sm_mhz for one in self.found),
            "power_w": statistics.median(one.power_w for one in self.found),
            "temp_c": max(one.temp_c for one in self.found),
            "throttle": f"0x{throttle & ~HARMLESS:x}",
        }


def gauge(device: str) -> Gauge:
    """A gauge for one sitting on `device`."""
    if device != "cuda":
        return Gauge()
    by_nvml = nvml_reader()
    return Gauge(by_nvml, often=True) if by_nvml is not None else Gauge(smi_reading)


def smi_reading() -> Reading | None:
    """One reading by `nvidia-smi` of the first visible device."""
    for query in QUERIES:
        table = system.run(
            "nvidia-smi",
            f"--query-gpu={query}",
            "--format=csv,noheader,nounits",
            f"--id={_first()}",
        )
        words = [word.strip() for word in table.partition("\n")[0].split(",")]
        with contextlib.suppress(IndexError, ValueError):
            return Reading(float(words[0]), float(words[1]), float(words[2]), int(words[3], 16))
    return None


@functools.cache
def nvml_reader() -> Reader | None:
    """A reader by NVML of the first visible device, None where the binding does not work."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a deprecated package has the same module's name
            nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        word = _first()
        if word.isdecimal():
            handle = nvml.nvmlDeviceGetHandleByIndex(int(word))
        else:
            handle = nvml.nvmlDeviceGetHandleByUUID(word)
    except Exception:  # no binding, no driver, no permission: any of them ends in the other way
        return None

    def read() -> Reading | None:
        try:
            return Reading(
                nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
            )
        except Exception:
            return None

    return read if read() is not None else None


def _first() -> str:
    """The first visible device's number or id, as NVML and nvidia-smi take it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
