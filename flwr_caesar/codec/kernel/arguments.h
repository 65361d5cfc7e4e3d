/* Arguments of the functions of the module: taken by a signature, checked, let go of. */
#ifndef FLWR_CAESAR_ARGUMENTS_H
#define FLWR_CAESAR_ARGUMENTS_H

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
    double real;
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
    {'S', "h", 2},
    {'L', "il", 4},
    {'Q', "lq", 8},
    {'F', "f", 4},
    {'D', "d", 8},
    /* integers, contexts and floats, of either width, and either of 4 bytes */
    {'V', "h", 2},
    {'V', "il", 4},
    {'C', "B", 1},
    {'C', "H", 2},
    {'E', "f", 4},
    {'E', "d", 8},
    {'X', "f", 4},
    {'X', "il", 4},
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
            continue;
        out->data = out->view.buf;
        out->length = out->view.len / out->view.itemsize;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "an array of kind %c has the format %s", kind, format);
    return -1;
}

/* Takes arguments by a signature, a letter each: an array of one of KINDS, in lower
   case one that is written; n: an integer; x: a number. On failure nothing is held. */
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
        else if (signature[i] == 'x')
            out[i].real = PyFloat_AsDouble(objects[i]);
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

/* Each checks its arguments and calls the loop of interface.py's description. */
#define FUNCTION(name)                                                                \
    static PyObject *name(PyObject *Py_UNUSED(self), PyObject *const *objects,        \
                          Py_ssize_t given)

#endif
