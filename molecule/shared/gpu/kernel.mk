# Simulated: a kernel tree that DKMS builds against in a moment. Its modules hold nothing but their version and licence,
# which modinfo reads. With the file `broken` beside it, the build ends as one does whose driver does not know the kernel.
M ?= .
TREE := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
# Debian's proprietary modules; all others that the tests build are open.
LICENCE := $(if $(shell grep -x 'PACKAGE_NAME="nvidia-current"' $(M)/dkms.conf),NVIDIA,Dual MIT/GPL)
VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' $(M)/dkms.conf)

.PHONY: modules
modules:
	@if [ -e $(TREE)broken ]; then \
	  echo "nv-pci.c:237: error: too few arguments to function 'pci_resize_resource' (simulated)" >&2; exit 2; fi
	@cd $(M) && printf 'version=$(VERSION)\0license=$(LICENCE)\0' > info && : > empty && \
	for name in nvidia nvidia-modeset nvidia-drm nvidia-uvm nvidia-peermem; do \
	  ld -r -b binary -o $$name.ko empty && objcopy --add-section .modinfo=info $$name.ko; done
