"""What the teacher's stage is to do, decided before it starts."""

from dataclasses import dataclass

import numpy as np

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.label_errors import can_estimate_noise
from potstill.teacher.external import ExternalTeacher

FINETUNE_VIEWS = 12_000
"""Views that a fine-tuned network with "auto" epochs is trained on."""

MAX_FINETUNE_SIZE = 160

MAX_FINETUNE_PHOTOS = 3_000
"""Photos without labels take part in fine-tuning up to this number of photos in all. More would take longer than
everything else: each photo is seen eight times at least."""


@dataclass(frozen=True, slots=True)
class TeacherPlan:
    """Which models, at which input size, trained on what views."""

    config: TeacherConfig
    views: ViewsConfig
    sizes: tuple[int, ...]
    """Input side in pixels of each of `config.model`."""
    metric: str = "accuracy"
    """What is chosen by on val."""
    class_balance: str = "auto"
    external: ExternalTeacher | None = None
    """A file that is the teacher; None where it is trained."""

    def checks_labels(self, labeled: int) -> bool:
        """Whether it is estimated how many labels are wrong, with so many labeled photos of one label each."""
        return self.config.wrong_labels == "correct" and self.config.folds > 1 and can_estimate_noise(labeled)

    def finetune_epochs(self, photos: int) -> int:
        """Epochs of one network that learns from so many photos."""
        if self.config.finetune_epochs != "auto":
            return self.config.finetune_epochs
        return int(np.clip(round(FINETUNE_VIEWS / max(photos, 1)), 8, 40))

    def finetune_unlabeled(self, labeled: int, unlabeled: int) -> int:
        """How many photos without labels fine-tuned networks learn from, where the probe did."""
        return min(unlabeled, max(MAX_FINETUNE_PHOTOS - labeled, 0))

    def finetune_size(self, size: int) -> int:
        """Input side in pixels of a fine-tuned network, for that of the probe."""
        return min(size, MAX_FINETUNE_SIZE) if self.config.finetune_size == "auto" else self.config.finetune_size

    @property
    def stored_views(self) -> int:
        """Views per photo whose features are stored: the plain one and `teacher.probe_views` random ones."""
        return 1 + self.config.probe_views
