"""Role argument specs as JSON schema, and the rule for names that no spec knows.

Ansible checks the same specs when a role starts, one role after the other on the hosts; here all are checked at once,
before any host is touched. What Ansible would convert by itself (`"8000"` for an int) passes here too.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from deploy_cli.plan.wording import nearest

Mistake = tuple[str, str, Literal["error", "warning"]]

_NUMBER = {"type": "string", "pattern": r"^-?[0-9]+\Z"}
_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": ["string", "number"]},
    # Absolute, or in a home; an empty one is judged by the role's default. (`init` asks with templates.)
    "path": {"type": "string", "pattern": r"^([/~]|\{\{|\Z)"},
    "raw": {},
    "jsonarg": {},
    "json": {},
    "int": {"anyOf": [{"type": "integer"}, _NUMBER]},
    "float": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?\Z"}]},
    "bool": {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off", "true", "false", 0, 1, "0", "1"]}]},
    "list": {"type": ["array"]},
    "dict": {"type": "object"},
    "bytes": {"type": ["string", "integer"]},
    "bits": {"type": ["string", "integer"]},
}
# For a variable of a known shape, words are clearer than the schema that stands behind them.
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "str": "text",
    "path": "a path from `/` on",
}
# By the end of the variable's name: what a text must look like, and words for it.
_SIZE = r"[0-9]+(\.[0-9]+)?( ?([bkmgtpBKMGTP]|[KMGTP]B))?"
_FORMS = {
    "_registry_prefix": (
        r"^([\w.-]+(:[0-9]+)?(/[\w./-]*)?)?\Z",
        "such as mirror.example:5000/stack, without `https://`",
    ),
    "_shm_size": (rf"^{_SIZE}\Z", "such as 4g or 512m"),
    "_memory_limit": (rf"^({_SIZE})?\Z", "such as 4g or 512m, or empty"),
}

# By which Ansible reaches a host: all it has are too many to keep here, so only what is near to these is told.
_REACH = tuple(
    f"ansible_{name}"
    for name in (
        *("host", "user", "port", "connection", "password", "python_interpreter", "private_key_file"),
        *("become", "become_method", "become_user", "become_password", "become_pass", "become_exe", "become_flags"),
        *("ssh_private_key_file", "ssh_common_args", "ssh_extra_args", "ssh_args", "ssh_host", "ssh_user", "ssh_port"),
        *("ssh_pass", "ssh_password", "ssh_private_key", "sftp_extra_args", "scp_extra_args"),
    )
)


def to_schema(name: str, option: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of one option of an argument spec; ranges come from the unit in its name (`_port`, ...)."""
    kind = str(option.get("type", "str"))
    if "choices" in option:
        schema: dict[str, Any] = {"enum": list(option["choices"])}
    else:
        schema = dict(_TYPES.get(kind, {}))
    if kind == "list" and (option.get("elements") or option.get("options")):
        schema["items"] = to_schema("", {**option, "type": option.get("elements", "dict")})
        schema["items"].pop("description", None)
        if option.get("elements") != "dict" and "choices" in option:
            schema = {"type": "array", "items": schema["items"]}
    elif kind == "dict" and option.get("options"):
        options = option["options"]
        schema["properties"] = {k: to_schema(k, v or {}) for k, v in options.items()}
        schema["required"] = [k for k, v in options.items() if (v or {}).get("required")]
        schema["additionalProperties"] = False
    schema |= _range(name, kind)
    wanted = " ".join(str(option.get("description") or "").split()).rstrip(".")
    form, words = next((f for end, f in _FORMS.items() if name.endswith(end)), ("", ""))
    if form and kind == "str":
        schema["pattern"] = form
        words = f" {words}"
    schema["description"] = f"{_WANTED.get(kind, kind)}{words}" + (f": {wanted}" if wanted else "")
    return schema


def _range(name: str, kind: str) -> dict[str, int]:
    if kind not in ("int", "float"):
        return {}
    if name.endswith(("_port", "_port_base")) or name == "port":
        return {"minimum": 1, "maximum": 65535}
    if name.endswith("_percent"):
        return {"minimum": 0, "maximum": 100}
    if name.endswith("_port_range"):
        return {"minimum": 0, "maximum": 65535}
    units = (
        "_seconds",
        "_ms",
        "_bytes",
        "_mib",
        "_gib",
        "_tokens",
        "_days",
        "_hours",
        "_count",
        "_ms_max",
        "_second_min",
    )
    return {"minimum": 0} if name.endswith(units) else {}


def unknown_name(name: str, specs: Mapping[str, Mapping[str, Any]], site: Iterable[str]) -> Mistake | None:
    """(what, hint, severity) when a variable's name looks like a mistake, None when it is known or the user's own.

    A name that begins with a role's name and an underscore must be in that role's spec. Any other name is the user's
    own, unless it is very near to a name that deployctl reads, or (a warning) by which Ansible reaches a host.
    """
    site_names = list(site)
    if name in site_names or name in _REACH or name.startswith("_"):
        return None
    if near := nearest(name, _REACH, cutoff=0.9):
        return f"variable `{name}` is none that Ansible is known to read", f"did you mean `{near}`?", "warning"
    if name.startswith("ansible_"):
        return None
    roles = [r for r in specs if name.startswith(f"{r}_")]
    if roles:
        role = max(roles, key=len)
        if any(name in specs[r] for r in roles):
            return None
        near = nearest(name, specs[role])
        hint = (
            f"did you mean `{near}`?"
            if near
            else f"`deployctl` reads only names in roles/{role}/meta/argument_specs.yml"
        )
        return f"unknown variable `{name}`: role {role} has none of that name", hint, "error"
    near = nearest(name, site_names, cutoff=0.83) or nearest(
        name, [option for options in specs.values() for option in options], cutoff=0.94
    )
    if near:
        return (
            f"unknown variable `{name}`",
            f"did you mean `{near}`? Otherwise give your own variable a name less like it",
            "error",
        )
    return None
