# tailrace. `make` builds build/tailrace; `make demo`, `make test`: see README.md.
# Modes: MODE=release (default), asan, tsan, libfuzzer (fuzz targets only, by clang). Each has its own folder
# under build/.

MODE ?= release
PYTHON ?= python3
VERSION := 0.1.0
B := build/$(MODE)
ifeq ($(MODE),release)
BIN := build/tailrace
else
BIN := $(B)/tailrace
endif
# WEB=0 builds without the dashboard and needs no Node.
WEB ?= 1
# V=1 shows the commands.
ifeq ($(V),)
Q := @
say = @printf '  %-4s %s\n' $(1) $(2)
endif

ifeq ($(origin CC),default)
CC := gcc
endif
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-qual -Wwrite-strings -Wformat=2 -Wundef -Wvla
HARDEN := -fstack-protector-strong -fstack-clash-protection -fPIE
OPT_release := -O2 -g -D_FORTIFY_SOURCE=2
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT_libfuzzer := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
PKGS := libevent_core libevent_extra libevent_openssl jansson sqlite3 libssl libcrypto zlib libcurl

LLHTTP_DIR ?= build/llhttp
# Asked once, at first use: `make deps-build` may have to bring pkg-config first.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $$(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $$(PKGS)))$(PKG_LIBS)
LIBS = $(PKG_LIBS) -lm
CPPFLAGS += -D_GNU_SOURCE -DTAILRACE_VERSION='"$(VERSION)"' -Iinclude -I$(LLHTTP_DIR) -Ibuild/web
CFLAGS += -std=c17 $(WARN) $(HARDEN) $(OPT_$(MODE)) -pthread
LDFLAGS += -pie -Wl,-z,relro,-z,now -pthread $(filter -fsanitize=%,$(OPT_$(MODE)))

LIB_SRC := $(sort $(wildcard gateway/base/*.c gateway/model/*.c gateway/proxy/*.c gateway/collector/*.c))
PROG_SRC := $(sort $(wildcard gateway/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
PROG_OBJ := $(PROG_SRC:%.c=$(B)/%.o)
WEB_OBJ := $(B)/web/pages.o
LLHTTP_OBJ := $(B)/llhttp/api.o $(B)/llhttp/http.o $(B)/llhttp/llhttp.o
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(B)/unit/%)

.PHONY: compare all schema deps deps-hook deps-build deps-demo deps-web deps-test deps-truth deps-soak deps-bench deps-deb build demo test unit clean lint format \
	bench backtest-null backtest-power truth soak screenshots asan asan-hook tsan install uninstall deb FORCE
all: deps-build $(if $(filter-out 0,$(WEB)),deps-web)
	@$(MAKE) --no-print-directory build

# --- what is missing -------------------------------------------------------
# Only these call apt-get; quiet and fast when nothing is missing.
deps: deps-test
deps-build deps-hook deps-demo deps-web deps-test deps-truth deps-soak deps-bench deps-deb:
	@PYTHON="$(PYTHON)" LLHTTP_DIR="$(LLHTTP_DIR)" scripts/deps $(@:deps-%=%)

# --- the daemon ------------------------------------------------------------
build: $(BIN)

$(BIN): $(PROG_OBJ) $(B)/libtailrace.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(PROG_OBJ) $(B)/libtailrace.a $(LIBS)

$(B)/libtailrace.a: $(LIB_OBJ) $(LLHTTP_OBJ) $(WEB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(B)/llhttp/%.o: $(LLHTTP_DIR)/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -std=c17 -O2 -g -fPIE $(filter -fsanitize=%,$(OPT_$(MODE))) -I$(LLHTTP_DIR) -c -o $@ $<

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The dashboard's files, as bytes and as a table.
build/web/pages.S: FORCE
	@WEB=$(WEB) scripts/web

build/web/collector/pages.inc: build/web/pages.S ;

$(WEB_OBJ): build/web/pages.S
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) -c -o $@ $<

$(B)/gateway/collector/pages.o: build/web/collector/pages.inc

# Objects are made anew when the flags change.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(subst ','"'"',$(CPPFLAGS)) $(CFLAGS)' | cmp -s - $@ || \
		printf '%s\n' '$(CC) $(subst ','"'"',$(CPPFLAGS)) $(CFLAGS)' >$@

# Schema and manual page are committed; tests/system/test_config.py says when they are stale.
schema: build
	$(BIN) check --schema >conf/tailrace.schema.json
	$(BIN) check --man >docs/tailrace.json.5

# --- tests -----------------------------------------------------------------
$(B)/unit/%: tests/unit/%.c $(B)/libtailrace.a $(B)/flags
	@mkdir -p $(@D)
	$(call say,TEST,$@)
	$(Q)$(CC) $(CPPFLAGS) -Itests/unit $(PKG_CFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $< $(B)/libtailrace.a \
		$(LIBS) -lcmocka

# Fuzz targets, one file each, with the plain driver (random mutations of tests/fuzz/corpus/TARGET) or libFuzzer.
FUZZ_DRIVER := $(if $(filter libfuzzer,$(MODE)),-fsanitize=fuzzer,tests/fuzz/driver.c)
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

$(B)/fuzz/%: tests/fuzz/%.c tests/fuzz/driver.c $(wildcard tests/fuzz/*.h) $(B)/libtailrace.a $(B)/flags
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(FUZZ_DRIVER) $(B)/libtailrace.a $(LIBS)

fuzz-build: $(FUZZ_BIN)
.PHONY: fuzz-build

BENCH_BIN = $(addprefix $(B)/,worker_alone collector_alone open_loop origin)

# The benchmarks' programs too, so that a change that breaks them is seen.
unit-build: $(UNIT_BIN) $(BENCH_BIN)
.PHONY: unit-build
unit: unit-build
	@for t in $(UNIT_BIN); do $$t || exit 1; done

test: deps-test $(if $(filter-out 0,$(WEB)),deps-web)
	@$(MAKE) --no-print-directory build unit-build fuzz-build
	@PYTHON="$(PYTHON)" scripts/test

demo: deps-demo
	@$(MAKE) --no-print-directory build
	@scripts/demo

# The README's headline example, made anew into docs/headline*: three minutes.
headline: deps-demo
	@$(MAKE) --no-print-directory build
	@cd demo && ../build/venv/bin/python headline.py

# The documents' waterfalls into docs/samples: the demo's, the guide's.
samples: deps-demo
	@$(MAKE) --no-print-directory build
	@SAMPLES=docs/samples scripts/demo
	@cd demo && for tour in guide tour; do SAMPLES=docs/samples ../build/venv/bin/python $$tour.py; done

# The pictures of docs/phases.md, from include/model/phases.def.
pictures: deps-test
	@build/venv/bin/python scripts/phase_pictures.py

# What the documents claim, against the tree (part of `make lint` and `make test`).
check-docs:
	@build/venv/bin/python scripts/check_docs.py
.PHONY: headline samples pictures check-docs

# Every scenario, in every mode, on every CPython that is here.
truth: deps-truth
	@$(MAKE) --no-print-directory build
	@TRUTH_ALL=1 scripts/test tests/truth

# What takes minutes: races, leaks, loads.
soak: deps-test deps-soak
	@$(MAKE) --no-print-directory build
	@scripts/test tests/soak

# All parts, or some: make bench BENCH="proxy tls".
bench: deps-bench
	@$(MAKE) --no-print-directory build $(BENCH_BIN)
	@build/venv/bin/python tests/bench/run.py $(BENCH)

$(B)/worker_alone: tests/bench/worker_alone.c $(B)/libtailrace.a \
		$(filter-out $(B)/gateway/main.o $(B)/gateway/commands.o $(B)/gateway/completion.o,$(PROG_OBJ))
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.a,$^) $(B)/libtailrace.a $(LIBS)

$(B)/open_loop $(B)/origin: $(B)/%: tests/bench/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -lm

$(B)/collector_alone: tests/bench/collector_alone.c tests/bench/collector_hold.c tests/bench/collector_input.c \
		tests/bench/collector_alone.h $(B)/libtailrace.a $(B)/gateway/collector.o $(B)/gateway/orders.o $(B)/gateway/process.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.h %.a,$^) $(B)/libtailrace.a $(LIBS)

# docs/comparison-routes.md: three profilers on the same two routes. A minute or two.
compare: deps-bench
	@build/venv/bin/python tests/bench/compare_routes.py --write
	@build/venv/bin/python scripts/check_docs.py --made docs/comparison-routes.svg --by "make compare"

# The figures of docs/detector.md, an hour or two: false alarms, and delays beside the reference's.
backtest-null backtest-power: deps-test
	@$(MAKE) --no-print-directory build
	@build/venv/bin/python tests/streams/backtest_table.py $(@:backtest-%=%)

# Every page of the dashboard at three widths in both themes, into build/screenshots.
screenshots: deps-test deps-web
	@$(MAKE) --no-print-directory build
	@build/venv/bin/python tests/browser/screenshots.py

# --- the long tiers --------------------------------------------------------
# Every target for FUZZ_SECONDS under the address and undefined-behaviour sanitizers, with the plain driver and,
# where there is clang, with libFuzzer (which keeps what it finds in build/fuzz-corpus); then the oracle.
FUZZ_SECONDS ?= 60
fuzz: deps-test
	@$(MAKE) --no-print-directory MODE=asan fuzz-build
	@$(MAKE) --no-print-directory build
	@for t in $(FUZZ_BIN:$(B)/fuzz/%=%); do echo "$$t"; \
		(cd build && asan/fuzz/$$t -s $(FUZZ_SECONDS) ../tests/fuzz/corpus/$$t) || exit 1; done
	@if command -v $(CLANG) >/dev/null; then $(MAKE) --no-print-directory fuzz-libfuzzer; \
		else echo "NOT RUN: libFuzzer, for there is no $(CLANG)"; fi
	@ORACLE_SECONDS=$(FUZZ_SECONDS) scripts/test tests/system/test_oracle.py

CLANG ?= clang
fuzz-libfuzzer:
	@$(MAKE) --no-print-directory MODE=libfuzzer CC=$(CLANG) fuzz-build
	@for t in $(FUZZ_BIN:$(B)/fuzz/%=%); do mkdir -p build/fuzz-corpus/$$t; \
		(cd build && libfuzzer/fuzz/$$t -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -print_final_stats=1 -verbosity=0 \
			fuzz-corpus/$$t ../tests/fuzz/corpus/$$t) || exit 1; done
.PHONY: fuzz-libfuzzer

# Autobahn's fuzzing client through the tunnel, and direct: the same verdicts (needs Python 2.7).
conformance: deps-test
	@$(MAKE) --no-print-directory build
	@build/venv/bin/python tests/conformance/autobahn.py

.PHONY: fuzz conformance
# The unit tests and the system suite against an instrumented binary.
asan: deps-test
	@$(MAKE) --no-print-directory MODE=asan build unit
	@TAILRACE_BIN=$(CURDIR)/build/asan/tailrace scripts/test -n 2 tests/system

# The hook's tests against an extension built with AddressSanitizer and UBSan.
asan-hook: deps-test
	@build/venv/bin/python tests/asan_hook.py

tsan: deps-test
	@$(MAKE) --no-print-directory MODE=tsan build unit
	@TAILRACE_BIN=$(CURDIR)/build/tsan/tailrace TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp \
		scripts/test -n 2 tests/system

# --- the tree --------------------------------------------------------------
lint: deps-test
	@scripts/lint

format:
	clang-format -i $(shell git ls-files '*.c' '*.h')
	build/venv/bin/ruff check -q --fix .
	build/venv/bin/ruff format -q .

# --- installing ------------------------------------------------------------
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
SCHEMA := $(PREFIX)/share/tailrace/tailrace.schema.json
DOCDIR := $(PREFIX)/share/doc/tailrace
CONFIG := $(SYSCONFDIR)/tailrace/tailrace.json

# A configuration that is there already stays; the example beside the licences is always the newest.
install: build
	install -D -m 755 $(BIN) $(DESTDIR)$(SBINDIR)/tailrace
	install -D -m 644 docs/tailrace.8 $(DESTDIR)$(MANDIR)/man8/tailrace.8
	install -D -m 644 docs/tailrace.json.5 $(DESTDIR)$(MANDIR)/man5/tailrace.json.5
	install -d -m 755 $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	$(BIN) completion bash >$(DESTDIR)$(BASHDIR)/tailrace
	$(BIN) completion zsh >$(DESTDIR)$(ZSHDIR)/_tailrace
	$(BIN) completion fish >$(DESTDIR)$(FISHDIR)/tailrace.fish
	@chmod 644 $(DESTDIR)$(BASHDIR)/tailrace $(DESTDIR)$(ZSHDIR)/_tailrace $(DESTDIR)$(FISHDIR)/tailrace.fish
	install -D -m 644 conf/tailrace.schema.json $(DESTDIR)$(SCHEMA)
	install -D -m 644 conf/minimal.json $(DESTDIR)$(DOCDIR)/minimal.json
	install -D -m 644 conf/tls.json $(DESTDIR)$(DOCDIR)/tls.json
	install -D -m 644 conf/alerts.json $(DESTDIR)$(DOCDIR)/alerts.json
	install -D -m 644 conf/prometheus-rules.yml $(DESTDIR)$(DOCDIR)/prometheus-rules.yml
	install -D -m 644 conf/grafana-dashboard.json $(DESTDIR)$(DOCDIR)/grafana-dashboard.json
	install -D -m 644 conf/tailrace.socket $(DESTDIR)$(DOCDIR)/tailrace.socket
	install -D -m 644 LICENSE $(DESTDIR)$(DOCDIR)/LICENSE
	@for f in $(LLHTTP_DIR)/LICENSE*; do test ! -f "$$f" || install -m 644 "$$f" $(DESTDIR)$(DOCDIR)/LICENSE.llhttp; done
	sed 's|"tailrace.schema.json"|"$(SCHEMA)"|' conf/tailrace.json >$(DESTDIR)$(DOCDIR)/tailrace.json
	@chmod 644 $(DESTDIR)$(DOCDIR)/tailrace.json
	test -e $(DESTDIR)$(CONFIG) || install -D -m 644 $(DESTDIR)$(DOCDIR)/tailrace.json $(DESTDIR)$(CONFIG)
	install -D -m 644 conf/tailrace.sysusers $(DESTDIR)$(SYSUSERSDIR)/tailrace.conf
	install -d -m 755 $(DESTDIR)$(UNITDIR)
	sed -e 's|/usr/sbin/tailrace|$(SBINDIR)/tailrace|' -e 's|/etc/tailrace/tailrace.json|$(CONFIG)|' \
		conf/tailrace.service >$(DESTDIR)$(UNITDIR)/tailrace.service
	@chmod 644 $(DESTDIR)$(UNITDIR)/tailrace.service

# A configuration that was changed stays, and so does the store.
uninstall:
	@! cmp -s $(DESTDIR)$(CONFIG) $(DESTDIR)$(DOCDIR)/tailrace.json || rm -f $(DESTDIR)$(CONFIG)
	rm -f $(DESTDIR)$(SBINDIR)/tailrace $(DESTDIR)$(MANDIR)/man8/tailrace.8 $(DESTDIR)$(MANDIR)/man5/tailrace.json.5 \
		$(DESTDIR)$(BASHDIR)/tailrace $(DESTDIR)$(ZSHDIR)/_tailrace $(DESTDIR)$(FISHDIR)/tailrace.fish \
		$(DESTDIR)$(UNITDIR)/tailrace.service $(DESTDIR)$(SYSUSERSDIR)/tailrace.conf $(DESTDIR)$(SCHEMA) \
		$(addprefix $(DESTDIR)$(DOCDIR)/,tailrace.json minimal.json tls.json alerts.json prometheus-rules.yml \
		grafana-dashboard.json tailrace.socket LICENSE LICENSE.llhttp)
	@for d in $(dir $(SCHEMA)) $(DOCDIR) $(dir $(CONFIG)); do rmdir $(DESTDIR)$$d 2>/dev/null || true; done

# build/tailrace_VERSION_ARCHITECTURE.deb
deb: deps-deb
	@$(MAKE) --no-print-directory build
	@VERSION=$(VERSION) LLHTTP_DIR="$(LLHTTP_DIR)" scripts/deb

clean:
	rm -rf build

-include $(LIB_OBJ:.o=.d) $(PROG_OBJ:.o=.d) $(UNIT_BIN:=.d)
