"""Pack packages of a Debian release with everything they need, as an apt repository.

apt itself resolves, in a container of that release, against an empty host: whatever the far host lacks is there. apt
checks each package against the archive's signed index; from here on the bundle's manifest answers for it.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy_cli.bundle.writer import Writer
from deploy_cli.errors import DeployctlError

# Without recommended packages: they are many, and a server of this kind wants none of them unasked.
# Every set is resolved for itself, with sources and pins of its own: what two hosts want may exclude each other.
SCRIPT = r"""
set -eu
cat /in/apt.conf > /tmp/apt.conf
cat >> /tmp/apt.conf <<'END'
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::PreferencesParts "/tmp/pins";
Dir::State::status "/dev/null";
Dir::Cache::archives "/out/debs";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::List-Cleanup "false";
END
[ ! -f /in/ca.crt ] || echo 'Acquire::https::CAInfo "/in/ca.crt";' >> /tmp/apt.conf
export DEBIAN_FRONTEND=noninteractive
mkdir -p /out/debs/partial /tmp/none /etc/apt/keyrings
for key in /in/keyrings/*; do [ ! -f "$key" ] || cp "$key" /etc/apt/keyrings/; done
# What this run wants, by the names in which apt keeps it; the folder may hold older ones too.
: > /out/wanted; : > /out/left_out
for folder in /in/sets/*; do
  cp /tmp/apt.conf /tmp/set.conf
  echo "Dir::Etc::SourceList \"$folder/sources.list\";" >> /tmp/set.conf
  export APT_CONFIG=/tmp/set.conf
  rm -rf /tmp/pins /tmp/pinned; mkdir -p /tmp/pins /tmp/pinned
  while read -r from at; do
    case "$from" in
      /*) got=$from ;;
      *) got=/tmp/key; rm -f $got; /usr/lib/apt/apt-helper -qq download-file "$from" $got >&2 ;;
    esac
    case "$at" in
      unpack) dpkg-deb --extract "$got" / ;;
      *) mkdir -p "${at%/*}"; cp "$got" "$at"; chmod 644 "$at" ;;
    esac
  done < "$folder/keys"
  apt-get -qq update
  # A pin counts before anything is resolved, as it does on the host.
  while read -r name; do
    (cd /tmp/pinned; apt-get -qq download "$name" >&2; dpkg-deb --extract "$name"_*.deb .)
    cp /tmp/pinned/etc/apt/preferences.d/* /tmp/pins/
  done < "$folder/pins"
  set -- $(cat "$folder/names")
  while read -r name like; do
    want=$name
    if [ -n "$like" ]; then
      version=$(apt-get -s install "$@" | sed -n "s/^Inst $like (\([^ ]*\) .*/\1/p"); version=${version#*:}
      want="$name=${version%-*}*"
    fi
    if apt-get -qq -s install "$want" > /dev/null 2>&1; then
      set -- "$@" "$want"
    else
      echo "$name" >> /out/left_out
    fi
  done < "$folder/maybe"
  apt-get -qq -y --print-uris -o Dir::Cache::archives=/tmp/none install "$@" | awk '{print $2}' >> /out/wanted
  apt-get -qq -y --download-only install "$@"
done
rm -rf /out/repository; mkdir /out/repository
sort -u /out/wanted | while read -r file; do
  plain=$(printf %s "$file" | sed 's/_[0-9]*%3a/_/')   # as the archive names it: without the epoch
  ln "/out/debs/$file" "/out/repository/$plain"
  dpkg-deb --field "/out/debs/$file"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$plain" \
    "$(stat -c %s "/out/debs/$file")" "$(sha256sum "/out/debs/$file" | cut -d' ' -f1)"
done > /out/repository/Packages
"""


def pack(writer: Writer, wanted: dict[str, Any], work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Download what is not there yet, add the repository to the bundle; return its entry in the manifest.

    DeployctlError when apt cannot resolve or fetch.
    wanted: {release, base (image), mirror, suite, components, apt_settings, sources, keyrings, names, sets}. A set:
    {names, somewhere, matching {name: package whose version it must have}, pins, components, sources,
    keys [{from (path or URL), at (empty: a package to unpack)}]}, all but names may be missing. What stands in
    `somewhere` and `matching` is left out where the archives do not have it.
    """
    release = str(wanted["release"])
    folder = work / "packages" / release
    names = asked(wanted)
    say(f"packages for {release}: {len(names)} and what they need")
    repository = download(folder, wanted)
    for file in sorted(repository.iterdir()):
        writer.add_file(f"packages/{release}/{file.name}", file)
    left_out = sorted(set((folder / "left_out").read_text(encoding="utf-8").split()))
    there = [name for name in names if name not in left_out]
    versions = versions_in((repository / "Packages").read_text(encoding="utf-8"))
    return {"folder": f"packages/{release}", "names": there, "versions": versions, "left_out": left_out}


def asked(wanted: dict[str, Any]) -> list[str]:
    """Return every package that is asked for, without versions, sorted."""
    sets = wanted["sets"]
    names = [*wanted["names"], *(name for one in sets for name in one["names"])]
    names += [name for one in sets for name in (*one.get("somewhere", ()), *one.get("matching", ()))]
    return sorted({name.partition("=")[0] for name in names})


def versions_in(index: str) -> dict[str, list[str]]:
    """Return the versions of every package in an index of apt."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in index.splitlines():
        key, _colon, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key == "Version":
            found.setdefault(name, []).append(value)
    return found


def nowhere(wanted: list[dict[str, Any]], packed: Mapping[str, Any]) -> list[str]:
    """Return what one release at least should have had, and none had."""
    must = {name for one in wanted for part in one["sets"] for name in part.get("somewhere", ())}
    had = {name for entry in packed.values() for name in entry["names"]}
    return sorted(must - had)


def download(folder: Path, wanted: dict[str, Any]) -> Path:
    """Resolve and download into a folder; return the one with the packages and their index. DeployctlError."""
    given = folder / "in"
    shutil.rmtree(given, ignore_errors=True)
    (given / "keyrings").mkdir(parents=True)
    (given / "apt.conf").write_text(wanted["apt_settings"], encoding="utf-8")
    for keyring in wanted["keyrings"]:
        (given / "keyrings" / Path(keyring).name).write_bytes(Path(keyring).read_bytes())
    trusted = ssl.get_default_verify_paths().cafile
    if trusted:
        (given / "ca.crt").write_bytes(Path(trusted).read_bytes())
    for number, one in enumerate([{"names": wanted["names"]}, *wanted["sets"]]):
        lay_out(given, number, wanted, one)
    (folder / "get.sh").write_text(SCRIPT, encoding="utf-8")
    command = ["docker", "run", "--rm", "--network", "host", "-v", f"{given}:/in:ro", "-v", f"{folder}:/out"]
    command += ["--label", "deployctl.role=bundle", "--entrypoint", "sh", wanted["base"], "/out/get.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = " / ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        hint = f"does {wanted['mirror']} hold {wanted['suite']}? Other archives go into `bundle_apt_sources`"
        raise DeployctlError(f"packages for {wanted['release']} cannot be had: {told}", hint)
    return folder / "repository"


def lay_out(given: Path, number: int, wanted: dict[str, Any], one: dict[str, Any]) -> None:
    """Write one set as the script reads it."""
    folder = given / "sets" / f"{number:03}"
    folder.mkdir(parents=True)
    suite = wanted["suite"]
    components = " ".join(dict.fromkeys([*wanted["components"].split(), *one.get("components", ())]))
    lines = [f"deb {wanted['mirror']} {part} {components}" for part in (suite, f"{suite}-updates")]
    lines += [line.replace("{suite}", suite) for line in [*wanted["sources"], *one.get("sources", ())]]
    keys = []
    for place, key in enumerate(one.get("keys", ())):
        source = key["from"]
        if "://" not in source:
            (folder / f"key{place}").write_bytes(Path(source).read_bytes())
            source = f"/in/sets/{folder.name}/key{place}"
        keys.append(f"{source} {key['at'] or 'unpack'}")
    maybe = [*one.get("somewhere", ()), *(f"{name} {like}" for name, like in one.get("matching", {}).items())]
    texts = {"sources.list": lines, "keys": keys, "pins": one.get("pins", []), "maybe": maybe}
    for name, text in {**texts, "names": sorted(set(one["names"]))}.items():
        (folder / name).write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
