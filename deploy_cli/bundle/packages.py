"""Pack packages of a Debian release with everything they need, as an apt repository.

apt itself resolves, in a container of that release, against an empty host: whatever the far host lacks is there. apt
checks each package against the archive's signed index; from here on the bundle's manifest answers for it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy_cli.bundle.writer import Writer
from deploy_cli.errors import DeployctlError

# Without recommended packages: they are many, and a server of this kind wants none of them unasked.
SCRIPT = """
set -eu
cat /in/apt.conf > /tmp/apt.conf
cat >> /tmp/apt.conf <<'END'
Dir::Etc::SourceList "/in/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::status "/dev/null";
Dir::Cache::archives "/out/debs";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
END
export APT_CONFIG=/tmp/apt.conf DEBIAN_FRONTEND=noninteractive
mkdir -p /out/debs/partial /tmp/none
mkdir -p /etc/apt/keyrings
for key in /in/keyrings/*; do [ ! -f "$key" ] || cp "$key" /etc/apt/keyrings/; done
apt-get -qq update
# What this run wants, by the names in which apt keeps it; the folder may hold older ones too.
apt-get -qq -y --print-uris -o Dir::Cache::archives=/tmp/none install "$@" | awk '{print $2}' > /out/wanted
apt-get -qq -y --download-only install "$@"
rm -rf /out/repository; mkdir /out/repository
while read -r file; do
  plain=$(printf %s "$file" | sed 's/_[0-9]*%3a/_/')   # as the archive names it: without the epoch
  ln "/out/debs/$file" "/out/repository/$plain"
  dpkg-deb --field "/out/debs/$file"
  printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$plain" \
    "$(stat -c %s "/out/debs/$file")" "$(sha256sum "/out/debs/$file" | cut -d' ' -f1)"
done < /out/wanted > /out/repository/Packages
"""


def pack(writer: Writer, wanted: dict[str, Any], work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Download what is not there yet, add the repository to the bundle; return its entry in the manifest.

    DeployctlError when apt cannot resolve or fetch.
    wanted: {release, base (image), mirror, suite, components, apt_settings, sources, keyrings, names}.
    """
    release = str(wanted["release"])
    folder = work / "packages" / release
    names = sorted(set(wanted["names"]))
    say(f"packages for {release}: {len(names)} and what they need")
    repository = download(folder, wanted, names)
    for file in sorted(repository.iterdir()):
        writer.add_file(f"packages/{release}/{file.name}", file)
    return {"folder": f"packages/{release}", "names": names}


def download(folder: Path, wanted: dict[str, Any], names: list[str]) -> Path:
    """Resolve and download into a folder; return the one with the packages and their index. DeployctlError."""
    given = folder / "in"
    (given / "keyrings").mkdir(parents=True, exist_ok=True)
    suite, mirror, components = wanted["suite"], wanted["mirror"], wanted["components"]
    lines = [f"deb {mirror} {part} {components}" for part in (suite, f"{suite}-updates")]
    lines += [line.replace("{suite}", suite) for line in wanted["sources"]]
    (given / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (given / "apt.conf").write_text(wanted["apt_settings"], encoding="utf-8")
    for keyring in wanted["keyrings"]:
        (given / "keyrings" / Path(keyring).name).write_bytes(Path(keyring).read_bytes())
    (folder / "get.sh").write_text(SCRIPT, encoding="utf-8")
    command = ["docker", "run", "--rm", "--network", "host", "-v", f"{given}:/in:ro", "-v", f"{folder}:/out"]
    command += ["--label", "deployctl.role=bundle", "--entrypoint", "sh", wanted["base"], "/out/get.sh", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " / ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        hint = f"does {mirror} hold {suite}? Other archives go into `bundle_apt_sources`"
        raise DeployctlError(f"packages for {wanted['release']} cannot be had: {told}", hint)
    return folder / "repository"
