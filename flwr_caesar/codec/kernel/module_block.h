/* Python's side of groups.c and block.c; a part of module.c. */

FUNCTION(write_groups)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "LQb", a) < 0)
        return NULL;
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rice_write(a[0].data, a[0].length, a[1].data, a[1].length, a[2].data,
                       a[2].length);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(read_groups)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "BnQl", a) < 0)
        return NULL;
    const int64_t offset = a[1].number;
    if (offset < 0 || offset > a[0].length)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = rice_read((const uint8_t *)a[0].data + offset, a[0].length - offset,
                      a[2].data, a[2].length, a[3].data, a[3].length);
    Py_END_ALLOW_THREADS
    return give(a, found < 0 ? found : offset + found);
}

/* A layout has four numbers of each tensor: its three lengths, and which have scales. */
FUNCTION(block_sums)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "LQdqq", a) < 0)
        return NULL;
    if (a[1].length != 4 * a[4].length)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = sum_block(a[0].data, a[0].length, a[1].data, a[4].length, a[2].data,
                      a[2].length, a[3].data, a[3].length, a[4].data);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(block_flip)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "lQBB", a) < 0)
        return NULL;
    if (a[1].length != 4 * a[2].length)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = flip_block(a[0].data, a[0].length, a[1].data, a[2].length, a[2].data,
                       a[3].data, a[3].length);
    Py_END_ALLOW_THREADS
    return give(a, found);
}

FUNCTION(block_contexts)
{
    Argument a[MAX_ARGUMENTS];
    if (take(objects, given, "SQnnnb", a) < 0)
        return NULL;
    const int64_t shift = a[2].number, first = a[3].number, last = a[4].number;
    if (a[1].length % 4 || shift < 0 || shift > 7 || first < 0 || last < first ||
        last > UINT8_MAX)
        return refuse(a);
    int64_t found;
    Py_BEGIN_ALLOW_THREADS
    found = context_block(a[0].data, a[0].length, a[1].data, a[1].length / 4, (int)shift,
                          (uint8_t)first, (uint8_t)last, a[5].data, a[5].length);
    Py_END_ALLOW_THREADS
    return give(a, found);
}
