"""Event files as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

ALL = dict.fromkeys(("scalars", "images", "tensors", "histograms", "compressedHistograms"), 0)
"""Keep every value: TensorBoard would else keep a sample, and purge what stands twice."""


def read(folder: Path) -> EventAccumulator:
    """Read the event file in `folder`."""
    events = EventAccumulator(str(folder), size_guidance=ALL, purge_orphaned_data=False)
    events.Reload()
    return events


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """List the points of one curve, as step and value, in the order of the file."""
    return [(point.step, round(point.value, 6)) for point in read(folder).Scalars(tag)]


def hparams(folder: Path, tag: str = metadata.SESSION_START_INFO_TAG) -> HParamsPluginData | None:
    """Read what the run tells the plug-in HPARAMS under `tag`."""
    found = read(folder).summary_metadata.get(tag)
    return None if found is None else HParamsPluginData.FromString(found.plugin_data.content)
