"""What a trial run does less of."""

from typing import Any

QUICK: dict[str, Any] = {
    "seeds": 1,
    "views.count": 2,
    "teacher.probe_views": 1,
    "teacher.probe_epochs": 20,
    "teacher.probe_min_steps": 100,
    "teacher.folds": 3,
    "teacher.train": "probe",
    "student.epochs": 3,
    "student.pilot_share": 0.0,
    "twin.length_shares": [1.0],
}
"""What `--quick` changes: enough to see every stage work, not to judge anything."""
