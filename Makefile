# longlived: the whole build, one file, out of tree (build/).
#
#   make demo       install what is missing, build, make build/demo/demo.mp4 and demo.png
#   make test       install what is missing, build, run the tests of at most 8 minutes
#   make test-full  the long tier
#   make bench      timings, as tables and build/bench.jsonl; BENCH="hop ops" runs only these
#   make fuzz       libFuzzer on each target for 30 s; T=1800 FUZZ="pickle msg": longer, these only
#   make docs       prints the tables in docs/ anew
#   make bundle     build/bundle/ and its .tar.gz: runs where nothing can be installed
#   make            build only
#   SAN=1           ASan and UBSan, objects apart from the plain ones

SAN   ?= 0
MARCH ?= native
CC    := gcc
CXX   := g++
B     := build/$(if $(filter 1,$(SAN)),san,obj)
BIN   := build/$(if $(filter 1,$(SAN)),san-bin,bin)
LIB   := build/$(if $(filter 1,$(SAN)),san-lib,lib)

# A +: and changes on it.
COMMIT := $(shell git describe --always --exclude '*' --dirty=+ 2>/dev/null || echo none)

# -ffp-contract=off and no fast-math: the same bits from the same source, see common/rng.h.
WARN   := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Werror
CFLAGS := -std=c11 -D_GNU_SOURCE -O3 -g -march=$(MARCH) -ffp-contract=off -fno-math-errno \
          -fopenmp -I. $(WARN)
LDFLAGS := -fopenmp -Wl,-z,relro,-z,now
# One file of C++: the door to sentencepiece.
CXXFLAGS := -std=c++17 -D_GNU_SOURCE -O2 -g -march=$(MARCH) -I. -Wall -Wextra -Wshadow -Wconversion \
            -Wno-sign-conversion -Werror
ifeq ($(SAN),1)
CXXFLAGS += -fsanitize=address,undefined -fno-omit-frame-pointer
CFLAGS  += -fsanitize=address,undefined -fno-omit-frame-pointer -O1
LDFLAGS += -fsanitize=address,undefined
endif
ALLOC_COUNT := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc

# The GPU side is built where nvcc is found, but for the sanitized build; CUDA=0 leaves it out.
NVCC      := $(shell command -v nvcc 2>/dev/null)
CUDA      ?= $(if $(NVCC),$(if $(filter 1,$(SAN)),0,1),0)
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
NVFLAGS   := -gencode arch=compute_90a,code=sm_90a -O3 -lineinfo -std=c++17 -I. -Werror all-warnings

COMMON  := $(patsubst %.c,$(B)/%.o,$(filter-out common/dev_cuda.c,$(wildcard common/*.c)))
KERNELS := $(patsubst %.c,$(B)/%.o,$(wildcard kernels/*.c kernels/cpu/*.c))
IPC     := $(patsubst %.c,$(B)/%.o,$(wildcard ipc/*.c))
STAGE   := $(patsubst %.c,$(B)/%.o,$(wildcard procs/*.c))

# A process is its folder's sources; libmain.a of a folder is all of them but main.c, for tests.
proc = $(patsubst %,$(B)/%.o,$(basename $(wildcard procs/$(1)/*.c procs/$(1)/*.cc)))
model = $(filter-out %/main.o,$(call proc,$(1)))

MODELS := $(foreach p,text dit vae gateway supervisor keeper ctl,$(call model,$(p)))
PROGRAMS := $(addprefix $(BIN)/,longlived longlived-ctl longlived-keeper longlived-text \
              longlived-dit longlived-vae longlived-gateway)

HAVE_AV := $(shell pkg-config --exists libavcodec libavformat libavutil 2>/dev/null && echo 1)
MP4     := $(if $(HAVE_AV),$(LIB)/longlived-mp4.so)

LIBS_BLAS    := -lopenblas -lm
LIBS_KERNELS := $(LIBS_BLAS)

# Named, not in a library: nothing but a weak reference asks for them (common/dev.c, kernels/ops.c).
ifeq ($(CUDA),1)
GPU_DEV      := $(B)/common/dev_cuda.o
GPU_KERNELS  := $(patsubst %.c,$(B)/%.o,$(wildcard kernels/cuda/*.c)) \
                $(patsubst %.cu,$(B)/%.cu.o,$(wildcard kernels/cuda/*.cu))
LIBS_GPU     := -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -lpthread -lrt -ldl
LIBS_KERNELS += $(LIBS_GPU) -Wl,-rpath,$(CUDA_HOME)/lib64
$(GPU_DEV) $(filter-out %.cu.o,$(GPU_KERNELS)) $(B)/tests/kernels/test_tma.o $(B)/tests/fake_cuda/same.o: \
  CFLAGS += -DWITH_CUDA -isystem $(CUDA_HOME)/include
endif

# In a bundle libraries lie beside the programs, and the GPU side, which is large, is one of them.
# Nothing unwinds the frames of our C, so the tables for that are left out, and so are those of
# kernels' lines, which are half of the GPU side. Programs in it stand at fixed addresses (-no-pie),
# which saves the table of relocations and costs that their own code and data lie at known places;
# the libraries, stack and heap are still placed at random.
BUNDLE ?= 0
ifeq ($(BUNDLE),1)
UP      := $$ORIGIN/..
CFLAGS  += -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
NO_PIE  := -no-pie
LDFLAGS += -Wl,--gc-sections -Wl,--disable-new-dtags \
           -Wl,-rpath,'$(UP)/lib:$(UP)/../../lib:$(UP)/../../../lib:/usr/local/cuda/lib64'
ifeq ($(CUDA),1)
GPU_OBJ     := $(GPU_DEV) $(GPU_KERNELS)
GPU_DEV     := $(LIB)/liblonglived-gpu.so
GPU_KERNELS :=
LIBS_GPU    :=
LIBS_KERNELS := $(LIBS_BLAS)
NVFLAGS     := $(filter-out -lineinfo,$(NVFLAGS)) -Xcompiler -fPIC
$(LIB)/liblonglived-gpu.so: $(GPU_OBJ)
	@mkdir -p $(@D)
	@echo 'LD $@'
	@$(CC) -shared -Wl,-soname,$(@F) $^ -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -lpthread \
	  -lrt -ldl $(LDFLAGS) -o $@
endif
endif
LIBS_IPC     := -lmsgpackc
LIBS_SOCK    := -lzmq
LIBS_COMMON  := -linih -ljansson -lsodium -lutf8proc -lm -ldl
LIBS_TEXT    := -lsentencepiece -lstdc++

.PHONY: all demo test test-full bench bundle deps deps-full build clean docs format FORCE
.DEFAULT_GOAL := all

all: $(PROGRAMS) $(MP4)

deps-full:
	@sh launch/deps.sh full

deps:
	@sh launch/deps.sh

# deps first, in a make of its own, so that the build sees what it installed.
demo: deps
	@$(MAKE) --no-print-directory -j2 all
	@bash launch/demo.sh

test: deps
	@$(MAKE) --no-print-directory -j2 all tests
	@bash tests/run.sh quick

test-full: deps-full
	@$(MAKE) --no-print-directory -j2 all tests benches
	@bash tests/run.sh full

# Flags are a prerequisite: an object older than the flags it was built with is rebuilt.
FLAGS := $(CC) $(CFLAGS) $(CXX) $(CXXFLAGS)
$(B)/flags: FORCE
	@mkdir -p $(B); echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	@echo 'CC $<'
	@$(CC) $(CFLAGS) -fPIC -MMD -MP -c $< -o $@

$(B)/%.cu.o: %.cu $(B)/flags
	@mkdir -p $(@D)
	@echo 'NV $<'
	@$(NVCC) $(NVFLAGS) -MMD -MP -MF $(B)/$*.cu.d -c $< -o $@

$(B)/%.o: %.cc $(B)/flags
	@mkdir -p $(@D)
	@echo 'CXX $<'
	@$(CXX) $(CXXFLAGS) -fPIC -MMD -MP -c $< -o $@

# The one object that knows it.
$(B)/commit: FORCE
	@mkdir -p $(B); echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@
$(B)/procs/supervisor/main.o: $(B)/commit
$(B)/procs/supervisor/report.o: procs/supervisor/report.html
$(B)/procs/supervisor/main.o: CFLAGS += -DBUILD_COMMIT='"$(COMMIT)"'

$(B)/lib%.a:
	@mkdir -p $(@D); rm -f $@
	@ar rcs $@ $^

$(B)/libcommon.a: $(COMMON)
$(B)/libkernels.a: $(KERNELS)
$(B)/libipc.a: $(IPC)
$(B)/libmodels.a: $(MODELS)
$(B)/libstage.a: $(STAGE)

define link
	@mkdir -p $(@D)
	@echo 'LD $@'
	@$(CC) -Wl,--no-as-needed $(filter %.so,$^) -Wl,--as-needed $(filter %.o,$^) $(filter %.a,$^) \
	  $(1) $(LDFLAGS) $(NO_PIE) -o $@
endef

# The supervisor and command line: no ZeroMQ, no BLAS, no device library but the CPU's.
$(BIN)/longlived: $(call proc,supervisor) $(B)/ipc/ledger.o $(B)/libcommon.a
	$(call link,$(LIBS_COMMON))
$(BIN)/longlived-keeper: $(call proc,keeper) $(B)/ipc/keeper.o $(B)/ipc/ledger.o $(GPU_DEV) $(B)/libcommon.a
	$(call link,$(LIBS_COMMON) $(LIBS_GPU))
$(BIN)/longlived-ctl: $(call proc,ctl) $(B)/libipc.a $(B)/libcommon.a
	$(call link,$(LIBS_SOCK) $(LIBS_IPC) $(LIBS_COMMON))
$(BIN)/longlived-gateway: $(call proc,gateway) $(B)/libstage.a $(B)/libipc.a $(B)/libcommon.a
	$(call link,$(ALLOC_COUNT) $(LIBS_SOCK) $(LIBS_IPC) $(LIBS_COMMON))
$(BIN)/longlived-%: $(B)/procs/%/main.o $(GPU_DEV) $(GPU_KERNELS) $(B)/libstage.a $(B)/libkernels.a $(B)/libipc.a $(B)/libcommon.a
	$(call link,$(ALLOC_COUNT) $(LIBS_MODEL) $(LIBS_KERNELS) $(LIBS_IPC) $(LIBS_COMMON))
$(BIN)/longlived-text: $(call proc,text)
$(BIN)/longlived-text: LIBS_MODEL := $(LIBS_TEXT)
$(BIN)/longlived-dit: $(call proc,dit)
$(BIN)/longlived-vae: $(call proc,vae)

# MP4 lives in a shared object of its own: programs run without libav.
$(LIB)/longlived-mp4.so: procs/gateway/plugin/mp4.c $(B)/flags
	@mkdir -p $(@D)
	@echo 'LD $@'
	@$(CC) $(CFLAGS) -fPIC -shared -MMD -MP -MF $(B)/mp4.d $< $(shell pkg-config --libs \
	  libavcodec libavformat libavutil 2>/dev/null) -o $@

# The programs of a GPU machine on the fake CUDA runtime of tests/fake_cuda: no toolkit, no GPU. Ops
# for cuda:N are the CPU's, by another name. The rest are the same programs, to stand beside them.
FAKE     := $(B)/fake
FAKE_BIN := $(BIN:bin=fake-bin)
FAKE_LIB := $(LIB:lib=fake-lib)
FAKE_DEV := $(FAKE)/common/dev_cuda.o $(FAKE)/tests/fake_cuda/runtime.o $(FAKE)/tests/fake_cuda/events.o
FAKE_OPS := -Wl,--defsym=ops_cuda=ops_cpu -Wl,--wrap=dev_record
.PHONY: fake
fake: $(PROGRAMS:$(BIN)/%=$(FAKE_BIN)/%) $(MP4:$(LIB)/%=$(FAKE_LIB)/%) $(FAKE_BIN)/bench-stage $(FAKE_BIN)/bench-ops

$(FAKE)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	@echo 'CC $< (fake CUDA)'
	@$(CC) $(CFLAGS) -Itests/fake_cuda/include -fPIC -MMD -MP -c $< -o $@

$(FAKE_BIN)/longlived $(FAKE_BIN)/longlived-ctl $(FAKE_BIN)/longlived-gateway: $(FAKE_BIN)/%: $(BIN)/%
	@mkdir -p $(@D); cp $< $@
$(FAKE_LIB)/%.so: $(LIB)/%.so
	@mkdir -p $(@D); cp $< $@
$(FAKE_BIN)/longlived-keeper: $(call proc,keeper) $(B)/ipc/keeper.o $(B)/ipc/ledger.o $(FAKE_DEV) $(B)/libcommon.a
	$(call link,$(LIBS_COMMON))
$(FAKE_BIN)/longlived-%: $(B)/procs/%/main.o $(FAKE_DEV) $(FAKE)/tests/fake_cuda/record.o $(B)/libstage.a $(B)/libkernels.a $(B)/libipc.a $(B)/libcommon.a
	$(call link,$(ALLOC_COUNT) $(FAKE_OPS) $(LIBS_MODEL) $(LIBS_BLAS) $(LIBS_IPC) $(LIBS_COMMON))
$(FAKE_BIN)/bench-%: $(B)/bench/%.o $(FAKE_DEV) $(FAKE)/tests/fake_cuda/record.o $(B)/libbench.a $(B)/libmodels.a $(B)/libstage.a $(B)/libkernels.a $(B)/libipc.a $(B)/libcommon.a
	$(call link,$(FAKE_OPS) $(LIBS_TEXT) $(LIBS_BLAS) $(LIBS_IPC) $(LIBS_COMMON))
$(FAKE_BIN)/longlived-text: $(call proc,text)
$(FAKE_BIN)/longlived-text: LIBS_MODEL := $(LIBS_TEXT)
$(FAKE_BIN)/longlived-dit: $(call proc,dit)
$(FAKE_BIN)/longlived-vae: $(call proc,vae)

# A fake NVML, which the command line loads by name.
FAKE_NVML := $(FAKE_LIB)/libnvidia-ml.so.1
$(FAKE_NVML): tests/fake_cuda/nvml.c $(B)/flags
	@mkdir -p $(@D)
	@echo 'LD $@'
	@$(CC) $(filter-out -fsanitize=%,$(CFLAGS)) -fPIC -shared $< -o $@
$(B)/tests/procs/supervisor/test_gpus.o: CFLAGS += -DFAKE_NVML='"$(FAKE_NVML)"'
$(B)/tests/procs/supervisor/test_gpus: | $(FAKE_NVML)

# Tests and benches: one program a file.
TEST_SRC := $(wildcard tests/common/*.c tests/kernels/*.c tests/ipc/*.c tests/procs/*/*.c tests/procs/*.c \
              tests/bench/*.c tests/fuzz/test_*.c tests/sim/test_*.c tests/fake_cuda/test_*.c)
SIM := $(patsubst %.c,$(B)/%.o,$(filter-out tests/sim/test_%,$(wildcard tests/sim/*.c)))
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC))
BENCH_LIB := bench/bench.c bench/calls.c bench/parts.c bench/rates.c bench/rig.c
BENCH_SRC := $(filter-out $(BENCH_LIB),$(wildcard bench/*.c))
BENCHES := $(patsubst bench/%.c,$(BIN)/bench-%,$(BENCH_SRC))
.PHONY: tests unit-tests benches
unit-tests: $(TESTS)
tests: $(TESTS) fake $(FAKE_NVML) $(BIN)/bench-stage $(FAKE)/tests/fake_cuda/same.o $(if $(filter 1,$(CUDA)),$(B)/tests/fake_cuda/same.o)
benches: $(BENCHES)

$(B)/libbench.a: $(BENCH_LIB:%.c=$(B)/%.o)
ALL_LIBS := $(B)/libbench.a $(B)/libmodels.a $(B)/libstage.a $(B)/libkernels.a $(B)/libipc.a $(B)/libcommon.a
$(B)/tests/sim/test_sim: $(SIM)
$(B)/tests/procs/test_choices: ALLOC_COUNT += $(foreach f,ops_choices ops_choices_bytes stage_region,-Wl,--wrap=$(f))
$(B)/tests/procs/dit/test_ahead: ALLOC_COUNT += $(foreach f,keeper_region keeper_seal region_unmap,-Wl,--wrap=$(f))
$(B)/tests/%: $(B)/tests/%.o $(B)/tests/check.o $(GPU_DEV) $(GPU_KERNELS) $(ALL_LIBS)
	$(call link,$(ALLOC_COUNT) -lcmocka $(LIBS_TEXT) $(LIBS_KERNELS) $(LIBS_SOCK) $(LIBS_IPC) $(LIBS_COMMON))
# Products on a GPU by a fake cuBLASLt, which is in the test: what is opened by name is the program.
FAKE_GEMM := $(B)/tests/fake_cuda/test_cuda_gemm $(B)/tests/fake_cuda/test_cuda_linear
$(FAKE_GEMM): $(patsubst %,$(FAKE)/%.o,kernels/cuda/gemm tests/fake_cuda/lt tests/fake_cuda/rig)
$(FAKE_GEMM): ALLOC_COUNT += -Wl,--wrap=dlopen -Wl,--export-dynamic-symbol='cublasLt*'
$(B)/tests/fake_cuda/test_%: $(FAKE)/tests/fake_cuda/test_%.o $(B)/tests/check.o $(FAKE_DEV) $(ALL_LIBS)
	$(call link,$(ALLOC_COUNT) -lcmocka $(LIBS_TEXT) $(LIBS_BLAS) $(LIBS_SOCK) $(LIBS_IPC) $(LIBS_COMMON))
$(BIN)/bench-%: $(B)/bench/%.o $(GPU_DEV) $(GPU_KERNELS) $(ALL_LIBS)
	$(call link,$(LIBS_TEXT) $(LIBS_KERNELS) $(LIBS_IPC) $(LIBS_COMMON))
.SECONDARY:

# Fuzz targets. tests/fuzz/replay.c feeds them their corpus; libFuzzer needs clang, and sources that
# it can watch: built apart.
$(B)/tests/fuzz/test_%: $(B)/tests/fuzz/test_%.o $(B)/tests/fuzz/replay.o $(B)/tests/check.o \
                        $(GPU_DEV) $(GPU_KERNELS) $(ALL_LIBS)
	$(call link,$(ALLOC_COUNT) -lcmocka $(LIBS_TEXT) $(LIBS_KERNELS) $(LIBS_SOCK) $(LIBS_IPC) $(LIBS_COMMON))

F := build/fuzz
FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -O1 -g -I. -Wall -Wextra -fno-omit-frame-pointer \
              -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
FUZZ_SRC := $(wildcard tests/fuzz/test_*.c)
FUZZ_LIB := $(patsubst %.c,$(F)/%.o,$(filter-out common/dev_cuda.c,$(wildcard common/*.c)) \
              $(wildcard ipc/*.c procs/*/plan.c) \
              procs/supervisor/script.c procs/supervisor/watch.c procs/gateway/pace.c \
              procs/keeper/keeperd.c procs/keeper/vault.c procs/text/charsmap.c \
              procs/text/unigram.c) $(F)/procs/text/spm.o
.PHONY: fuzz fuzz-build
fuzz:
	@bash tests/fuzz.sh $(or $(T),30) $(FUZZ)

fuzz-build: $(patsubst tests/fuzz/test_%.c,$(F)/bin/fuzz-%,$(FUZZ_SRC))
$(F)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo 'CLANG $<'
	@clang $(FUZZ_FLAGS) -MMD -MP -c $< -o $@
$(F)/%.o: %.cc Makefile
	@mkdir -p $(@D)
	@echo 'CLANG $<'
	@clang++ $(subst c11,c++17,$(FUZZ_FLAGS)) -MMD -MP -c $< -o $@
$(F)/libfuzz.a: $(FUZZ_LIB)
	@rm -f $@; ar rcs $@ $^
$(F)/bin/fuzz-%: $(F)/tests/fuzz/test_%.o $(F)/libfuzz.a
	@mkdir -p $(@D)
	@echo 'LD $@'
	@clang++ -fsanitize=fuzzer,address,undefined $^ $(LIBS_TEXT) $(LIBS_IPC) $(LIBS_COMMON) -o $@

bench: deps
	@$(MAKE) --no-print-directory -j2 all benches
	@bash bench/run.sh $(BENCH)

docs: all
	@bash launch/docs.sh

bundle:
	@$(MAKE) --no-print-directory -j2 BUNDLE=1 MARCH=x86-64-v3 B=build/bundle-obj \
	  BIN=build/bundle-obj/bin LIB=build/bundle-obj/lib all benches unit-tests
	@bash launch/bundle.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh')

clean:
	rm -rf build

-include $(shell find $(B) $(F) -name '*.d' 2>/dev/null)
