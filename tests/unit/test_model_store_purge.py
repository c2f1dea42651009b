"""What `down --purge` takes out of a folder for models that the user chose: what the role made there, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAY = """
- name: Purge
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Models are gone
      ansible.builtin.import_role:
        name: model_store
        tasks_from: purge
"""


def test_only_what_the_role_made_goes(tmp_path: Path) -> None:
    (tmp_path / "down.yml").write_text(PLAY)
    store = tmp_path / "store"
    made = ["org--m--0123456789ab/.deployctl.json", "org--big--0123456789ab.partial/x", ".tools/fetch.py"]
    kept = ["mine/config.json", "mine.partial/x", "a/b/c/.deployctl.json", ".deployctl.json", "other--one/x"]
    for name in made + kept:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("{}")
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    for changed in ("changed=1", "changed=0"):
        done = subprocess.run(
            [*words, "-e", f"model_store_dir={store}/", "down.yml"],
            cwd=tmp_path,
            env={"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_LIBRARY": "", "PATH": "/usr/bin:/bin",
                 "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and changed in done.stdout, done.stdout + done.stderr
        left = sorted(str(file.relative_to(store)) for file in store.rglob("*") if file.is_file())
        assert left == sorted(kept)
