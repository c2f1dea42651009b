"""Damage copies of a bundle: one byte of a package changed, and the end cut off in the middle of a layer.

Prints the names of the two members that are hit, and what the manifest says of its image.
"""

import json
import shutil
import sys
from pathlib import Path

from deploy_cli.bundle import archive

whole = archive.load(Path(sys.argv[1]))
package = next(name for name in whole.places if name.startswith("packages/") and "docker.io_" in name)
layer = max((name for name in whole.places if name.startswith("layers/")), key=lambda name: whole.places[name].size)
changed, cut = whole.file.with_name("changed.tar"), whole.file.with_name("cut.tar")
for copy in (changed, cut):
    shutil.copyfile(whole.file, copy)
with changed.open("r+b") as file:
    file.seek(whole.places[package].offset + 1000)
    byte = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([byte[0] ^ 1]))
with cut.open("r+b") as file:
    file.truncate(whole.places[layer].offset + 1000)
print(json.dumps({"changed": package, "cut": layer, "image": whole.manifest["images"][0]}))
