/* `Merge`: entries on their way into the base, the newest of each key, in the base's order.
 *
 * All is in memory of its own, so that the interpreter lock is not needed for most of the work.
 */

#include "_xxh3.h"

/* The bytes of a key in the base before the key's own: place, point, whether it is bytes. */
#define BEFORE_KEY 11

typedef struct {
    uint64_t point;
    uint64_t at; /* in `bytes`: the key in the base, then the entry */
    uint32_t key, entry; /* their lengths */
    uint32_t rank; /* the delta it is from; 0 is the newest */
    uint16_t place;
} Record;

typedef struct {
    PyObject_HEAD
    Buffer bytes;
    Record *records;
    size_t count, room;
    uint32_t *slots; /* number of the record + 1 */
    size_t mask;
    size_t taken;
    int sorted, busy;
} Merge;

static int
merge_room(Merge *self)
{
    if (self->count == self->room) {
        size_t room = self->room ? self->room * 2 : 1024;
        Record *records = PyMem_RawRealloc(self->records, room * sizeof(Record));
        if (records == NULL) {
            return -1;
        }
        self->records = records;
        self->room = room;
    }
    if (3 * (self->count + 1) > 2 * (self->mask + 1) || self->slots == NULL) {
        size_t count = self->slots ? 2 * (self->mask + 1) : 4096;
        uint32_t *slots = count < UINT32_MAX ? PyMem_RawCalloc(count, sizeof(uint32_t)) : NULL;
        if (slots == NULL) {
            return -1;
        }
        for (size_t i = 0; i < self->count; i++) {
            size_t at = (size_t)self->records[i].point & (count - 1);
            while (slots[at]) {
                at = (at + 1) & (count - 1);
            }
            slots[at] = (uint32_t)(i + 1);
        }
        PyMem_RawFree(self->slots);
        self->slots = slots;
        self->mask = count - 1;
    }
    return 0;
}

/* Where to put an entry of `length` bytes; NULL if there is a newer one (`*done` is 0 then), or no
 * memory (-1). */
static char *
merge_entry(
    Merge *self, unsigned place, uint64_t point, int is_bytes, const unsigned char *key,
    size_t key_length, size_t length, uint32_t rank, int *done)
{
    *done = -1;
    if (merge_room(self) < 0 || buffer_room(&self->bytes, BEFORE_KEY + key_length + length) < 0) {
        return NULL;
    }
    *done = 0;
    size_t at = (size_t)point & self->mask;
    Record *record = NULL;
    for (; self->slots[at]; at = (at + 1) & self->mask) {
        Record *each = &self->records[self->slots[at] - 1];
        if (each->point == point && each->place == place && each->key == BEFORE_KEY + key_length
            && self->bytes.data[each->at + BEFORE_KEY - 1] == is_bytes
            && memcmp(self->bytes.data + each->at + BEFORE_KEY, key, key_length) == 0) {
            if (each->rank <= rank) {
                return NULL;
            }
            record = each;
            break;
        }
    }
    if (record == NULL) {
        self->slots[at] = (uint32_t)(self->count + 1);
        record = &self->records[self->count++];
    }
    record->point = point;
    record->at = self->bytes.used;
    record->key = (uint32_t)(BEFORE_KEY + key_length);
    record->entry = (uint32_t)length;
    record->rank = rank;
    record->place = (uint16_t)place;
    put_byte(&self->bytes, (unsigned char)(place >> 8));
    put_byte(&self->bytes, (unsigned char)place);
    for (int i = 56; i >= 0; i -= 8) {
        put_byte(&self->bytes, (unsigned char)(point >> i));
    }
    put_byte(&self->bytes, (unsigned char)is_bytes);
    put(&self->bytes, key, key_length);
    char *entry = self->bytes.data + self->bytes.used;
    self->bytes.used += length;
    *done = 1;
    return entry;
}

/* The end of `count` values, or of as many as there are before APPENDS; NULL if there is another. */
static const unsigned char *
skip_atoms(const unsigned char *at, const unsigned char *end, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i != count && at != NULL; i++) {
        at = skip_atom(at, end);
    }
    return at;
}

/* What follows a row of `names` values. */
static const unsigned char *
skip_row(const unsigned char *at, const unsigned char *end, Py_ssize_t names)
{
    if (names > 3) {
        if (at >= end || *at++ != MARK) {
            return NULL;
        }
    }
    at = skip_atoms(at, end, names);
    if (names > 1) {
        unsigned char close = names > 3 ? TUPLE : names == 3 ? TUPLE3 : TUPLE2;
        if (at == NULL || at >= end || *at++ != close) {
            return NULL;
        }
    }
    return at;
}

/* The text of a key, or of a name; NULL if it is none. */
static const unsigned char *
text_of(const unsigned char *at, int *is_bytes, size_t *length)
{
    *is_bytes = *at == SHORT_BINBYTES || *at == BINBYTES;
    if (*at == SHORT_BINUNICODE || *at == SHORT_BINBYTES) {
        *length = at[1];
        return at + 2;
    }
    if (*at == BINUNICODE || *at == BINBYTES) {
        *length = (size_t)read_little(at + 1, 4);
        return at + 5;
    }
    return NULL;
}

/* The hashes of the next keys; and where they may be found is asked for, all at once: one cache
 * line that is missed after the other would be most of the time. */
static void
hash_ahead(
    Merge *self, const unsigned char *key, const unsigned char *end, size_t left, uint64_t *points)
{
    size_t count = left < AHEAD ? left : AHEAD;
    for (size_t i = 0; i < count; i++) {
        int is_bytes;
        size_t size;
        const unsigned char *text = text_of(key, &is_bytes, &size);
        points[i] = hash_of(text, size);
        if (self->slots) {
            FETCH(&self->slots[(size_t)points[i] & self->mask]);
        }
        key = skip_atom(key, end);
    }
    for (size_t i = 0; i < count && self->slots; i++) {
        uint32_t number = self->slots[(size_t)points[i] & self->mask];
        if (number) {
            FETCH(&self->records[number - 1]);
        }
    }
    for (size_t i = 0; i < count && self->slots; i++) {
        uint32_t number = self->slots[(size_t)points[i] & self->mask];
        if (number) {
            FETCH(self->bytes.data + self->records[number - 1].at);
        }
    }
}

/* Take the entries of a block as `take_block` makes it. 1; 0 if it is another one, of which nothing
 * is taken; -1 if there is no memory. Needs no interpreter. */
static int
merge_block(
    Merge *self, const unsigned char *data, size_t length, size_t entries, unsigned place,
    uint32_t rank)
{
    const unsigned char *end = data + length;
    if (length < PICKLE_HEAD + 3 || data[0] != PROTO || data[1] != 5 || data[2] != FRAME
        || read_little(data + 3, 8) != length - PICKLE_HEAD
        || memcmp(data + PICKLE_HEAD, "(](", 3) != 0) {
        return 0;
    }
    const unsigned char *keys = data + PICKLE_HEAD + 3, *at = keys;
    for (size_t i = 0; i < entries; i++) {
        int is_bytes;
        size_t size;
        const unsigned char *next = skip_atom(at, end);
        if (next == NULL || text_of(at, &is_bytes, &size) == NULL || size > HASHED_MOST) {
            return 0;
        }
        at = next;
    }
    if (end - at < 3 || memcmp(at, "e](", 3) != 0) {
        return 0;
    }
    const unsigned char *rows = at + 3, *names = NULL;
    /* How many names there are stands behind the rows; the first row tells. */
    at = rows;
    Py_ssize_t count = 0, most = 0;
    if (at < end && *at == MARK) {
        at++;
        most = 1 << 16;
    }
    else {
        most = 3;
    }
    while (count < most && at < end && skip_atom(at, end)) {
        at = skip_atom(at, end);
        count++;
        if (most == 3 && entries == 1 && at < end && *at == APPENDS) {
            break;
        }
    }
    if (most == 3) {
        count = at < end && *at == TUPLE3 && count == 3   ? 3
                : at < end && *at == TUPLE2 && count == 2 ? 2
                                                          : 1;
    }
    else if (at >= end || *at != TUPLE || count < 4) {
        return 0;
    }
    at = rows;
    for (size_t i = 0; i < entries && at; i++) {
        at = skip_row(at, end, count);
    }
    if (at == NULL || end - at < 2 || at[0] != APPENDS || at[1] != MARK) {
        return 0;
    }
    names = at + 2;
    at = names;
    size_t names_size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        int is_bytes;
        size_t size;
        const unsigned char *next = skip_atom(at, end);
        if (next == NULL || text_of(at, &is_bytes, &size) == NULL || is_bytes) {
            return 0;
        }
        at = next;
    }
    names_size = (size_t)(at - names);
    if (end - at != 4 || memcmp(at, "t}t.", 4) != 0) {
        return 0;
    }
    const unsigned char *key = keys, *row = rows;
    uint64_t points[AHEAD];
    for (size_t i = 0; i < entries; i++) {
        if (i % AHEAD == 0) {
            hash_ahead(self, key, end, entries - i, points);
        }
        const unsigned char *next = skip_row(row, end, count);
        const unsigned char *value = row + (count > 3);
        size_t values = (size_t)(next - row) - (count > 3) - (count > 1);
        int is_bytes, done;
        size_t size;
        const unsigned char *text = text_of(key, &is_bytes, &size);
        /* EMPTY_DICT MARK name value ... SETITEMS STOP */
        size_t pickle = 2 + names_size + values + 2;
        char *entry = merge_entry(
            self, place, points[i % AHEAD], is_bytes, text, size, 1 + PICKLE_HEAD + pickle, rank,
            &done);
        if (done < 0) {
            return -1;
        }
        if (entry) {
            *entry++ = ATTRIBUTES;
            put_head((unsigned char *)entry, pickle);
            entry += PICKLE_HEAD;
            *entry++ = EMPTY_DICT;
            *entry++ = MARK;
            const unsigned char *name = names;
            for (Py_ssize_t n = 0; n < count; n++) {
                const unsigned char *name_end = skip_atom(name, end);
                const unsigned char *value_end = skip_atom(value, end);
                memcpy(entry, name, (size_t)(name_end - name));
                entry += name_end - name;
                memcpy(entry, value, (size_t)(value_end - value));
                entry += value_end - value;
                name = name_end;
                value = value_end;
            }
            *entry++ = SETITEMS;
            *entry = STOP;
        }
        key = skip_atom(key, end);
        row = next;
    }
    return 1;
}

static int
merge_free(Merge *self)
{
    if (self->busy || self->sorted) {
        PyErr_SetString(
            PyExc_RuntimeError,
            self->busy ? "it is being used by another thread" : "entries come too late");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(add_doc,
"add(rank, blocks) -> list of indexes\n\n"
"Take the entries of blocks of a delta, of which the newest has rank 0, each as (place, number of\n"
"entries, payload); their points are the hashes of their keys. Returns those of which nothing was\n"
"taken, since `Table` has not encoded them. Runs without the interpreter lock.");

typedef struct {
    const unsigned char *data;
    size_t length, entries;
    unsigned place;
    int done;
} Waiting;

static PyObject *
merge_add(Merge *self, PyObject *arguments)
{
    unsigned int rank;
    PyObject *list;
    if (merge_free(self) < 0
        || !PyArg_ParseTuple(arguments, "IO!:add", &rank, &PyList_Type, &list)) {
        return NULL;
    }
    /* A copy holds the payloads while others may change the list. */
    PyObject *blocks = PyList_AsTuple(list);
    if (blocks == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(blocks);
    Waiting *waiting = PyMem_RawCalloc((size_t)count + 1, sizeof(Waiting));
    PyObject *left = PyList_New(0);
    if (waiting == NULL || left == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *payload;
        Py_ssize_t entries;
        unsigned int place;
        PyObject *block = PyTuple_GET_ITEM(blocks, i);
        if (!PyTuple_Check(block)) {
            PyErr_SetString(PyExc_TypeError, "a block is a tuple");
            goto failed;
        }
        if (!PyArg_ParseTuple(block, "InO!", &place, &entries, &PyBytes_Type, &payload)) {
            goto failed;
        }
        waiting[i].data = (const unsigned char *)PyBytes_AS_STRING(payload);
        waiting[i].length = (size_t)PyBytes_GET_SIZE(payload);
        waiting[i].entries = entries < 0 ? SIZE_MAX : (size_t)entries;
        waiting[i].place = place & UINT16_MAX;
    }
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        Waiting *each = &waiting[i];
        each->done
            = merge_block(self, each->data, each->length, each->entries, each->place, rank);
        if (each->done < 0) {
            break;
        }
    }
    Py_END_ALLOW_THREADS
    self->busy = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (waiting[i].done < 0) {
            PyErr_NoMemory();
            goto failed;
        }
        if (!waiting[i].done) {
            PyObject *number = PyLong_FromSsize_t(i);
            int failed = number == NULL || PyList_Append(left, number) < 0;
            Py_XDECREF(number);
            if (failed) {
                goto failed;
            }
        }
    }
    PyMem_RawFree(waiting);
    Py_DECREF(blocks);
    return left;
failed:
    PyMem_RawFree(waiting);
    Py_DECREF(blocks);
    Py_XDECREF(left);
    return NULL;
}

PyDoc_STRVAR(put_doc,
"put(rank, keys, entries)\n\nTake entries by their keys in the base.");

static PyObject *
merge_put(Merge *self, PyObject *arguments)
{
    unsigned int rank;
    PyObject *keys, *entries;
    if (merge_free(self) < 0
        || !PyArg_ParseTuple(
            arguments, "IO!O!:put", &rank, &PyList_Type, &keys, &PyList_Type, &entries)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        PyObject *entry = i < PyList_GET_SIZE(entries) ? PyList_GET_ITEM(entries, i) : Py_None;
        if (!PyBytes_Check(key) || PyBytes_GET_SIZE(key) < BEFORE_KEY || !PyBytes_Check(entry)
            || PyBytes_GET_SIZE(entry) > UINT32_MAX - 64 || PyBytes_GET_SIZE(key) > UINT32_MAX - 64) {
            PyErr_SetString(PyExc_TypeError, "keys in the base, and as many entries");
            return NULL;
        }
        const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(key);
        uint64_t point = 0;
        for (int byte = 2; byte < 10; byte++) {
            point = point << 8 | data[byte];
        }
        int done;
        char *at = merge_entry(
            self, (unsigned)data[0] << 8 | data[1], point, data[BEFORE_KEY - 1], data + BEFORE_KEY,
            (size_t)PyBytes_GET_SIZE(key) - BEFORE_KEY, (size_t)PyBytes_GET_SIZE(entry), rank,
            &done);
        if (done < 0) {
            return PyErr_NoMemory();
        }
        if (at) {
            memcpy(at, PyBytes_AS_STRING(entry), (size_t)PyBytes_GET_SIZE(entry));
        }
    }
    Py_RETURN_NONE;
}

/* The order of two entries in the base; `bytes` is only read. */
static int
before(const char *bytes, const Record *one, const Record *other)
{
    if (one->place != other->place) {
        return one->place < other->place;
    }
    if (one->point != other->point) {
        return one->point < other->point;
    }
    uint32_t least = one->key < other->key ? one->key : other->key;
    int compared = memcmp(bytes + one->at, bytes + other->at, least);
    return compared ? compared < 0 : one->key < other->key;
}

/* Sort: into buckets by place and the first bits of the point, then each by insertion. */
static int
merge_sort(Merge *self)
{
    enum { BITS = 16 };
    size_t count = self->count;
    Record *sorted = PyMem_RawMalloc((count + 1) * sizeof(Record));
    size_t *starts = PyMem_RawCalloc(((size_t)1 << BITS) + 1, sizeof(size_t));
    if (sorted == NULL || starts == NULL) {
        PyMem_RawFree(sorted);
        PyMem_RawFree(starts);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        starts[(self->records[i].point >> (64 - BITS)) + 1]++;
    }
    for (size_t i = 0; i < (size_t)1 << BITS; i++) {
        starts[i + 1] += starts[i];
    }
    for (size_t i = 0; i < count; i++) {
        sorted[starts[self->records[i].point >> (64 - BITS)]++] = self->records[i];
    }
    /* A start is where the bucket ends now. By place the order is made by a stable second pass. */
    size_t from = 0;
    for (size_t bucket = 0; bucket < (size_t)1 << BITS; bucket++) {
        size_t to = starts[bucket];
        if (to - from > 64) {
            /* Heap sort: points of partitions may be equal by the thousand. */
            Record *part = sorted + from;
            size_t size = to - from;
            for (size_t end = size, root = size / 2; end > 1;) {
                if (root > 0) {
                    root--;
                }
                else {
                    end--;
                    Record most = part[0];
                    part[0] = part[end];
                    part[end] = most;
                }
                size_t at = root;
                for (size_t child; (child = 2 * at + 1) < end; at = child) {
                    if (child + 1 < end
                        && before(self->bytes.data, &part[child], &part[child + 1])) {
                        child++;
                    }
                    if (!before(self->bytes.data, &part[at], &part[child])) {
                        break;
                    }
                    Record moved = part[at];
                    part[at] = part[child];
                    part[child] = moved;
                }
            }
        }
        else {
            for (size_t i = from + 1; i < to; i++) {
                Record each = sorted[i];
                size_t at = i;
                for (; at > from && before(self->bytes.data, &each, &sorted[at - 1]); at--) {
                    sorted[at] = sorted[at - 1];
                }
                sorted[at] = each;
            }
        }
        from = to;
    }
    PyMem_RawFree(starts);
    /* Now by place, keeping that order. Places are few. */
    size_t *places = PyMem_RawCalloc((size_t)UINT16_MAX + 2, sizeof(size_t));
    if (places == NULL) {
        PyMem_RawFree(sorted);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        places[sorted[i].place + 1]++;
    }
    for (size_t i = 0; i <= UINT16_MAX; i++) {
        places[i + 1] += places[i];
    }
    for (size_t i = 0; i < count; i++) {
        self->records[places[sorted[i].place]++] = sorted[i];
    }
    PyMem_RawFree(places);
    PyMem_RawFree(sorted);
    PyMem_RawFree(self->slots);
    self->slots = NULL;
    self->mask = 0;
    return 0;
}

PyDoc_STRVAR(take_doc,
"take(count) -> (keys, entries)\n\n"
"The next `count` entries, in the order of the base; none if there are no more. The first call ends\n"
"the adding and sorts, without the interpreter lock.");

static PyObject *
merge_take(Merge *self, PyObject *argument)
{
    Py_ssize_t most = PyLong_AsSsize_t(argument);
    if (most == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (self->busy) {
        merge_free(self);
        return NULL;
    }
    if (!self->sorted) {
        int done;
        self->busy = 1;
        Py_BEGIN_ALLOW_THREADS
        done = merge_sort(self);
        Py_END_ALLOW_THREADS
        self->busy = 0;
        if (done < 0) {
            return PyErr_NoMemory();
        }
        self->sorted = 1;
    }
    Py_ssize_t left = (Py_ssize_t)(self->count - self->taken);
    Py_ssize_t count = most < left ? most : left;
    count = count < 0 ? 0 : count;
    PyObject *keys = PyList_New(count), *entries = PyList_New(count);
    if (keys == NULL || entries == NULL) {
        goto failed;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Record *record = &self->records[self->taken + (size_t)i];
        if (i + 8 < count) {
            FETCH(self->bytes.data + record[8].at);
        }
        const char *at = self->bytes.data + record->at;
        PyObject *key = PyBytes_FromStringAndSize(at, record->key);
        PyObject *entry = PyBytes_FromStringAndSize(at + record->key, record->entry);
        if (key == NULL || entry == NULL) {
            Py_XDECREF(key);
            Py_XDECREF(entry);
            goto failed;
        }
        PyList_SET_ITEM(keys, i, key);
        PyList_SET_ITEM(entries, i, entry);
    }
    self->taken += (size_t)count;
    return Py_BuildValue("NN", keys, entries);
failed:
    Py_XDECREF(keys);
    Py_XDECREF(entries);
    return NULL;
}

static Py_ssize_t
merge_length(Merge *self)
{
    return (Py_ssize_t)self->count;
}

static PyObject *
merge_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    if (!PyArg_ParseTuple(arguments, ":Merge")) {
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static void
merge_dealloc(Merge *self)
{
    PyTypeObject *type = Py_TYPE(self);
    buffer_free(&self->bytes);
    PyMem_RawFree(self->records);
    PyMem_RawFree(self->slots);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef merge_methods[] = {
    {"add", (PyCFunction)merge_add, METH_VARARGS, add_doc},
    {"put", (PyCFunction)merge_put, METH_VARARGS, put_doc},
    {"take", (PyCFunction)merge_take, METH_O, take_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(merge_doc,
"Merge()\n\nEntries on their way into the base, of each key the newest. As long as their number.");

static PyType_Slot merge_slots[] = {
    {Py_tp_doc, (void *)merge_doc},
    {Py_tp_new, merge_new},
    {Py_tp_dealloc, merge_dealloc},
    {Py_tp_methods, merge_methods},
    {Py_sq_length, merge_length},
    {0, NULL},
};

static PyType_Spec merge_spec = {
    .name = "wallaroo.state._native.Merge",
    .basicsize = sizeof(Merge),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = merge_slots,
};
