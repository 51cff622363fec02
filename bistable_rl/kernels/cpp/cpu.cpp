// BRC, nBRC, GRU and LSTM on the CPU, forward and backward, behind a plain C interface (see cpu.py, which calls it).
//
// One binary serves every processor of its architecture: the kernels are compiled for several instruction sets, and
// the first call chooses among them. The threads are those of the OpenMP runtime that torch has loaded, looked up
// here by name: linking to a runtime might load a second one beside it, whose threads would compete with the first.

#if __has_include(<Python.h>)
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif
#include <atomic>
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { KIND_BRC, KIND_NBRC, KIND_GRU, KIND_LSTM };

// Raised, here and in cpu.py, with every change to what passes between the two: a binary built from older sources is
// then refused, instead of reading memory that is not there.
enum { INTERFACE = 4 };

// What a call returns, here and in cpu.py.
enum { OK, NO_MEMORY };

// One call. cpu.py holds the same list. Pointers may be null where the argument is optional.
struct Call {
    int64_t kind, bytes;  // of a number: 4 or 8
    int64_t T, B, N, I, H, threads, recompute, bias_ih_size;
    const void *x, *state;
    const uint8_t* resets;
    const void* initial;
    const int64_t* batch_sizes;
    const void *weight_ih, *weight_hh, *bias_ih, *bias_hh, *packed;
    void *outputs, *last_state, *saved;
    const void *grad_outputs, *grad_last;
    void *grad_x, *grad_state, *grad_weight_ih, *grad_weight_hh, *grad_bias_ih, *grad_bias_hh, *grad_initial;
};

// ---- memory ---------------------------------------------------------------------------------------------------

// Cuts a block of memory into pieces; with no block it only counts.
struct Carver {
    char* base;
    size_t used;
};

static inline char* take(Carver* c, size_t bytes) {
    char* piece = c->base ? c->base + c->used : 0;
    c->used += (bytes + 63) / 64 * 64;
    return piece;
}

// Kept by each calling thread from call to call: fresh memory costs a page fault every 4 KB, up to half of the time.
struct Workspace {
    char* base = 0;
    size_t size = 0;
    ~Workspace() { free(base); }
};

static char* workspace(size_t bytes) {
    static thread_local Workspace kept;
    if (bytes > kept.size) {
        free(kept.base);
        kept.size = 0;
        kept.base = 0;
        void* block = 0;
        if (posix_memalign(&block, 4096, bytes)) return 0;
        kept.base = (char*)block;
        kept.size = bytes;
    }
    return kept.base;
}

// Asks for pages of 2 MB under a large new tensor: with pages of 4 KB, a third of nBRC's time goes into first touching
// what it saves. Only a hint, and only where the system leaves the choice to the program.
static void prefer_large_pages(void* begin, size_t bytes) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t page = (uintptr_t)2 << 20;
    const uintptr_t first = ((uintptr_t)begin + page - 1) & ~(page - 1), last = ((uintptr_t)begin + bytes) & ~(page - 1);
    if (begin && last > first) madvise((void*)first, last - first, MADV_HUGEPAGE);
#else
    (void)begin, (void)bytes;
#endif
}

// ---- threads --------------------------------------------------------------------------------------------------

typedef void (*GompParallel)(void (*)(void*), void*, unsigned, unsigned);
static GompParallel gomp_parallel = 0;
static bool forked = false;  // a child has none of the threads that its runtime believes in, and would wait for them

struct Team {
    void (*task)(void*, int);
    void* context;
    int count;
    std::atomic<int> next;
};

// Gradients that vanish over a long sequence pass through the denormal numbers, where each operation costs a hundred
// times its usual price: they count as zero while a task runs.
#if defined(__x86_64__)
static unsigned flush_denormals() {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
static void restore_denormals(unsigned before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
static uint64_t flush_denormals() {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (uint64_t)1 << 24));
    return before;
}
static void restore_denormals(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
static int flush_denormals() { return 0; }
static void restore_denormals(int) {}
#endif

static void run_team(void* argument) {
    Team* team = (Team*)argument;
    const auto before = flush_denormals();
    for (int i; (i = team->next.fetch_add(1)) < team->count;) team->task(team->context, i);
    restore_denormals(before);
}

// Runs task(context, 0 ... count - 1). The team always has the size that torch uses: a smaller one would make the
// runtime dismiss threads and start them anew for torch's next call.
static void parallel(void (*task)(void*, int), void* context, int count, int threads) {
    Team team = {task, context, count, {0}};
    if (count > 1 && threads > 1 && gomp_parallel && !forked)
        gomp_parallel(run_team, &team, (unsigned)threads, 0);
    else
        run_team(&team);
}

// ---- the kernels, for each instruction set and precision ------------------------------------------------------

#define JOIN_(A, B) A##_##B
#define JOIN(A, B) JOIN_(A, B)

#define ISA baseline
#define ISA_AVX512 0
#define TARGET
#define VECTOR_BYTES 16
#if defined(__x86_64__)
#define PANEL_VECTORS 2  // 16 registers
#else
#define PANEL_VECTORS 4  // 32 registers
#endif
#include "cpu_precisions.h"

#if defined(__x86_64__)
#define ISA avx2
#define ISA_AVX512 0
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#define PANEL_VECTORS 2
#include "cpu_precisions.h"

#define ISA avx512
#define ISA_AVX512 1
#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")))
#define VECTOR_BYTES 64
#define PANEL_VECTORS 4
#include "cpu_precisions.h"
#endif

struct Table {
    const char* name;
    int (*forward[2])(const Call*);
    int (*backward[2])(const Call*);
    size_t (*packed_bytes[2])(const Call*);
    void (*pack[2])(const Call*, void*);
};
#define ROW(NAME, ISA)                                                                               \
    {NAME, {ISA##_float::forward, ISA##_double::forward}, {ISA##_float::backward, ISA##_double::backward}, \
     {ISA##_float::packed_bytes, ISA##_double::packed_bytes}, {ISA##_float::pack, ISA##_double::pack}}
static const Table tables[] = {
#if defined(__x86_64__)
    ROW("SSE2", baseline),
    ROW("AVX2", avx2),
    ROW("AVX-512", avx512),
#elif defined(__aarch64__)
    ROW("NEON", baseline),
#else
    ROW("baseline", baseline),
#endif
};

static int best_table() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

static int chosen = 0;

// ---- packed parameters, kept by the caller --------------------------------------------------------------------

struct alignas(64) PackedHeader {
    Call call;           // kind, bytes, I and H; nothing points at the parameters any more
    const Table* table;  // whose layout the parameters have
};

// ---- the C interface ------------------------------------------------------------------------------------------

extern "C" {

int brl_interface(void) { return INTERFACE; }

// To be called once, before everything else; `in_child`: this process was forked from one that may have had threads.
void brl_initialise(int in_child) {
    chosen = best_table();
    forked = in_child != 0;
    gomp_parallel = (GompParallel)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    pthread_atfork(0, 0, [] { forked = true; });
}

const char* brl_isa(void) { return tables[chosen].name; }

int brl_shares_threads(void) { return gomp_parallel != 0; }

// For tests: a lesser instruction set, by its number (0 the least). Returns the number now in use.
int brl_choose_isa(int wanted) {
    const int best = best_table();
    chosen = wanted < 0 || wanted > best ? best : wanted;
    return chosen;
}

int brl_forward(const Call* call) { return tables[chosen].forward[call->bytes == 8](call); }

int brl_backward(const Call* call) { return tables[chosen].backward[call->bytes == 8](call); }

// Bytes that brl_pack writes for the parameters of `call`.
size_t brl_packed_bytes(const Call* call) {
    return sizeof(PackedHeader) + tables[chosen].packed_bytes[call->bytes == 8](call);
}

// Packs the parameters for brl_step into `to`, aligned to 64 bytes.
void brl_pack(const Call* call, void* to) {
    PackedHeader* header = (PackedHeader*)to;
    memset(header, 0, sizeof *header);
    header->call.kind = call->kind, header->call.bytes = call->bytes;
    header->call.I = call->I, header->call.H = call->H;
    header->table = &tables[chosen];
    header->table->pack[call->bytes == 8](call, header + 1);
}

// One step with packed parameters; `outputs` may be null. Returns as brl_forward.
int brl_step(const void* packed, const void* x, const void* state, const uint8_t* resets, const void* initial,
             void* outputs, void* last_state, int64_t B, int64_t threads) {
    const PackedHeader* header = (const PackedHeader*)packed;
    Call call = header->call;
    call.T = 1, call.B = call.N = B, call.threads = threads;
    call.x = x, call.state = state, call.resets = resets, call.initial = initial;
    call.outputs = outputs, call.last_state = last_state, call.packed = header + 1;
    return header->table->forward[call.bytes == 8](&call);
}

// One step with parameters as they are now: they are packed for this step alone, into the workspace.
int brl_step_once(int64_t kind, int64_t bytes, int64_t I, int64_t H, int64_t bias_ih_size, const void* weight_ih,
                  const void* weight_hh, const void* bias_ih, const void* bias_hh, const void* x, const void* state,
                  const uint8_t* resets, const void* initial, void* outputs, void* last_state, int64_t B,
                  int64_t threads) {
    Call call;
    memset(&call, 0, sizeof call);
    call.kind = kind, call.bytes = bytes, call.I = I, call.H = H, call.bias_ih_size = bias_ih_size;
    call.weight_ih = weight_ih, call.weight_hh = weight_hh, call.bias_ih = bias_ih, call.bias_hh = bias_hh;
    call.T = 1, call.B = call.N = B, call.threads = threads;
    call.x = x, call.state = state, call.resets = resets, call.initial = initial;
    call.outputs = outputs, call.last_state = last_state;
    return brl_forward(&call);
}
}

// ---- the module -----------------------------------------------------------------------------------------------

#if defined(PYTHON_API_VERSION)
// cpu.py reaches the functions above through ctypes, except the steps: there ctypes would cost half as much as the work.

static bool read_integers(PyObject* const* arguments, Py_ssize_t count, Py_ssize_t wanted, int64_t* values) {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "expected %zd integers, got %zd arguments", wanted, count);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; ++i) values[i] = (int64_t)PyLong_AsVoidPtr(arguments[i]);
    return !PyErr_Occurred();
}

// step(packed, x, state, resets, initial, outputs, last_state, B, threads): addresses, then numbers, as of brl_step.
static PyObject* step(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    int64_t v[9];
    if (!read_integers(arguments, count, 9, v)) return 0;
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = brl_step((void*)v[0], (void*)v[1], (void*)v[2], (uint8_t*)v[3], (void*)v[4], (void*)v[5], (void*)v[6],
                      v[7], v[8]);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(status);
}

// step_once(kind, ...): numbers and addresses, as of brl_step_once.
static PyObject* step_once(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    int64_t v[17];
    if (!read_integers(arguments, count, 17, v)) return 0;
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = brl_step_once(v[0], v[1], v[2], v[3], v[4], (void*)v[5], (void*)v[6], (void*)v[7], (void*)v[8],
                           (void*)v[9], (void*)v[10], (uint8_t*)v[11], (void*)v[12], (void*)v[13], (void*)v[14], v[15],
                           v[16]);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(status);
}

static PyMethodDef methods[] = {{"step", (PyCFunction)(void (*)(void))step, METH_FASTCALL, 0},
                                {"step_once", (PyCFunction)(void (*)(void))step_once, METH_FASTCALL, 0},
                                {0, 0, 0, 0}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_cpu", "See cpu.py.", -1, methods, 0, 0, 0, 0};
PyMODINIT_FUNC PyInit__cpu(void) { return PyModule_Create(&definition); }
#endif
