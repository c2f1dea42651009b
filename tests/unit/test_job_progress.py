"""What is known of a background job while it runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from loading import loaded

job_progress = loaded("playbooks/library/job_progress.py")


def test_the_progress_of_an_earlier_job_is_not_this_ones(tmp_path: Path) -> None:
    progress, job = tmp_path / "progress.json", tmp_path / "job"
    told = {"pid": 1, "progress": "checksums"}
    progress.write_text(json.dumps(told))
    os.utime(progress, ns=(10**18, 10**18))
    assert job_progress.said(progress, job) == told
    job.write_text("{}")
    os.utime(job, ns=(10**18 + 1, 10**18 + 1))
    assert job_progress.said(progress, job) == {}
    os.utime(progress, ns=(10**18 + 2, 10**18 + 2))
    assert job_progress.said(progress, job) == told
    progress.unlink()
    assert job_progress.said(progress, job) == {}
