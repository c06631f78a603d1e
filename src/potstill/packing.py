"""One shard of photos to pack, as a task of an engine. Apart from `images`, which does not know PyTorch."""

from pathlib import Path

import torch

from potstill.compute.quick_resize import quick_bicubic
from potstill.images.shards import pack_shard


def work(job: Path) -> None:
    """Pack as a JSON file of `potstill.images.shards` says."""
    torch.set_num_threads(1)  # each photo is decoded by one thread
    pack_shard(job, quick_bicubic)
