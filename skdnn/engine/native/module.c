/* skdnn.engine._native: training steps as programs of small kernels, without Python or torch's dispatch between them.
 *
 * The kernels are compiled once for each set of vector instructions and chosen when the module is loaded. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stddef.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "functions.h"
#include "program.h"
#if defined(__x86_64__)
#include "squares.h"
#endif

/* Intel's AMX: compilers since 2021 know it, and Linux grants it on request. */
#if defined(__x86_64__) && defined(__linux__)
#if defined(__clang__)
#define HAS_TILES (__clang_major__ >= 12)
#else
#define HAS_TILES (__GNUC__ >= 11)
#endif
#endif
#if HAS_TILES
#include "tiles.h"
#endif

/* Iterations of a loop that may write where it reads, but never where another iteration reads. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* What a quad of numbers is shuffled by. */
typedef int32_t indices_float __attribute__((vector_size(16)));
typedef int64_t indices_double __attribute__((vector_size(32)));

#define MAX_CHAIN 32

/* Operands of what may follow a product, and numbers of its result that are made at a time: what stays in the second cache. */
#define MAX_FOLLOWER_OPERANDS 5
#define FOLLOWED_NUMBERS (1 << 14)
#define TILE_VECTORS 3

#define JOIN_(x, type, set) x##_##type##_##set
#define JOIN(x, type, set) JOIN_(x, type, set)
#define NAME(x) JOIN(x, real, SET)

#if HAS_TILES
#define SET amx
#define TARGET TILES
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#define USES_TILES 1
#define real float
#define IS_DOUBLE 0
#include "kernels.inc.c"
#undef SET
#undef TARGET
#undef VECTOR_BYTES
#undef TILE_ROWS
#undef USES_TILES
#undef real
#undef IS_DOUBLE
#endif

#define USES_TILES 0

#if defined(__x86_64__)

#define SET avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")))
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#include "both_types.inc.c"

#define SET avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#define TILE_ROWS 4
#include "both_types.inc.c"

#endif

/* What every processor of the kind has: SSE2, or NEON with twice the registers. */
#define SET baseline
#define TARGET
#define VECTOR_BYTES 16
#if defined(__aarch64__)
#define TILE_ROWS 8
#else
#define TILE_ROWS 4
#endif
#include "both_types.inc.c"

static struct {
    const char *name;
    runner *run_float, *run_double;
    int is_available;
} sets[] = {
#if HAS_TILES
    {"amx", run_float_amx, run_double_avx512, 0},
#endif
#if defined(__x86_64__)
    {"avx512", run_float_avx512, run_double_avx512, 0},
    {"avx2", run_float_avx2, run_double_avx2, 0},
#endif
    {"baseline", run_float_baseline, run_double_baseline, 1},
};
#define N_SETS ((int)(sizeof sets / sizeof *sets))

static const char *const codes[] = {
#define X(name, ...) #name,
    ELEMENTWISE_OPERATIONS(X) OTHER_OPERATIONS(X)
#undef X
};

PyDoc_STRVAR(run_doc, "run(program, numbers, first, n_steps, is_double, instructions)\n\n"
                      "Run the steps of n_steps batches from `first` on; see skdnn.engine.program.Program.");

static PyObject *
py_run(PyObject *self, PyObject *args)
{
    Py_buffer program, numbers;
    Py_ssize_t first, n_steps;
    int is_double, set, status = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*nnpi", &program, &numbers, &first, &n_steps, &is_double, &set))
        return NULL;
    const int64_t n_operations = program.len / sizeof(operation), n_all = numbers.len / sizeof(double);
    if (set < 0 || set >= N_SETS || !sets[set].is_available || n_steps < 0 || program.len % sizeof(operation))
        PyErr_SetString(PyExc_ValueError, "not a program for this processor");
    else if (n_steps > 0) {
        runner *run = is_double ? sets[set].run_double : sets[set].run_float;
        Py_BEGIN_ALLOW_THREADS;
        status = run(program.buf, n_operations, numbers.buf, first, n_steps, n_all / n_steps);
        Py_END_ALLOW_THREADS;
        if (status)
            PyErr_NoMemory();
    }
    PyBuffer_Release(&program);
    PyBuffer_Release(&numbers);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"run", py_run, METH_VARARGS, run_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "skdnn.engine._native", "Training steps as programs of small kernels.", -1, methods,
    NULL, NULL, NULL, NULL};

/* A tuple of (number, name) of the sets of instructions that there are, the best first. */
static PyObject *
available_sets(void)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < N_SETS; i++)
        if (sets[i].is_available) {
            PyObject *pair = Py_BuildValue("(is)", i, sets[i].name);
            if (!pair || PyList_Append(list, pair))
                Py_CLEAR(list);
            Py_XDECREF(pair);
        }
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static PyObject *
code_numbers(void)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < N_OPERATIONS; i++) {
        PyObject *number = PyLong_FromLong(i);
        if (!number || PyDict_SetItemString(dict, codes[i], number))
            Py_CLEAR(dict);
        Py_XDECREF(number);
    }
    return dict;
}

PyMODINIT_FUNC
PyInit__native(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    sets[N_SETS - 2].is_available = has_avx2;
    sets[N_SETS - 3].is_available = has_avx512;
#if HAS_TILES
    sets[0].is_available = has_avx512 && tiles_are_available();
#endif
#endif
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
    PyObject *found = available_sets(), *numbers = code_numbers();
    if (PyModule_AddObjectRef(module, "INSTRUCTION_SETS", found) || PyModule_AddObjectRef(module, "CODES", numbers) ||
        PyModule_AddIntConstant(module, "N_ELEMENTWISE", N_ELEMENTWISE) ||
        PyModule_AddIntConstant(module, "MAX_CHAIN", MAX_CHAIN) ||
        PyModule_AddIntConstant(module, "MAX_OPERANDS", MAX_OPERANDS) ||
        PyModule_AddIntConstant(module, "MAX_NUMBERS", MAX_NUMBERS) ||
        PyModule_AddIntConstant(module, "OPERATION_SIZE", sizeof(operation)))
        Py_CLEAR(module);
    Py_XDECREF(found);
    Py_XDECREF(numbers);
    return module;
}
