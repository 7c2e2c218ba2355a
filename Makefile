# `make demo` shows bootvol at work; `make test` runs all tests.
# IMAGE=path-or-url selects another bootable image for both; PYTHON=... another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RELEASE := .venv-release
OPENSTACK := .venv-openstack
CLIENTS := .venv-clients
ANSIBLE := .venv-ansible
FUZZING := .venv-fuzzing
TEMPEST := .venv-tempest
CEPH := ceph-mon ceph-osd ceph-mgr ceph-common python3-rbd python3-rados
LIBRARIES := ruby-fog-openstack golang-go golang-github-gophercloud-gophercloud-dev
LVM := user-mode-linux gcc libc6-dev kmod iproute2 lvm2 thin-provisioning-tools
export IMAGE

.PHONY: demo run check lint test tempest coverage fuzz breaks bench lock audit release packages clean

# As root on Debian or Ubuntu, installs a missing QEMU; otherwise the demo tells how to install QEMU.
demo: $(VENV)/.installed
	command -v qemu-system-x86_64 >/dev/null || [ "$$(id -u)" != 0 ] || \
	  ! command -v apt-get >/dev/null || sh tests/packages.sh qemu-system-x86
	$(BIN)/python -m demo.demo

run: $(VENV)/.installed
	mkdir -p var/images
	$(BIN)/twistd --nodaemon --pidfile= bootvol --config twistd.conf

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The quick part of `make test`, for each commit: takes less than 3 minutes on two idle cores.
# Leaves out the tests marked "heavy", which need Ceph, OpenStack, a guest or a mounted file system.
check: lint
	sh tests/packages.sh qemu-utils postgresql xz-utils zstd python3-rbd python3-rados \
	  e2fsprogs xfsprogs btrfs-progs
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "not heavy" tests/unit tests/contract

# Everything. PATIENCE=3 multiplies the time limits of all tests, for a busy machine.
test: packages lint $(OPENSTACK)/.installed $(CLIENTS)/.installed $(CLIENTS)-old/.installed \
  $(ANSIBLE)/.installed $(TEMPEST)/.installed
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# OpenStack's own tests of its APIs: with users and images of bootvol, as in `make test`, and with a Keystone
# and a Glance. TEMPEST_TESTS=regex selects some of the tests. Then the clients of volumes with Keystone and Glance.
tempest: $(VENV)/.installed-dev $(CLIENTS)/.installed $(TEMPEST)/.installed $(OPENSTACK)/.installed \
  $(ANSIBLE)/.installed
	$(BIN)/pytest -m "" tests/system/test_tempest.py
	$(BIN)/pytest -m "" -k openstack tests/system/test_storage_clients.py tests/system/test_block_storage_clients.py

# Reports the lines and branches of src and plugins without a test: on the terminal, and in htmlcov/.
# TESTS="tests/unit tests/contract" measures some tests only.
TESTS ?= tests
coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report

# Feeds the parsers with FUZZ times as many inputs as `make test`, and then each decoder of images for
# FUZZ seconds with images that atheris changes; see tests/fuzzing/.
FUZZ ?= 50
fuzz: $(VENV)/.installed-dev $(FUZZING)/.installed
	sh tests/packages.sh qemu-utils xz-utils zstd
	FUZZ=$(FUZZ) $(BIN)/pytest -m fuzz --numprocesses 2 tests/unit tests/integration
	$(FUZZING)/bin/python -m tests.fuzzing -max_total_time=$(FUZZ)

# Makes each claim of docs/security.md false in turn; the claim's test must fail. Takes about an hour.
breaks: $(VENV)/.installed-dev
	git diff --quiet HEAD -- src plugins
	$(BIN)/python -m tests.breaks

# Pins the packages of a release by hashes in requirements.lock, for any system and Python.
lock: $(RELEASE)/.installed
	$(RELEASE)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" --extra postgresql --output-file requirements.lock pyproject.toml

# Looks for known vulnerabilities of the pinned packages; fails with a message without such data.
audit: $(RELEASE)/.installed
	$(RELEASE)/bin/python -m release.audit

# Makes the packages in dist, and the bill of materials (CycloneDX) of the pinned packages.
release: $(RELEASE)/.installed $(VENV)/.installed-dev
	$(BIN)/pytest --quiet tests/unit/test_lock.py
	$(RELEASE)/bin/uv build --quiet --out-dir dist
	$(RELEASE)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file dist/bootvol.cdx.json requirements.lock

# Writes benchmarks/RESULTS.md; takes one and a half hours, 35 GiB of disk, and root to mount a disk. The first
# run makes a Debian disk of 300 packages in var/debian. `python -m benchmarks GROUP` measures some rows.
bench: $(VENV)/.installed-dev $(OPENSTACK)/.installed
	sh tests/packages.sh nginx-light qemu-utils curl xz-utils zstd xfsprogs mount e2fsprogs \
	  grub-common grub-pc-bin $(CEPH) $(LVM)
	sh tests/guest/fetch.sh
	$(BIN)/python -m benchmarks

# The packages for the tests: QEMU and its tools, a bootable image from Debian, PostgreSQL, file systems,
# the parts of the tests' guest, curl and GnuPG for comparisons, libraries for Nova in Ruby and Go, Ceph,
# and LVM with a kernel of its own.
packages:
	sh tests/packages.sh qemu-system-x86 qemu-utils ipxe postgresql e2fsprogs xfsprogs btrfs-progs \
	  mount grub-common grub-pc-bin openssh-client qemu-block-extra curl gnupg gpgv $(LIBRARIES) $(CEPH) $(LVM)
	sh tests/guest/fetch.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  sh tests/packages.sh python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.installed

# The tools for releases. They are apart, since neither users nor tests need the tools.
$(RELEASE)/.installed: $(VENV)/bin/python release/requirements.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet --disable-pip-version-check --requirement release/requirements.txt
	touch $@

# atheris has packages for few systems, and only `make fuzz` needs it.
$(FUZZING)/.installed: $(VENV)/bin/python pyproject.toml tests/fuzzing/requirements.txt
	$(PYTHON) -m venv $(FUZZING)
	$(FUZZING)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]' \
	  --requirement tests/fuzzing/requirements.txt
	touch $@

# Keystone and Glance for the tests. They are apart, since bootvol does not need their many packages.
$(OPENSTACK)/.installed: $(VENV)/bin/python tests/openstack/requirements.txt tests/openstack/constraints.txt
	$(PYTHON) -m venv $(OPENSTACK)
	$(OPENSTACK)/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/openstack/requirements.txt
	touch $@

# Clients of Nova, new and old. They are apart, since they need different versions of libraries.
$(CLIENTS)/.installed: $(VENV)/bin/python tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/clients/requirements.txt
	touch $@

$(CLIENTS)-old/.installed: $(VENV)/bin/python tests/clients/requirements-old.txt
	$(PYTHON) -m venv $(CLIENTS)-old
	$(CLIENTS)-old/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/clients/requirements-old.txt
	touch $@

# Ansible, whose collection for OpenStack needs an older openstacksdk than the other clients. Takes 500 MB.
$(ANSIBLE)/.installed: $(VENV)/bin/python tests/clients/requirements-ansible.txt
	$(PYTHON) -m venv $(ANSIBLE)
	$(ANSIBLE)/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/clients/requirements-ansible.txt
	touch $@

# Tempest for the tests. The suite is apart, since bootvol does not need its many packages.
$(TEMPEST)/.installed: $(VENV)/bin/python tests/tempest/requirements.txt
	$(PYTHON) -m venv $(TEMPEST)
	$(TEMPEST)/bin/pip install --quiet --disable-pip-version-check \
	  --requirement tests/tempest/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(RELEASE) $(FUZZING) $(OPENSTACK) $(CLIENTS) $(CLIENTS)-old $(ANSIBLE) $(TEMPEST) var
