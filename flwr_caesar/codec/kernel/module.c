/* Python's side of the loops: arguments are checked, and the GIL is released. */
#include "arguments.h"

FUNCTION(push)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "iHBIhn", a) < 0)
        return NULL;
    const int64_t n = a[1].length, contexts = a[3].length / MAX_ALPHABET;
    if (a[0].length < 1 || a[2].length != n || a[3].length % MAX_ALPHABET ||
        a[4].length != n + 1)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rans_push(a[0].data, a[0].length, a[1].data, a[2].data, n, a[3].data,
                      contexts, a[4].data, a[5].number != 0);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(pull)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "iHhBHnn", a) < 0)
        return NULL;
    const int64_t n = a[2].length, alphabet = a[5].number;
    if (a[0].length < 1 || a[3].length != n || alphabet < 1 ||
        alphabet > MAX_ALPHABET || a[4].length % alphabet ||
        a[4].length / alphabet > 256)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rans_pull(a[0].data, a[0].length, a[1].data, a[1].length, a[2].data,
                      a[3].data, n, a[4].data, a[4].length / alphabet, alphabet,
                      a[6].number != 0);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

static int is_mantissa(const Argument *argument)
{
    return argument->number == 2 || argument->number == 4;
}

FUNCTION(symbols)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Vhn", a) < 0)
        return NULL;
    const int64_t n = a[0].length;
    if (a[1].length != n || !is_mantissa(&a[2]))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = to_symbols(a[0].data, a[0].view.itemsize == 4, n, (int)a[2].number,
                       a[1].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(octaves)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Hqn", a) < 0)
        return NULL;
    if (a[1].length != OCTAVES || !is_mantissa(&a[2]))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = count_octaves(a[0].data, a[0].length, (int)a[2].number, a[1].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(raw_bits)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "VHQbn", a) < 0)
        return NULL;
    const int64_t n = a[0].length;
    if (a[1].length != n || a[2].length != OCTAVES + 1 || !is_mantissa(&a[4]))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = pack_raw_bits(a[0].data, a[0].view.itemsize == 4, a[1].data, n,
                          (int)a[4].number, a[2].data, a[3].data, a[3].length);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(near)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Hqln", a) < 0)
        return NULL;
    const int64_t n = a[0].length;
    if (a[1].length != OCTAVES || a[2].length != n || !is_mantissa(&a[3]))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = to_near(a[0].data, n, (int)a[3].number, a[1].data, a[2].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(far)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "HQBln", a) < 0)
        return NULL;
    const int64_t n = a[0].length;
    if (a[1].length != OCTAVES + 1 || a[3].length != n || !is_mantissa(&a[4]))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = to_far(a[0].data, n, (int)a[4].number, a[1].data, a[2].data, a[2].length,
                   a[3].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(count)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "HCqn", a) < 0)
        return NULL;
    const int64_t n = a[0].length, alphabet = a[3].number;
    if (a[1].length != n || alphabet < 1 || alphabet > MAX_ALPHABET ||
        a[2].length % alphabet || a[2].length > (int64_t)1 << 28)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = count_symbols(a[0].data, a[1].data, a[1].view.itemsize == 2, n, a[2].data,
                          a[2].length / alphabet, alphabet);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(mark)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Bb", a) < 0)
        return NULL;
    if (a[1].length != 256)
        return refuse(a);
    Py_BEGIN_ALLOW_THREADS
    mark_contexts(a[0].data, a[0].length, a[1].data);
    Py_END_ALLOW_THREADS
    return give(a, 0);
}

/* Whether three lengths make up `n` elements, none of them 0. */
static int fits(int64_t n, int64_t o, int64_t i, int64_t k)
{
    return o >= 1 && i >= 1 && k >= 1 && n % o == 0 && n / o % i == 0 && n / o / i == k;
}

FUNCTION(sums)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Xddd", a) < 0)
        return NULL;
    if (!fits(a[0].length, a[1].length, a[2].length, a[3].length))
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = slice_sums(a[0].data, *a[0].view.format != 'f', a[1].length, a[2].length, a[3].length, a[1].data,
                       a[2].data, a[3].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(energy)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "E", a) < 0)
        return NULL;
    double found;
    Py_BEGIN_ALLOW_THREADS
    found = sum_of_squares(a[0].data, a[0].view.itemsize == 8, a[0].length);
    Py_END_ALLOW_THREADS
    release(a);
    return PyFloat_FromDouble(found);
}

/* An axis without scales has an array of none. */
FUNCTION(classes)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "nSSSnnnb", a) < 0)
        return NULL;
    const int64_t sizes[] = {a[4].number, a[5].number, a[6].number};
    const int16_t *scales[3];
    int good = fits(a[7].length, sizes[0], sizes[1], sizes[2]);
    for (int axis = 0; axis < 3; axis++) {
        const Argument *own = &a[axis + 1];
        good = good && (own->length == 0 || own->length == sizes[axis]);
        scales[axis] = own->length == 0 ? NULL : own->data;
    }
    if (!good || a[0].number < INT16_MIN || a[0].number > INT16_MAX)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = scale_classes(a[0].number, scales[0], scales[1], scales[2], sizes[0],
                          sizes[1], sizes[2], a[7].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(merge)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Bnnnb", a) < 0)
        return NULL;
    const int64_t shift = a[1].number, first = a[2].number, last = a[3].number;
    if (a[4].length != a[0].length || shift < 0 || shift > 7 || first < 0 ||
        last < first || last > UINT8_MAX)
        return refuse(a);
    Py_BEGIN_ALLOW_THREADS
    merge_classes(a[0].data, a[0].length, (int)shift, (uint8_t)first, (uint8_t)last,
                  a[4].data);
    Py_END_ALLOW_THREADS
    return give(a, 0);
}

FUNCTION(sample)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "FSnxxhb", a) < 0)
        return NULL;
    const int64_t n = a[0].length, shift = a[2].number;
    if (a[1].length != n || a[5].length != n || a[6].length != n ||
        shift < -UINT16_MAX || shift > UINT16_MAX)
        return refuse(a);
    int64_t found;
    double lost = -1;
    Py_BEGIN_ALLOW_THREADS
    found = measure(a[0].data, a[1].data, n, shift, (float)a[3].real, (float)a[4].real,
                    a[5].data, a[6].data, &lost);
    Py_END_ALLOW_THREADS
    release(a);
    return found == NO_MEMORY ? PyErr_NoMemory() : PyFloat_FromDouble(lost);
}

FUNCTION(lost)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Fxx", a) < 0)
        return NULL;
    double sum = -1;
    Py_BEGIN_ALLOW_THREADS
    dead_zone_loss(a[0].data, a[0].length, (float)a[1].real, (float)a[2].real, &sum);
    Py_END_ALLOW_THREADS
    release(a);
    return PyFloat_FromDouble(sum);
}

FUNCTION(quantise)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "Fxxl", a) < 0)
        return NULL;
    if (a[3].length != a[0].length)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = dead_zone(a[0].data, a[0].length, (float)a[1].real, (float)a[2].real,
                      a[3].data);
    Py_END_ALLOW_THREADS
    release(a);
    return PyBool_FromLong(found == 0);
}

FUNCTION(values)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "lxx", a) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    lattice_values(a[0].data, a[0].length, (float)a[1].real, (float)a[2].real);
    Py_END_ALLOW_THREADS
    return give(a, 0);
}

#include "module_block.h"

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef METHODS[] = {
    METHOD(push),   METHOD(pull),    METHOD(symbols), METHOD(octaves), METHOD(raw_bits),
    METHOD(count),  METHOD(mark),    METHOD(sums),    METHOD(energy),  METHOD(near),
    METHOD(merge),  METHOD(sample),  METHOD(values),  METHOD(classes), METHOD(quantise),
    METHOD(far),    METHOD(lost),    METHOD(write_groups),
    METHOD(read_groups), METHOD(block_sums), METHOD(block_flip), METHOD(block_contexts),
    {NULL, NULL, 0, NULL},
};

static int tell_interface(PyObject *module)
{
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot SLOTS[] = {
    {Py_mod_exec, (void *)tell_interface},
    {0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_native",
    .m_methods = METHODS, .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&MODULE);
}
