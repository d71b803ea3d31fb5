# make test     all checks: ruff, mypy, pytest
#   make test WORKERS=4  with four processes instead of two
# make quick    the fast tests of language, graph, records, runtime and engine: no browser, no pretrained model
# make test-models  the tests on pretrained models alone, Gemma's among them, which make test leaves out
# make minutes  the tests of minutes, a day of work in a page, and every architecture of transformers, which make test leaves out
# make demo     runs the first notebook on the built-in model; the result lands in build/demo
#   make demo MODEL=smollm2 TEXT=your.txt [QUESTION="..."]  summarises your text and answers a question about it
# make lab      opens the lessons in JupyterLab, trusted, so that their pictures answer to the pointer
# make soak     ten minutes of calls whose handles are dropped: memory, threads and descriptors stay
# make docs     the documentation as a site in build/docs, which needs no network
# make lessons  runs all notebooks on the built-in model and stores what they show in them
# make gpu      on a machine with CUDA: its tests and figures, into build/gpu, with the torch that is installed
#   make gpu PART=kernels|engine|single|apps  one part, of less than nine minutes; what has ended well is not run again
#   make gpu REHEARSE=1  every part on the CPU and on a stand-in for a device, small: measures nothing
# make kinds    the tests of what a CPU computes, for other kinds of CPU than this one
# make audit    known vulnerabilities of what is installed, where the package index has data on them
# make sbom     a CycloneDX bill of materials of what the package needs, in dist
# make dist     what a release consists of, in dist: the wheel and its bill of materials
# make lint     ruff and mypy alone
# make widget   builds the module that draws graphs, after a change of its sources; needs Node and npm
# make clean    removes what the others made
#
# Each sets up what it needs, once, in .venv. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

DEMO := 01_semantic_variables
DEMO_OUT := build/demo
YOUR_TEXT := notebooks/templates/your_text

# The user's own paths, kernels and settings stay out of it, and nothing is written outside this folder.
HERMETIC := env -u JUPYTER_PATH -u JUPYTER_CONFIG_PATH -u JUPYTER_CONFIG_DIR -u JUPYTER_DATA_DIR -u JUPYTER_RUNTIME_DIR \
	-u IPYTHONDIR -u XDG_CACHE_HOME -u XDG_CONFIG_HOME -u XDG_DATA_HOME -u PARROT_NB_CACHE \
	HOME="$(CURDIR)/build/home" JUPYTER_PREFER_ENV_PATH=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false \
	PATH="$(CURDIR)/$(BIN):$$PATH"

unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: test quick lab minutes soak test-models gpu kinds demo docs lessons audit sbom dist lint clean widget browser graphviz pretrained
.NOTPARALLEL:

QUICK := $(addprefix tests/,language graph record runtime test_architecture.py test_public_surface.py) \
	$(patsubst %,tests/engine/test_%.py,cache sampling codec detokenize seams failing_steps option_edges templates)

# Each process runs whole files, since fixtures belong to files; in the order of the folders, which has the long ones early.
WORKERS := 2
PARALLEL = OMP_NUM_THREADS=1 pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: browser graphviz pretrained lint | build/home
	$(HERMETIC) $(PARALLEL) --durations=10 </dev/null
	@$(MAKE) --no-print-directory kinds

quick: $(INSTALLED) | build/home
	$(HERMETIC) $(PARALLEL) -m "not slow and not browser and not real" $(QUICK) </dev/null

# Variables of torch and oneDNN make an x86 CPU pass for an older one; "plain" is what macOS and ARM builds have.
ON_A_KIND = $(PARALLEL) -m cpu_kinds tests/kernels tests/engine

kinds: $(INSTALLED) | build/home
	$(HERMETIC) ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 $(ON_A_KIND) </dev/null
	$(HERMETIC) ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(ON_A_KIND) </dev/null
	$(HERMETIC) ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(ON_A_KIND) </dev/null
	$(HERMETIC) $(ON_A_KIND) --cpu-kind plain </dev/null

test-models: $(INSTALLED) | build/home
	@$(HERMETIC) python tests/real/pretrained.py smollm2 gemma3 >/dev/null </dev/null
	$(HERMETIC) $(PARALLEL) -m "real or gemma" --durations=10 </dev/null

minutes: browser graphviz pretrained | build/home
	$(HERMETIC) $(PARALLEL) -m "minutes or architectures" --durations=10 </dev/null

soak: $(INSTALLED) | build/home
	PARROT_SOAK_S=$${PARROT_SOAK_S:-600} $(HERMETIC) OMP_NUM_THREADS=1 pytest -q -k "many_calls or random_work" tests/session tests/engine/test_soak.py </dev/null

# Nothing is installed for it: the Python is that of .venv where there is one, else PYTHON, with whatever torch it has.
GPU_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

gpu: | build/home
	PYTHONPATH="$(CURDIR):$(CURDIR)/kernels" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(GPU_PYTHON) -m parrot_nb.bench gpu \
		$(if $(PART),--part $(PART)) $(if $(REHEARSE),--rehearse) </dev/null

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(INSTALLED)
	@$(BIN)/python .ci/audit.py </dev/null

VERSION = $(shell $(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')

sbom: $(INSTALLED)
	@$(BIN)/python .ci/sbom.py dist/parrot_nb-$(VERSION).cdx.json </dev/null

dist: sbom
	$(BIN)/python -m pip wheel -q --no-deps -w dist . </dev/null

# Only what is said on the command line counts: a variable of the environment may mean something else.
ifeq (,$(findstring command line,$(origin MODEL) $(origin TEXT)))
demo: graphviz $(INSTALLED) | build/home
	@rm -rf $(DEMO_OUT) && mkdir -p $(DEMO_OUT)
	$(HERMETIC) python -m nbconvert --to notebook --execute --ExecutePreprocessor.kernel_name=python3 \
		--ExecutePreprocessor.timeout=300 --output-dir $(DEMO_OUT) --log-level WARN notebooks/$(DEMO).ipynb </dev/null
	$(HERMETIC) python -m nbconvert --to html --log-level WARN $(DEMO_OUT)/$(DEMO).ipynb </dev/null
	@echo
	@echo "The executed notebook: $(DEMO_OUT)/$(DEMO).ipynb"
	@echo "To look at it:         $(DEMO_OUT)/$(DEMO).html"
else
demo: graphviz $(INSTALLED) | build/home
	@test -n "$(TEXT)" || { echo "Say which text: make demo MODEL=smollm2 TEXT=your.txt"; exit 1; }
	@test "$(MODEL)" = smollm2 || test -d "$(MODEL)" || { echo "Say which model, smollm2 or a folder: make demo MODEL=smollm2 TEXT=your.txt"; exit 1; }
	@$(HERMETIC) python $(YOUR_TEXT).py --check --model "$(MODEL)" -- "$(TEXT)"
	@model="$(MODEL)"; test "$$model" != smollm2 || model="$$($(HERMETIC) python tests/real/pretrained.py smollm2 </dev/null)" || exit 1; \
		$(HERMETIC) python $(YOUR_TEXT).py --model "$$model" --question "$(QUESTION)" --into $(DEMO_OUT) -- "$(TEXT)" </dev/null
	@echo
	@echo "The executed notebook: $(DEMO_OUT)/your_text.ipynb"
	@echo "To look at it:         $(DEMO_OUT)/your_text.html"
endif

lab: graphviz $(INSTALLED) | build/home
	$(HERMETIC) jupyter trust notebooks/*.ipynb
	$(HERMETIC) jupyter lab $(LAB) notebooks

docs: $(INSTALLED) | build/home
	$(HERMETIC) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet -f docs/mkdocs.yml </dev/null
	@echo "The documentation: build/docs/index.html (to search it, too: $(BIN)/python -m http.server -d build/docs)"

lessons: graphviz pretrained | build/home
	$(HERMETIC) PARROT_SMOLLM2="$${PARROT_SMOLLM2:-$(CURDIR)/build/models/smollm2/folder}" OMP_NUM_THREADS=1 \
		python tests/notebooks/lessons.py </dev/null

WIDGET := parrot_nb/notebook/widget/frontend

widget:
	cd $(WIDGET) && npm ci --silent && npm run build

clean:
	rm -rf $(WIDGET)/node_modules
	rm -rf $(VENV) build notebooks/build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("parrot_nb needs Python 3.11 or later: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call debian,python3-venv) || true
	$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -c constraints-dev.txt -e '.[dev]' </dev/null
	@touch $@

build/home:
	@mkdir -p $@

# Programs from outside Python. They are installed where that can be done unasked: as root on Debian and its kin.

debian = { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
	{ apt-get -qq update; apt-get -qq install -y --no-install-recommends $(1); } >/dev/null </dev/null; }

has_chromium = { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null

browser:
	@$(has_chromium) || $(call debian,chromium fonts-dejavu-core) || true
	@$(has_chromium) || { echo "No Chromium here: install it (Debian: apt-get install chromium) to run the browser tests."; test -z "$$CI"; }

# A pretrained model, in build/models; where it cannot be fetched the tests on it are skipped.
pretrained: $(INSTALLED) | build/home
	@$(HERMETIC) python tests/real/pretrained.py smollm2 >/dev/null </dev/null || test -z "$$CI"

graphviz:
	@command -v dot >/dev/null || $(call debian,graphviz) || true
	@command -v dot >/dev/null || { echo "No Graphviz here: install it (Debian: apt-get install graphviz) to draw graphs with dot."; test -z "$$CI"; }
