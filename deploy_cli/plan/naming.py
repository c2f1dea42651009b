"""Names that follow from a model's name: pool, instances, folder in the model store. Equal input, equal name."""

import hashlib
import re

_COMMIT = re.compile(r"[0-9a-f]{40}")


def slug(name: str) -> str:
    """A model's name as part of a container's name: lower case, every run of other characters is one `-`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def pool(name: str) -> str:
    """A model's name as the name of an HAProxy backend: lower-case letters, digits and `-`."""
    return slug(name).replace(".", "-")


def instance(name: str, replica: int) -> str:
    """Name of one engine of a model, `tiny-chat-0`."""
    return f"{slug(name)}-{replica}"


def store_folder(kind: str, source: str, revision: str | None) -> str:
    """Folder of a model in the model store; another source or revision is another folder."""
    if kind == "synthetic":
        return source.replace(":", "-")
    if kind == "path":
        tail = source.rstrip("/").rsplit("/", 1)[-1] or "root"
        return f"{_safe(tail)}--{_digest(source)}"
    pinned = revision or "main"
    version = pinned[:12] if _COMMIT.fullmatch(pinned) else f"{_safe(pinned)}-{_digest(pinned)}"
    return f"{_safe(source.replace('/', '--'))}--{version}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
