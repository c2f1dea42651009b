#!/bin/bash
# Simulated: a newer release of the engine. Debian has one version of it at a time; so its own packages are packed again, with
# all that they hold and do, under a higher version, and lie in a repository of files.
set -euo pipefail
version=$1
folder=/srv/newer
rm -rf "$folder" /etc/apt/sources.list.d/newer.list
mkdir -p "$folder/unpacked"
cd "$folder"
apt-get update -qq
for name in docker.io docker-cli; do
  # What the mirror has, whatever is installed.
  apt-get download -qq "$name=$(apt-cache madison "$name" | head -n 1 | cut -d '|' -f 2 | tr -d ' ')"
done
for file in *.deb; do
  rm -rf unpacked
  dpkg-deb --raw-extract "$file" unpacked
  name=$(dpkg-deb --field "$file" Package)
  sed -i "s/^Version:.*/Version: $version/" unpacked/DEBIAN/control
  rm "$file"
  dpkg-deb --root-owner-group -Znone --build unpacked "$name.deb" >/dev/null
  { dpkg-deb --field "$name.deb"; echo "Filename: ./$name.deb"; echo "Size: $(stat -c %s "$name.deb")"
    echo "SHA256: $(sha256sum "$name.deb" | cut -d' ' -f1)"; echo; } >>Packages
done
rm -rf unpacked
echo "deb [trusted=yes] file:$folder ./" >/etc/apt/sources.list.d/newer.list
