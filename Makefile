# Everything a user, a developer or CI does. `make help` lists it.
#
# Where: in the virtual environment that is active, else in .venv, which is made when needed.
# Options: PYTHON=python3.12 (makes .venv), TORCH=torch==2.11.0 (installed unless there is a torch >= 2.10),
# TORCH_INDEX=https://download.pytorch.org/whl/cpu (where from), ARGS="..." (for pytest, the demo or the benchmark),
# QUICK=1 (short demo), FUZZ_SECONDS=60, and setup.py's CC, CXX, DALIGN_*.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

include csrc/flags.mk

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
FUZZ_SECONDS ?= 60
CLANG ?= clang
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A line of our own as the last word on what went wrong.
die = { echo "torch-dalign: $(1)" >&2; exit 1; }

# ---------------------------------------------------------------- environment

ACTIVE := $(shell $(PYTHON) -c 'import sys; print(sys.prefix if sys.prefix != sys.base_prefix else "")' 2>/dev/null)
ENV := $(or $(ACTIVE),.venv)
PY := $(ENV)/bin/python
PIP := $(PY) -m pip
# In the environment, as they tell what it holds; one folder per checkout, as several may share it.
STAMPS := $(ENV)/.torch-dalign/$(subst /,_,$(CURDIR))
SOURCES := setup.py pyproject.toml csrc/flags.mk $(shell find csrc cuda -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu*')

$(STAMPS)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		$(call die,Python 3.10 or newer is needed; have $$($(PYTHON) --version 2>&1): set PYTHON=python3.12 or another)
	@test -x $(PY) || $(PYTHON) -m venv .venv || $(call die,no virtual environment: Debian and Ubuntu: apt install python3-venv)
	@$(PIP) --version >/dev/null 2>&1 || $(PY) -m ensurepip || $(call die,no pip for $(PY): install it)
	@mkdir -p $(@D) && touch $@

# setup.py doctor looks for compilers before hundreds of megabytes are downloaded.
$(STAMPS)/tools: $(STAMPS)/python
	$(PIP) install -q 'setuptools>=77' 'pybind11>=2.12'
	@$(PY) setup.py -q doctor
	@touch $@

# Before anything that depends on torch, so that no other torch than the wanted one is ever downloaded.
$(STAMPS)/torch: $(STAMPS)/tools
	@$(PY) -c 'import torch; assert torch.__version__ >= "2.10"' 2>/dev/null || \
		$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@touch $@

# $(call install,dev): this package, editable, with that extra. The build's own line is repeated after pip's.
define install
	@mkdir -p build
	@$(PIP) install --no-build-isolation -e '.[$(1)]' 2>&1 | tee build/install.log || \
		{ grep -a 'torch-dalign: ' build/install.log | tail -1 >&2; exit 1; }
endef

$(STAMPS)/dev: $(STAMPS)/torch $(SOURCES)
	$(call install,dev)
	@touch $@

$(STAMPS)/experiments: $(STAMPS)/torch $(SOURCES)
	$(call install,experiments)
	$(PIP) install -q --no-deps tinysoundfont
	@touch $@

$(STAMPS)/bench: $(STAMPS)/torch $(SOURCES)
	$(call install,bench)
	@for peer in aeon gdtw linmdtw soft-dtw torchdtw; do \
		$(PIP) install -q --no-deps $$peer || echo "$$peer does not install here; the benchmark goes without it"; \
	done
	@touch $@

.PHONY: build
build: $(STAMPS)/dev ## install this package, editable, with what development needs

# ---------------------------------------------------------------- Python

.PHONY: demo test bench lint format gpu-check dist
demo: $(STAMPS)/experiments ## the main job: train on real music, write pictures (QUICK=1: under a minute)
	$(PY) -m experiments.quickstart $(if $(filter 1,$(QUICK)),--quick) $(ARGS)

test: $(STAMPS)/dev ## all tests of the package, and the examples in docstrings
	$(PY) -m pytest $(ARGS)

bench: $(STAMPS)/bench ## compare speed and memory with other packages
	$(PY) -m experiments.bench $(or $(ARGS),softdtw)

lint: $(STAMPS)/dev ## ruff, mypy, clang-format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	@format=$$($(FIND_CLANG_FORMAT)) || { echo "clang-format is not installed: C files are not checked"; exit 0; }; \
		echo "$$format --dry-run"; $$format --dry-run -Werror $(C_FILES)

format: $(STAMPS)/dev ## let ruff and clang-format rewrite the files
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$$($(FIND_CLANG_FORMAT)) -i $(C_FILES)

C_FILES = $(shell find csrc cuda tests/c -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu*')
FIND_CLANG_FORMAT = ls $(dir $(PY))clang-format 2>/dev/null || command -v clang-format

gpu-check: ## build into the active environment without downloads, then test: for a machine that has torch and a GPU
	$(PYTHON) -m pip install --no-build-isolation --no-deps -e .
	$(PYTHON) -m pytest $(ARGS)

dist: $(STAMPS)/dev ## sdist, and from it a wheel, in dist/
	rm -rf dist
	$(PIP) install -q build
	$(PY) -m build --no-isolation --outdir dist

# ---------------------------------------------------------------- the C library alone

# Everything a program of tests/c needs, under build/c/VARIANT: the kernels per ISA level, dispatch, the programs.
ISA := $(if $(filter x86_64,$(shell uname -m)),$(ISA_LEVELS),generic)
C_TESTS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/test_*.c))
# What the programs share: the files of tests/c that are no program.
C_SHARED := $(patsubst tests/c/%.c,%,$(filter-out tests/c/test_% tests/c/fuzz_% tests/c/isa.c,$(wildcard tests/c/*.c)))

# Under sanitizers: small functions, and so little room for kept tiles that many problems keep some of theirs and not others.
CHECKED = -O1 -g1 -DDALIGN_NO_INLINE -DDALIGN_KEEP_TILES_BYTES=400000 -DDALIGN_DTW_ROWS_BYTES=20000 -DDALIGN_DTW_TILES_BYTES=300000 \
	-DDALIGN_CTC_KEEP_BYTES=60000 -DDALIGN_CTC_ROWS_BYTES=20000 -DDALIGN_WAVES_BLOCK_BYTES=2000
asan_CC = $(CC)
asan_FLAGS = $(CHECKED) -Werror -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
plain_CC = $(CC)
plain_FLAGS = -g1 -Werror -DDALIGN_TEST_DOUBLE
fuzz_CC = $(CLANG)
fuzz_FLAGS = $(CHECKED) -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

# $(call kernels,VARIANT,ISA), $(call library,VARIANT)
define kernels
.PRECIOUS: build/c/$(1)/$(2)/%.o
build/c/$(1)/$(2)/%.o: csrc/%.c csrc/flags.mk Makefile
	@mkdir -p $$(@D)
	$$($(1)_CC) $$(C_FLAGS) $$(ISA_$(2)) -DDALIGN_ISA=$(2) $$($(1)_FLAGS) -MMD -MP -c $$< -o $$@
endef
define library
$(foreach isa,$(ISA),$(eval $(call kernels,$(1),$(isa))))
$(1)_OBJECTS := build/c/$(1)/dispatch.o $(foreach isa,$(ISA),$(KERNELS:%=build/c/$(1)/$(isa)/%.o))
$(1)_OBJECTS += $(C_SHARED:%=build/c/$(1)/tests/%.o)
build/c/$(1)/dispatch.o: csrc/simd/dispatch.c csrc/flags.mk Makefile
	@mkdir -p $$(@D)
	$$($(1)_CC) $$(C_FLAGS) $$($(1)_FLAGS) -MMD -MP -c $$< -o $$@
.PRECIOUS: build/c/$(1)/tests/%.o
build/c/$(1)/tests/%.o: tests/c/%.c csrc/flags.mk Makefile
	@mkdir -p $$(@D)
	$$($(1)_CC) $$(C_FLAGS) $$($(1)_FLAGS) -MMD -MP -c $$< -o $$@
build/c/$(1)/%: build/c/$(1)/tests/%.o $$($(1)_OBJECTS)
	$$($(1)_CC) $$($(1)_FLAGS) -pthread $$^ -lm -o $$@
endef
$(foreach variant,asan plain fuzz,$(eval $(call library,$(variant))))
-include $(wildcard build/c/*/*.d build/c/*/*/*.d)

# $(call each,LEVELS,VARIANT,COMMAND): every test program, at each level that this CPU has.
define each
	@test -n "$(C_TESTS)" || $(call die,no tests/c/test_*.c)
	@for isa in $(1); do \
		have=$$(DALIGN_ISA=$$isa build/c/$(2)/isa); \
		if [ $$have != $$isa ]; then echo "== $$isa: not on this CPU"; continue; fi; \
		for name in $(C_TESTS); do \
			echo "== $$name, $$isa"; DALIGN_ISA=$$isa $(3) build/c/$(2)/$$name </dev/null; \
		done; \
	done
endef

.PHONY: ctest ctest-valgrind fuzz cuda-compile
ctest: build/c/asan/isa $(C_TESTS:%=build/c/asan/%) ## the C library's own tests, under ASan and UBSan, per ISA level
	$(call each,$(ISA),asan,)
	@echo "ctest: passed"

# valgrind knows no AVX-512; what it runs is AVX2.
ctest-valgrind: build/c/plain/isa $(C_TESTS:%=build/c/plain/%) ## the same programs under valgrind, each seventh problem (slow)
	@command -v valgrind >/dev/null || $(call die,no valgrind: Debian and Ubuntu: apt install valgrind)
	$(call each,$(lastword $(filter-out avx512,$(ISA))),plain,DALIGN_TEST_EVERY=7 valgrind -q --error-exitcode=9 --leak-check=full)
	@echo "ctest-valgrind: passed"

# One corpus for all levels: what is new to one is tried on the next. The time is shared among them.
fuzz: ## libFuzzer on the C library for FUZZ_SECONDS
	@command -v $(CLANG) >/dev/null || $(call die,no $(CLANG): Debian and Ubuntu: apt install clang)
	@$(MAKE) --no-print-directory build/c/fuzz/fuzz_softdtw
	@mkdir -p build/fuzz/corpus
	@for isa in $(ISA); do \
		echo "== fuzz, $$isa"; DALIGN_ISA=$$isa build/c/fuzz/fuzz_softdtw build/fuzz/corpus -artifact_prefix=build/fuzz/ \
			-max_total_time=$$(($(FUZZ_SECONDS) / $(words $(ISA)))) -timeout=20 -print_final_stats=1 </dev/null; \
	done
	@echo "fuzz: passed"

cuda-compile: $(STAMPS)/tools ## compile cuda/*.cu with nvcc, where there is one
	$(PY) setup.py -q cuda_compile

# ---------------------------------------------------------------- housekeeping

.PHONY: clean help
clean: ## remove what was built (.venv stays)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(STAMPS)
	find torch_dalign -name '*.so' -delete
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24
