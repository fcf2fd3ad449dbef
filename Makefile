# SPDX-License-Identifier: GPL-2.0-or-later
# The one door; "make help" lists what is behind it.  The module itself is in Kbuild.

# The kernel of demo, vm, check-guest, soak and the benches: a line of scripts/kernels.
KERNEL ?= 6.12
# How long to soak.
MINUTES ?= 10
# What check-transfers moves: so many bytes by SEND and RECV, and a file of so many to so many
# clients by SENDFILE.  Without SEED=... it takes another one each time, and prints it.
BYTES ?= 10000000000
FILE_BYTES ?= 1073741824
CLIENTS ?= 100
# The kernel that plain "make" and "make install" are for.
RELEASE ?= $(shell uname -r)
KDIR ?= /lib/modules/$(RELEASE)/build
RULES_DIR ?= /usr/lib/udev/rules.d
MAN_DIR ?= /usr/share/man

# So many random programs, always the same of one seed.
PROGRAMS ?= 2000
SEED ?= 1

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# A status of 77 means that this machine cannot run one of the two.
CHECK_DIFFERENTIAL = $(PYTHON) scripts/check-differential --programs $(PROGRAMS) --seed $(SEED) \
	--kernel $(KERNEL) || test $$? -eq 77

# Programs of the kernel tests: one a source, all with what lib*.c shares, some with
# a folder of their own; those that speak of the ABI also as 32-bit programs.
TEST_LIB := $(wildcard tests/kernel/lib*.c)
TEST_HEADERS := $(wildcard tests/kernel/lib*.h)
TEST_PROGRAMS := $(patsubst tests/kernel/%.c,build/kernel-tests/%,\
	$(filter-out $(TEST_LIB),$(wildcard tests/kernel/*.c)))
TEST_PROGRAMS += $(patsubst %,build/kernel-tests/%-m32,basic request_bits header_bits)
SOAK_SOURCES := $(wildcard tests/soak/*.c)
TRANSFER_SOURCES := $(wildcard tests/transfers/*.c)
TEST_PROGRAMS += build/kernel-tests/soak build/kernel-tests/integrity
# Those that need the debug kernel: with what lib*.c of both folders shares.
DEBUG_LIB := $(wildcard tests/debug/lib*.c)
DEBUG_PROGRAMS := $(patsubst tests/debug/%.c,build/debug-tests/%,\
	$(filter-out $(DEBUG_LIB),$(wildcard tests/debug/*.c)))
TEST_CC = $(CC) -O2 -g -static -pthread -Wall -Wextra -Werror

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

.PHONY: all
all: $(KDIR)/Makefile ## build kevent.ko for the running kernel, or for KDIR=...
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

$(KDIR)/Makefile:
	@echo "no kernel headers in $(KDIR);" \
		"apt-get install linux-headers-$(RELEASE), or make KDIR=..." >&2; exit 1

.PHONY: install
install: all ## install the module, the udev rule and the manual page
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install
	/sbin/depmod -a $(RELEASE)
	install -D -m 644 chardev/60-kevent.rules $(RULES_DIR)/60-kevent.rules
	install -D -m 644 doc/kevent.4 $(MAN_DIR)/man4/kevent.4
	udevadm control --reload

.PHONY: uninstall
uninstall: ## undo install
	rm -f $(RULES_DIR)/60-kevent.rules $(MAN_DIR)/man4/kevent.4
	find /lib/modules/$(RELEASE) -name 'kevent.ko*' -delete
	/sbin/depmod -a $(RELEASE)

.PHONY: demo
demo: bootstrap ## watch Linux KERNEL=6.12 load the module in QEMU, and Python use it
	@$(PYTHON) scripts/guest $(KERNEL) --timeout 120 -- $(PYTHON) examples/demo.py

.PHONY: vm
vm: bootstrap ## a shell in a guest with the module loaded; KERNEL=...
	@$(PYTHON) scripts/guest $(KERNEL) --shell

.PHONY: check
check: kernel-tests ## check-host, check-sim, check-differential, then the guests of two kernels
	@$(PYTEST) tests/unit tests/host
	@$(PYTHON) scripts/check-sim
	@$(CHECK_DIFFERENTIAL)
	@$(PYTEST) tests/guest

.PHONY: check-host
check-host: bootstrap ## lint, types, unit tests, header, compiler, sparse, checkpatch
	@$(PYTEST) tests/unit tests/host

.PHONY: check-sim
check-sim: bootstrap ## conformance tests on the simulator, and its own; no guest, no module
	@$(PYTHON) scripts/check-sim

.PHONY: check-differential
check-differential: bootstrap ## random programs on module, simulator and a model; PROGRAMS=2000 SEED=1 KERNEL=...
	@$(CHECK_DIFFERENTIAL)

.PHONY: check-guest
check-guest: kernel-tests ## conformance and kernel tests in a guest; KERNEL=...
	@KERNEL=$(KERNEL) $(PYTEST) tests/guest

.PHONY: check-kernels
check-kernels: kernel-tests ## gcc, sparse and the guests' tests on all of scripts/kernels
	@KERNEL=all $(PYTEST) tests/host/test_module.py tests/guest

.PHONY: check-debug
check-debug: kernel-tests debug-tests ## tests, races, faults, fuzzing under KASAN, lockdep, kmemleak
	@$(PYTHON) scripts/check-debug

.PHONY: check-kcsan
check-kcsan: kernel-tests ## the kernel tests under the sanitizer of data races
	@$(PYTHON) scripts/check-kcsan

.PHONY: prove-debug
prove-debug: kernel-tests debug-tests ## that each lane catches the deliberate bugs that are for it
	@$(PYTHON) scripts/prove-debug

SECONDS ?= 300
REPLAY ?=

.PHONY: fuzz
fuzz: bootstrap ## random programs under the debug kernel; SECONDS=300, or REPLAY=file
	@$(PYTHON) scripts/fuzz $(if $(REPLAY),--replay $(REPLAY),--seconds $(SECONDS))

.PHONY: bench
bench: bootstrap ## count instructions in a guest, beside epoll and io_uring; KERNEL=...
	@$(PYTHON) scripts/bench $(KERNEL)

.PHONY: bench-naio
bench-naio: bootstrap ## count instructions of transfers, beside io_uring and plain calls; KERNEL=...
	@$(PYTHON) scripts/bench-naio $(KERNEL)

.PHONY: bench-web
bench-web: bootstrap ## the web server of examples/, beside the same on epoll, by instructions; KERNEL=...
	@$(PYTHON) scripts/bench-web $(KERNEL)

.PHONY: bench-limits
bench-limits: bootstrap ## a million kevents in 4 GB: cost, memory, end; KERNEL=...
	@$(PYTHON) scripts/bench-limits $(KERNEL)

# Caches that no others share, so that their objects can be counted.
.PHONY: soak
soak: bootstrap build/kernel-tests/soak ## mixed load with clients killed, in a guest; MINUTES=10 KERNEL=...
	@$(PYTHON) scripts/guest $(KERNEL) --timeout $$(($(MINUTES) * 60 + 900)) \
		--kernel-args slab_nomerge --results build/$(KERNEL)/soak \
		--env KEVENT_SOAK_SECONDS=$$(($(MINUTES) * 60)) \
		--env KEVENT_TEST_LIMIT=$$(($(MINUTES) * 60 + 300)) \
		-- build/kernel-tests/soak

# A processor that copies byte by byte, and pages that are cleared first, take an emulated
# machine longest of all.
TRANSFER_GUEST = $(PYTHON) scripts/guest $(KERNEL) --memory 6G --kernel-args init_on_alloc=0 \
	--qemu-args="-cpu max,-erms" --env KEVENT_TRANSFER_CLIENTS=$(CLIENTS) \
	$(if $(filter-out file,$(origin SEED)),--env KEVENT_TEST_SEED=$(SEED))

.PHONY: check-transfers
check-transfers: bootstrap build/kernel-tests/integrity ## bytes through transfers, each compared, in guests; BYTES=... FILE_BYTES=... CLIENTS=... SEED=... KERNEL=...
	@$(TRANSFER_GUEST) --timeout 7200 --results build/$(KERNEL)/transfers \
		--env KEVENT_TRANSFER_BYTES=$(BYTES) --env KEVENT_TRANSFER_FILE=$(FILE_BYTES) \
		-- tests/transfers/on-disk 3G build/kernel-tests/integrity
	@$(TRANSFER_GUEST) --timeout 1200 --results build/$(KERNEL)/transfers-pause --icount \
		--env KEVENT_TRANSFER_FILE=33554432 --env KEVENT_TRANSFER_PAUSE=1000000 \
		-- tests/transfers/on-disk 1G build/kernel-tests/integrity \
		a_file_arrives_whole_at_clients_of_all_speeds_and_nobody_waits_for_them

.PHONY: bootstrap
bootstrap: ## get the packages and the .venv that everything else needs
	@scripts/bootstrap

.PHONY: kernel-tests
kernel-tests: bootstrap $(TEST_PROGRAMS) ## the C tests

build/kernel-tests/%: tests/kernel/%.c $(TEST_LIB) $(TEST_HEADERS) chardev/kevent_uapi.h | bootstrap
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(TEST_CC) -o $@ $(filter %.c,$^)

.PHONY: debug-tests
debug-tests: bootstrap $(DEBUG_PROGRAMS) ## the C tests of faults

build/debug-tests/%: tests/debug/%.c $(DEBUG_LIB) $(TEST_LIB) tests/debug/fault.h $(TEST_HEADERS) chardev/kevent_uapi.h | bootstrap
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(TEST_CC) -o $@ $< $(DEBUG_LIB) $(TEST_LIB)

build/kernel-tests/%-m32: tests/kernel/%.c $(TEST_LIB) $(TEST_HEADERS) chardev/kevent_uapi.h | bootstrap
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(TEST_CC) -m32 -o $@ $(filter %.c,$^)

build/kernel-tests/pairs: $(wildcard tests/kernel/pairs/*.[ch])

build/kernel-tests/soak: $(SOAK_SOURCES) tests/soak/soak.h $(TEST_LIB) $(TEST_HEADERS) chardev/kevent_uapi.h | bootstrap
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(TEST_CC) -o $@ $(SOAK_SOURCES) $(TEST_LIB)

build/kernel-tests/integrity: $(TRANSFER_SOURCES) tests/transfers/transfers.h $(TEST_LIB) $(TEST_HEADERS) chardev/kevent_uapi.h | bootstrap
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(TEST_CC) -o $@ $(TRANSFER_SOURCES) $(TEST_LIB)

.PHONY: clean
clean: ## remove what was built
	rm -rf build Module.symvers modules.order
	rm -f kevent.ko kevent.o kevent.mod kevent.mod.c kevent.mod.o
	find . kmod chardev -maxdepth 1 \( -name '*.o' -o -name '*.o.d' -o -name '.*.cmd' \) -delete

.PHONY: distclean
distclean: clean ## remove .venv and all caches in the tree as well
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
