# `make help` lists what there is. Everything works in the checkout alone: .venv holds the tools, var/ the data.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/pip install --disable-pip-version-check
READY := $(VENV)/.ready
TOOLS := $(VENV)/.ready-tools
.DEFAULT_GOAL := help
# Python keeps what it has compiled, whatever the environment says: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

# $(call debian,TEST,PACKAGES): where the shell command TEST fails, root installs the packages; others are told to.
define debian
@if ! $(1) >/dev/null 2>&1; then \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(2)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(2) >/dev/null; \
	else \
		echo "please install: $(2) (on Debian as root: apt-get install $(2))" >&2; exit 1; \
	fi; \
fi
endef

.PHONY: bench help venv tools run test lint types check coverage simulate fuzz attack chaos ini site wheel deb apt-repo deb-test clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(READY) ## .venv with gopush (editable) and what it needs to run

tools: $(TOOLS) ## the tools for its tests and checks, too

# Two stamps: who only wants to see gopush run does not wait for the tools that test it.
$(READY): setup.cfg pyproject.toml
	$(call debian,command -v $(PYTHON),python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gopush needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(call debian,$(PYTHON) -c 'import ensurepip',python3-venv)
	@echo "making $(VENV), and installing gopush and the libraries that it needs into it, once"
	@$(PYTHON) -m venv --clear $(VENV)
	$(PIP) -e . --config-settings editable_mode=compat
	@touch $@

$(TOOLS): $(READY)
	@echo "installing the tools for tests and checks into $(VENV), once"
	$(PIP) -e '.[test,check]' --config-settings editable_mode=compat
	@touch $@

run: $(READY) ## all of gopush in the foreground; what it keeps is in var/
	@mkdir -p var
	@bound() { sed -n "s/^$$1 *= *//p" etc/gopush.ini | head -n 1; }; \
		web=$$(bound http.bind); admin=$$(bound admin.bind); \
		ready() { $(BIN)/gopush ready --config etc/gopush.ini >/dev/null 2>&1; }; \
		if ready; then \
			echo "a gopush runs already: end it, or give this one other ports in etc/gopush.ini" >&2; exit 1; \
		fi; \
		[ "$$web" = localhost:8090 ] || web_option=" --web $$web"; \
		[ "$$admin" = localhost:8091 ] || admin_option=" --admin $$admin"; \
		echo "starting gopush; Ctrl-C ends it"; \
		(until ready; do [ $$? = 1 ] && sleep 0.2 && kill -0 $$$$ 2>/dev/null || exit; done; \
		kill -0 $$$$ 2>/dev/null || exit; \
		case $$web/$$admin in *tcp:*|*tcp6:*|*ssl:*|*unix:*|*systemd:*|*" "*|/*|*/) \
			echo "gopush runs, where etc/gopush.ini says"; exit;; \
		esac; \
		printf '%s\n' \
			"gopush runs. In two other terminals:" \
			"  $(BIN)/gopush sub Terry-Mao$$web_option" \
			"  $(BIN)/gopush push Terry-Mao '{\"hello\": \"world\"}' --expire 600$$admin_option" \
			"Kill it and 'make run' again; what was acknowledged is still there, and the subscriber comes back:" \
			"  kill -9 $$$$" \
			"In a browser:" \
			"  http://$$admin/demo   a subscriber whose connection you can break" \
			"  http://$$admin/       the administrators' page") & \
		cd var && exec ../$(BIN)/twistd --nodaemon --pidfile= gopush --config ../etc/gopush.ini

test: $(TOOLS) ## all tests, on servers of their own
	$(call debian,command -v redis-server,redis-server)
	$(call debian,test -x /usr/share/zookeeper/bin/zkServer.sh,zookeeper)
	$(call debian,which chromium chromedriver,chromium chromium-driver)
	$(call debian,command -v cc,gcc libc6-dev)
	$(call debian,command -v faketime,faketime)
	$(call debian,command -v git,git)
	$(call debian,ls /usr/sbin/haproxy /usr/sbin/nginx /usr/lib/nginx/modules/ngx_stream_module.so,haproxy nginx-light libnginx-mod-stream)
	$(call debian,which mvn java,maven default-jre-headless)
	$(call debian,which node php,nodejs php-cli)
	$(call debian,command -v promtool,--no-install-recommends prometheus)
	@$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(TOOLS) ## ruff: style and common mistakes
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(TOOLS) ## mypy --strict
	@$(BIN)/mypy

check: lint types test ## what a change must pass

coverage: $(TOOLS) ## branches that the tests of ARGS take, the default all; last, what the pure core lacks of 100%
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report --skip-covered
	@echo "The pure core (tests/test_layers.py):"
	@$(BIN)/coverage report --include="$$($(BIN)/python -m tests.test_layers)" --fail-under=0

simulate: $(TOOLS) ## the delivery contract on a simulated network: SEED=7 N=100000 MEMBERS=alone
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(N),-n $(N)) $(if $(MEMBERS),--members $(MEMBERS))

chaos: $(TOOLS) ## kill, freeze and empty parts of a real cluster under load: SCENARIO=comet-killed SEED=7 MINUTES=5 MEMBERS=alone
	$(call debian,command -v redis-server,redis-server)
	$(call debian,test -x /usr/share/zookeeper/bin/zkServer.sh,zookeeper)
	$(call debian,which mvn java,maven default-jre-headless)
	@$(BIN)/python -m tests.chaos $(SCENARIO) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(MEMBERS),--members $(MEMBERS))

bench: $(TOOLS) ## how fast gopush is on this machine: NAME=handshakes RUNS=5
	$(call debian,command -v cc,gcc libc6-dev)
	$(call debian,command -v redis-server,redis-server)
	$(call debian,test -x /usr/share/zookeeper/bin/zkServer.sh,zookeeper)
	@$(BIN)/python -m bench $(if $(NAME),--name "$(NAME)") $(if $(RUNS),--runs $(RUNS))

fuzz: $(TOOLS) ## feed it what it must not trip over: N=10000000 SEED=7
	@$(BIN)/python -m tests.fuzz $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED))

attack: $(TOOLS) ## attack a comet with real sockets while honest subscribers listen: NAME=silent
	@$(BIN)/python -m tests.attack $(NAME)

ini: $(TOOLS) ## etc/*.ini anew, from the options as they are declared
	@for role in comet message web gopush; do $(BIN)/gopush ini $$role > etc/$$role.ini || exit; done

site: $(READY) ## build/site: README and docs/ as a web site, links checked
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(PIP) -q -e '.[docs]' --config-settings editable_mode=compat
	@$(BIN)/python packaging/site.py build/site-pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file packaging/mkdocs.yml

wheel: $(TOOLS) ## dist/gopush-*.whl
	@$(BIN)/pip wheel -q --no-deps -w dist .

deb: ## dist/*.deb, for Debian 12
	$(call debian,which dpkg-checkbuilddeps git /usr/bin/pip3,dpkg-dev git python3-pip)
	@packaging/build dist

apt-repo: deb ## dist/apt: a signed repository of them for apt: KEY=you@example.org, else with a key made for it
	$(call debian,which gpg,gpg)
	@packaging/apt-repo dist dist/apt $(if $(KEY),"$(KEY)")

deb-test: deb ## install, upgrade and purge them in a fresh Debian 12; for root
	$(call debian,which debootstrap systemd-nspawn lintian,debootstrap systemd-container lintian)
	@tests/packaging/run dist

clean: ## forget everything made here but var/
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name dropin.cache -delete
