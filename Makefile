# Two commands do everything: `make demo` and `make test`. Each makes the virtual environments it needs.
PYTHON ?= python3
BIN := .venv/bin
BIN3 := .venv-datasets3/bin
# A plain range would take a CUDA build of several GB; training users choose their own build of torch.
TORCH := torch==2.13.0
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# Where Python starts in the folder that holds this one, its name alone would make an empty package of it: the checkout
# stands on the path, where the real one is found first.
on_path = $(1)/python -c "import os, sysconfig; open(os.path.join(sysconfig.get_path('purelib'), 'skyset-checkout.pth'), 'w').write(os.getcwd())"

# Some places ask Python to keep no compiled code: here, hundreds of processes would compile the same modules again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test suite lint docs peers bench clean

demo: .venv/.user
	$(BIN)/python demo.py

# The types are checked, on one core, while the tests run.
test: .venv/.dev .venv-datasets3/.dev
	$(MAKE) --no-print-directory --jobs 2 lint suite
	$(BIN3)/python -m pytest tests -n 2 -m datasets3

suite: .venv/.dev
	$(BIN)/python -m pytest tests -n 3

# The real SExtractor, PSFEx and SCAMP, and STILTS's checks of TAP services (Debian); tests skip where there are none.
PEERS := source-extractor psfex scamp stilts
peers:
	@(for peer in $(PEERS); do command -v $$peer || exit 1; done) >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq $(PEERS); } >/dev/null 2>&1 \
	  || echo "$(PEERS) are not installed here: the tests that compare with them skip"

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m mypy skyset

# The site, in site/. Every page is checked: a link or an anchor that leads nowhere ends it.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

bench: .venv/.dev
	$(BIN)/python benchmarks/build.py

.venv/.user: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[compression]'
	$(call on_path,$(BIN))
	touch $@

.venv/.dev: .venv/.user
	$(BIN)/python $(PIP_INSTALL) $(TORCH)
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/.docs: .venv/.user
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv-datasets3/.dev: setup.cfg constraints-datasets3.txt
	test -x $(BIN3)/python || $(PYTHON) -m venv .venv-datasets3
	$(BIN3)/python $(PIP_INSTALL) $(TORCH)
	$(BIN3)/python $(PIP_INSTALL) --constraint constraints-datasets3.txt --editable '.[test]'
	$(call on_path,$(BIN3))
	touch $@

clean:
	rm -rf .venv .venv-datasets3 build site *.egg-info
