"""Everything a site needs, in one file: packed where there is a network, served where there is none.

The file is a plain tar, so that `tar` opens it too. Parts are read out of it in place, by their offset: nothing is
unpacked on the control node. `manifest.json`, its last member, names every other one with size and SHA-256; the hash of
the manifest is the bundle's id, and comparing that one id over another channel proves all of it.
"""
