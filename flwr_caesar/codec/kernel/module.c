/* Python's side of the loops: arguments are checked, and the GIL is released. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "loops.h"

#include <ctype.h>
#include <string.h>

enum { MAX_ARGUMENTS = 12 };

typedef struct {
    Py_buffer view;
    int held;
    void *data;
    int64_t length; /* of an array, in elements */
    int64_t number;
} Argument;

/* The letter of each kind of array in a signature, and how numpy names it. */
static const struct {
    char kind;
    const char *formats;
    Py_ssize_t size;
} KINDS[] = {
    {'B', "B", 1},
    {'H', "H", 2},
    {'I', "IL", 4},
};

static void release(Argument *arguments)
{
    for (int i = 0; i < MAX_ARGUMENTS; i++)
        if (arguments[i].held)
            PyBuffer_Release(&arguments[i].view);
}

static int take_array(PyObject *object, char kind, Argument *out)
{
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;
    if (islower((unsigned char)kind))
        flags |= PyBUF_WRITABLE;
    if (PyObject_GetBuffer(object, &out->view, flags) < 0)
        return -1;
    out->held = 1;
    const char *format = out->view.format;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        if (KINDS[i].kind != toupper((unsigned char)kind))
            continue;
        if (out->view.itemsize != KINDS[i].size || strlen(format) != 1 ||
            strchr(KINDS[i].formats, *format) == NULL)
            break;
        out->data = out->view.buf;
        out->length = out->view.len / out->view.itemsize;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "an array of kind %c has the format %s", kind, format);
    return -1;
}

/* Takes arguments by a signature, a letter each: an array of one of KINDS, in lower
   case one that is written; n: an integer. On failure nothing is held. */
static int take(PyObject *const *objects, Py_ssize_t given, const char *signature,
                Argument *out)
{
    memset(out, 0, MAX_ARGUMENTS * sizeof(Argument));
    if ((size_t)given != strlen(signature)) {
        PyErr_Format(PyExc_TypeError, "%zd arguments, not %zu", given,
                     strlen(signature));
        return -1;
    }
    for (Py_ssize_t i = 0; i < given; i++) {
        if (signature[i] == 'n')
            out[i].number = PyLong_AsLongLong(objects[i]);
        else
            take_array(objects[i], signature[i], &out[i]);
        if (PyErr_Occurred() != NULL) {
            release(out);
            return -1;
        }
    }
    return 0;
}

/* Lets go of arguments; what a loop found, or TRUNCATED, is returned. */
static PyObject *give(Argument *arguments, int64_t found)
{
    release(arguments);
    if (found == NO_MEMORY)
        return PyErr_NoMemory();
    if (found == OUT_OF_RANGE) {
        PyErr_SetString(PyExc_ValueError, "an array holds what is out of range");
        return NULL;
    }
    return PyLong_FromLongLong(found);
}

static PyObject *refuse(Argument *arguments)
{
    release(arguments);
    PyErr_SetString(PyExc_ValueError, "arrays are of lengths that do not match");
    return NULL;
}

static PyObject *push(PyObject *self, PyObject *const *objects, Py_ssize_t given)
{
    (void)self;
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "iHBIh", a) < 0)
        return NULL;
    const int64_t n = a[1].length, contexts = a[3].length / MAX_ALPHABET;
    if (a[0].length < 1 || a[2].length != n || a[3].length % MAX_ALPHABET ||
        a[4].length != n + 1)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rans_push(a[0].data, a[0].length, a[1].data, a[2].data, n, a[3].data,
                      contexts, a[4].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

static PyObject *pull(PyObject *self, PyObject *const *objects, Py_ssize_t given)
{
    (void)self;
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "iHhBHn", a) < 0)
        return NULL;
    const int64_t n = a[2].length, alphabet = a[5].number;
    if (a[0].length < 1 || a[3].length != n || alphabet < 1 ||
        alphabet > MAX_ALPHABET || a[4].length % alphabet ||
        a[4].length / alphabet > 256)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rans_pull(a[0].data, a[0].length, a[1].data, a[1].length, a[2].data,
                      a[3].data, n, a[4].data, a[4].length / alphabet, alphabet);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef METHODS[] = {
    METHOD(push),
    METHOD(pull),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_size = 0,
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&MODULE);
}
