"""Checks of names, types and ranges: every variable the user set, against the site's schema and the roles' specs."""

import re
from collections.abc import Iterator
from typing import Any

from deploy_cli.plan import ports, schema, specs
from deploy_cli.plan.findings import Findings
from deploy_cli.plan.shapes import GROUPS, KeyPath, SiteInput, Unresolved
from deploy_cli.plan.wording import ENCRYPTED, VAULT_HINT, did_you_mean, listing

ALL_EQUAL = ("models",)


def check_groups(site: SiteInput, out: Findings) -> None:
    """The three groups exist, hold a host, and have one site group above them."""
    for group in GROUPS:
        if not site.groups.get(group):
            state = "has no host" if group in site.groups else "is missing"
            parent = site.site or "<site>"
            out.add_site(
                f"group `{group}` {state}", f"name at least one host in `{group}`, a child of group `{parent}`"
            )
    if not site.site:
        check_parents(site, out)  # then it is they who say why
    if not site.site and "serving" in site.groups and not any(site.parents.values()):
        out.add_site(
            "group `serving` stands in no site group",
            "make `serving`, `gateway` and `telemetry` children of one group named after the site",
        )


def check_parents(site: SiteInput, out: Findings) -> None:
    """Each of the three groups stands in the site's group, and in no other."""
    several = len(site.parents) == len(GROUPS) and len({tuple(above) for above in site.parents.values()}) == 1
    folder = "; of a folder with several sites, name the file of one" if several else ""
    for group, above in site.parents.items():
        # `serving` names the site, so its parent has to be the only one.
        if site.site in above and (len(above) == 1 or group != "serving"):
            continue
        if len(above) > 1:
            out.add_site(
                f"group `{group}` has {len(above)} parents, {listing(above)}: a site is one group",
                f"keep it below the site's group alone; a group of your own names its hosts instead{folder}",
            )
        elif site.site:
            place = f"is a child of `{above[0]}`, not" if above else "stands outside"
            out.add_site(
                f"group `{group}` {place} of the site's group `{site.site}`",
                f"make it a child of `{site.site}`, beside the other two",
            )


def check_variables(site: SiteInput, out: Findings) -> None:
    """Every variable of every host: a known name, a template that renders, the right type and range."""
    options = {name: option for role in site.specs.values() for name, option in role.items()}
    checked: list[tuple[str, str, str | None]] = []
    for host, values in site.hosts.items():
        for name, value in values.items():
            # Most values are the group's, the same for every host: looked at once.
            seen = (name, repr(value), site.origin(host, (name,)))
            if seen in checked:
                if any(out.is_bad(h, name) for h in site.hosts if site.hosts[h].get(name) == value):
                    out.bad.add((host, (name,)))
                continue
            checked.append(seen)
            _check_one(site, out, host, name, value, options)


def _check_one(site: SiteInput, out: Findings, host: str, name: str, value: Any, options: dict[str, Any]) -> None:
    mistake = specs.unknown_name(name, site.specs, schema.SITE)
    if mistake:
        out.add(host, (name,), *mistake)
        return
    if value is None and name in site.nullable:
        return
    if name in schema.SITE:
        rules = schema.SITE[name]
    elif name in options:
        rules = specs.to_schema(name, options[name] or {})
        if value == "" and name in site.filled and (options[name] or {}).get("type") == "path":
            out.add(host, (name,), f"`{name}` is empty", f"leave it out, or write {rules['description']}")
    elif name == "ansible_port":
        rules = specs.to_schema(name, {"type": "int", "description": "port of the host's SSH"})
    elif name in ("ansible_host", "ansible_connection"):
        rules = {}
    else:
        return
    blind = dict(unresolved(value, (name,)))
    for path, gap in blind.items():
        needed = name in schema.SITE or name in site.defaults or name.startswith("ansible_")
        if needed or not gap.facts:
            out.add(host, path, f"{schema.label(path)} cannot be rendered: {gap.reason}", _render_hint(gap))
    for path, what, hint in schema.check(value, rules, (name,)):
        if path not in blind:
            out.add(host, path, what, hint)


def _render_hint(gap: Unresolved) -> str:
    if gap.reason == ENCRYPTED:
        return VAULT_HINT
    return "write the value itself" if gap.facts else "define the variable, or correct the template"


def unresolved(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Unresolved]]:
    """Yield every place below `value` whose template could not be rendered."""
    if isinstance(value, Unresolved):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from unresolved(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unresolved(item, (*path, index))


def check_same(site: SiteInput, out: Findings) -> str | None:
    """The host to read `models` from; it must be the same on every host of the site."""
    homes = [host for host in site.hosts if "models" in site.hosts[host]]
    if not homes:
        if site.hosts:
            folder = f"group_vars/{site.site or '<site>'}/models.yml"
            out.add_site(
                "no `models` anywhere: there is nothing to serve",
                f"write a list `models` in {folder}, such as `- {{name: tiny-chat, source: synthetic:tiny-chat}}`",
            )
        return None
    reference = homes[0]
    for name in ALL_EQUAL:
        alike: list[list[str]] = []
        for host in homes:
            group = next((g for g in alike if site.hosts[g[0]][name] == site.hosts[host][name]), None)
            if group:
                group.append(host)
            else:
                alike.append([host])
        # What most have is meant for all: the place of the others is where it is to be put right.
        usual, *odd = sorted(alike, key=len, reverse=True)
        reference = usual[0]
        if others := [host for group in odd for host in group]:
            out.add(
                others[0],
                (name,),
                f"`{name}` on {', '.join(others)} differs from `{name}` on {reference}",
                "it belongs to the whole site: set it once, for the site group",
            )
    return reference


def check_thresholds(site: SiteInput, home: str, out: Findings) -> None:
    """Thresholds of single models name one that is there; any other would never count."""
    models = site.hosts[home]["models"]
    entries = models if isinstance(models, list) else []
    names = [str(entry["name"]) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    if not names or len(names) < len(entries):
        return  # told already
    variable = "acceptance_load_thresholds_by_model"
    seen = []
    for host, values in site.hosts.items():
        if (one := (repr(values.get(variable)), site.origin(host, (variable,)))) in seen:
            continue  # the group's, the same for every host
        seen.append(one)
        limits = values.get(variable)
        for index, entry in enumerate(limits if isinstance(limits, list) else []):
            name = entry.get("model") if isinstance(entry, dict) else None
            if isinstance(name, str) and name not in names:
                what = f"`{variable}[{index}]` is for a model `{name[:60]}`, and `models` has none of that name"
                hint = did_you_mean(name, names, f"one of {listing(names)}")
                out.add(host, (variable, index, "model"), what, hint)


def check_grace(site: SiteInput, out: Findings) -> None:
    """Docker's patience with an engine is longer than the engine's own with its requests, or these are cut off."""
    names = ("vllm_stop_grace_seconds", "vllm_shutdown_timeout_seconds")
    for host in site.groups.get("serving", ()):
        written = site.hosts.get(host, {}).get(names[0])  # the role's default follows the timeout
        grace, timeout = ports.number(written), ports.number(site.setting(host, names[1]))
        if grace is not None and timeout is not None and grace <= timeout:
            what = f"`{names[0]}` {grace} is not longer than `{names[1]}` {timeout}: Docker would cut requests off"
            out.add(host, (names[0],), what, f"leave it out (then it is 30 s longer), or write at least {timeout + 1}")


def check_keys(site: SiteInput, out: Findings) -> None:
    """The gateway's API keys: at least one, long enough, no two the same. Never tells a key."""
    if site.site and site.site not in site.parents.get("gateway", [site.site]):
        return  # told already: the site's variables do not reach it
    for host in site.groups.get("gateway", ()):
        keys = site.setting(host, "haproxy_api_keys")
        if isinstance(keys, Unresolved) or (
            keys and out.is_bad(host, "haproxy_api_keys") and not isinstance(keys, list)
        ):
            continue
        if not keys:
            out.add(
                host,
                ("haproxy_api_keys",),
                "`haproxy_api_keys` has no key: nobody could use the gateway",
                "set `haproxy_api_keys: [{id: <who>, key: <at least 16 characters, from the vault>}]`",
            )
        elif isinstance(keys, list):
            _check_key_list(host, keys, out)


def _check_key_list(host: str, keys: list[Any], out: Findings) -> None:
    ids: dict[Any, int] = {}
    texts: dict[Any, int] = {}
    for index, entry in enumerate(keys):
        path: KeyPath = ("haproxy_api_keys", index)
        if not isinstance(entry, dict):
            continue  # told by the role's spec
        for field, seen in (("id", ids), ("key", texts)):
            text = entry.get(field)
            if isinstance(text, Unresolved):
                continue
            if text is None or text == "":
                if not out.is_bad(host, *path):
                    out.add(host, path, f"`haproxy_api_keys[{index}]` has no `{field}`", "write both `id` and `key`")
                continue
            if not isinstance(text, str):
                if field == "key":
                    out.add(
                        host, (*path, field), f"the key of `haproxy_api_keys[{index}]` is not text", "put it in quotes"
                    )
                continue
            first = seen.setdefault(text, index)
            if first != index:
                what = f"`haproxy_api_keys[{index}]` has the same {field} as `haproxy_api_keys[{first}]`"
                out.add(host, (*path, field), what, "give every user of the gateway an id and a key of their own")
            # A client sends it in a header, and HAProxy compares it sign by sign. (`init` asks with templates.)
            if field == "key" and not re.fullmatch(r"[!-~]+", text) and "{{" not in text:
                ended = re.fullmatch(r"[!-~]+\s+", text)
                fault = "ends with a line break or blank" if ended else "holds a blank or a sign outside of ASCII"
                out.add(
                    host,
                    (*path, field),
                    f"the key of `haproxy_api_keys[{index}]` {fault}: no client could send it",
                    "`printf %s <key> | ansible-vault encrypt_string` adds no line break as `echo` does; "
                    "`key: |` adds one as well",
                )
            elif field == "key" and len(text) < 16:
                out.add(
                    host,
                    (*path, field),
                    f"the key of `haproxy_api_keys[{index}]` is shorter than 16 characters",
                    "make one with `openssl rand -hex 32`",
                )
