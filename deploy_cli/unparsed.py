"""Why Ansible could not read an inventory, out of its log.

It ends with 'Completely failed to parse inventory source ...'; the reasons stand in warnings before, one of each plugin
that tried, and only one of them is about what the file is meant to be. Pure.
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy_cli.plan.wording import ENCRYPTED, VAULT_HINT

_ENDED = re.compile(r"Completely failed to parse inventory source\s+(\S.*)")
_TRIED = re.compile(
    r"^\[WARNING\]: Failed to parse inventory with '(\w+)' plugin[:.]\s*(.*?)(?=^\[(?:WARNING|ERROR)\]|\Z)",
    re.MULTILINE | re.DOTALL,
)
_ORIGIN = re.compile(r"^Origin: (/.*?)(?::(\d+)(?::\d+)?)?$", re.MULTILINE)
_YAML = (".yml", ".yaml", ".json")
_PREFIXES = ("YAML parsing failed: ", "Failed to parse inventory: ")
# What Ansible's INI reader says, and what it means.
_NO_BRACKET = "not enough values to unpack"


def about_vault(text: str) -> bool:
    """Say whether Ansible lacks a vault's password; that the file of one cannot be read says so by itself."""
    return bool(re.search(r"vault secrets|vault password(?! file)", text))


def reason(error: str, log: str) -> tuple[str, str] | None:
    """Return (what with its place, hint) of an error about an inventory source; None when it is about something else.

    error: the last one of Ansible. log: the whole of it, without colours.
    """
    ended = _ENDED.search(error)
    if not ended:
        return None
    source = ended[1].strip()
    tried = [(found[1], found[2]) for found in _TRIED.finditer(log)]  # Ansible ends at the first source
    if not tried:
        return f"Completely failed to parse inventory source {source}", "it is no inventory that Ansible knows"
    is_yaml = Path(source).suffix in _YAML
    fitting = ("script", "yaml", "auto") if is_yaml else ("script", "ini")
    # The sort keeps the order of those that fit equally little: the last one tried is then told.
    plugin, told = sorted(tried, key=lambda one: -fitting.index(one[0]) if one[0] in fitting else -len(fitting))[-1]
    what = _words(told)
    origins = [found[0] for _, text in tried if _words(text) == what and (found := _ORIGIN.findall(text))]
    # The file may be another one: what -e names is read with the inventory.
    file, line = max(origins, key=lambda one: bool(one[1]), default=(source, ""))
    where = f"{file}:{line}" if line else file
    if about_vault(what):
        return f"{where}: {ENCRYPTED}", VAULT_HINT
    if _NO_BRACKET in what:
        return f"{where}: a line that begins with `[` has no `]`", "write the name of a group as `[serving]`"
    if plugin == "ini" and "Invalid host pattern" in what and "':'" in what:
        return f"{where}: {what}", "the file of an inventory in YAML has a name that ends in `.yml`"
    return f"{where}: {what}", "see this line and the one above" if line else ""


def _words(told: str) -> str:
    """The first paragraph: the reason, which the terminal may have broken into lines."""
    text = " ".join(told.partition("\n\n")[0].split())
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text[:500]
