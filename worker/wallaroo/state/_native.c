/* Entries of state: finding, encoding and merging them without Python code for each.
 *
 * `Table` is one hash table a place. An entry carries the number of the epoch that touched it last,
 * so a look-up that finds an entry of this epoch is all there is to do, and everything that is to be
 * done once an epoch happens at the others. `Merge` takes blocks that `Table` has encoded apart and
 * keeps the newest entry of each key; it needs no Python object for that, and so no interpreter lock.
 *
 * What this does is what live.py does in Python, which is the reference for it.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define FETCH(at) __builtin_prefetch(at)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#else
#define FETCH(at) ((void)(at))
#define LIKELY(x) (x)
#endif

/* ---- Bytes that grow -------------------------------------------------------------------------- */

typedef struct {
    char *data;
    size_t used, room;
} Buffer;

/* Room for `more` bytes; -1 if there is no memory, without an exception. */
static int
buffer_room(Buffer *buffer, size_t more)
{
    if (LIKELY(buffer->room - buffer->used >= more)) {
        return 0;
    }
    size_t room = buffer->room ? buffer->room : 4096;
    while (room - buffer->used < more) {
        room *= 2;
    }
    char *data = PyMem_RawRealloc(buffer->data, room);
    if (data == NULL) {
        return -1;
    }
    buffer->data = data;
    buffer->room = room;
    return 0;
}

static void
buffer_free(Buffer *buffer)
{
    PyMem_RawFree(buffer->data);
    memset(buffer, 0, sizeof(*buffer));
}

static inline void
put(Buffer *buffer, const void *data, size_t length)
{
    memcpy(buffer->data + buffer->used, data, length);
    buffer->used += length;
}

static inline void
put_byte(Buffer *buffer, unsigned char byte)
{
    buffer->data[buffer->used++] = (char)byte;
}

static inline void
put_little(Buffer *buffer, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        put_byte(buffer, (unsigned char)(value >> (8 * i)));
    }
}

static inline uint64_t
read_little(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

/* ---- Pickles: the few opcodes that are written here --------------------------------------------- */

enum {
    PROTO = 0x80,
    FRAME = 0x95,
    NONE = 'N',
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    BININT = 'J',
    BININT1 = 'K',
    BININT2 = 'M',
    LONG1 = 0x8a,
    BINFLOAT = 'G',
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE = 'X',
    SHORT_BINBYTES = 'C',
    BINBYTES = 'B',
    MARK = '(',
    TUPLE = 't',
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    EMPTY_LIST = ']',
    EMPTY_DICT = '}',
    APPENDS = 'e',
    SETITEM = 's',
    SETITEMS = 'u',
    STOP = '.',
};

/* Bytes before a pickle's first opcode: protocol and frame. */
#define PICKLE_HEAD 11

/* Kinds of entries and blocks, as in entries.py. */
#define ATTRIBUTES 1

static void
put_head(unsigned char *at, uint64_t length)
{
    at[0] = PROTO;
    at[1] = 5;
    at[2] = FRAME;
    for (int i = 0; i < 8; i++) {
        at[3 + i] = (unsigned char)(length >> (8 * i));
    }
}

static int
put_sized(Buffer *out, const char *data, Py_ssize_t length, unsigned char brief, unsigned char full)
{
    if ((uint64_t)length > UINT32_MAX || buffer_room(out, (size_t)length + 5) < 0) {
        return 0;
    }
    if (length < 256) {
        put_byte(out, brief);
        put_byte(out, (unsigned char)length);
    }
    else {
        put_byte(out, full);
        put_little(out, (uint64_t)length, 4);
    }
    put(out, data, (size_t)length);
    return 1;
}

/* Write a value; 0, without an exception, if it is none of the simple ones. */
static int
put_atom(Buffer *out, PyObject *value)
{
    if (buffer_room(out, 16) < 0) {
        return 0;
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow) {
            return 0;
        }
        if (number >= 0 && number < 256) {
            put_byte(out, BININT1);
            put_byte(out, (unsigned char)number);
        }
        else if (number >= 0 && number < 65536) {
            put_byte(out, BININT2);
            put_little(out, (uint64_t)number, 2);
        }
        else if (number >= INT32_MIN && number <= INT32_MAX) {
            put_byte(out, BININT);
            put_little(out, (uint64_t)number, 4);
        }
        else {
            put_byte(out, LONG1);
            put_byte(out, 8);
            put_little(out, (uint64_t)number, 8);
        }
        return 1;
    }
    if (PyUnicode_CheckExact(value)) {
        if (LIKELY(PyUnicode_IS_COMPACT_ASCII(value))) {
            const char *text = (const char *)PyUnicode_DATA(value);
            return put_sized(
                out, text, PyUnicode_GET_LENGTH(value), SHORT_BINUNICODE, BINUNICODE);
        }
        /* Not PyUnicode_AsUTF8: the text would keep its bytes. */
        PyObject *encoded = PyUnicode_AsUTF8String(value);
        if (encoded == NULL) {
            PyErr_Clear(); /* half a character */
            return 0;
        }
        int done = put_sized(
            out, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), SHORT_BINUNICODE,
            BINUNICODE);
        Py_DECREF(encoded);
        return done;
    }
    if (value == Py_None) {
        put_byte(out, NONE);
        return 1;
    }
    if (PyBool_Check(value)) {
        put_byte(out, value == Py_True ? NEWTRUE : NEWFALSE);
        return 1;
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        put_byte(out, BINFLOAT);
        for (int i = 56; i >= 0; i -= 8) {
            put_byte(out, (unsigned char)(bits >> i));
        }
        return 1;
    }
    if (PyBytes_CheckExact(value)) {
        return put_sized(
            out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), SHORT_BINBYTES, BINBYTES);
    }
    return 0;
}

/* What follows a value that `put_atom` wrote; NULL if there is none at `at`. */
static const unsigned char *
skip_atom(const unsigned char *at, const unsigned char *end)
{
    uint64_t length;
    if (end - at < 1) {
        return NULL;
    }
    switch (*at) {
    case NONE:
    case NEWTRUE:
    case NEWFALSE:
        length = 1;
        break;
    case BININT1:
        length = 2;
        break;
    case BININT2:
        length = 3;
        break;
    case BININT:
        length = 5;
        break;
    case BINFLOAT:
        length = 9;
        break;
    case LONG1:
    case SHORT_BINUNICODE:
    case SHORT_BINBYTES:
        if (end - at < 2) {
            return NULL;
        }
        length = 2 + (uint64_t)at[1];
        break;
    case BINUNICODE:
    case BINBYTES:
        if (end - at < 5) {
            return NULL;
        }
        length = 5 + read_little(at + 1, 4);
        break;
    default:
        return NULL;
    }
    return length <= (uint64_t)(end - at) ? at + length : NULL;
}

/* ---- The table -------------------------------------------------------------------------------- */

/* The entry's state is what a block had of it: it is made an object when it is touched. */
#define STORED 1u
/* Its state at the end of epoch `epoch` is encoded. */
#define ENCODED 2u
/* Eviction has spared it once. */
#define SPARED 4u
/* Above these, of a stored entry: how it is made an object. */
#define FORM_SHIFT 8

typedef struct {
    Py_hash_t hash;
    PyObject *key;   /* exactly a str or bytes; NULL if there is no entry */
    PyObject *state; /* without an entry, the number of the next such one */
    uint32_t epoch;  /* the table's own count of epochs */
    uint32_t flags;
} Entry;

/* Half of the hash above the entry's number + 1; 0 if free. */
typedef uint64_t Slot;

typedef struct {
    uint32_t *numbers;
    size_t count, room;
} Numbers;

typedef struct {
    PyObject_HEAD
    Entry *entries;
    size_t used, room;
    size_t count, stored;
    size_t vacant; /* number + 1 of the first vacant entry */
    Slot *slots;
    size_t mask;
    uint32_t now;
    Numbers touched, frozen;
    size_t cursor; /* of `frozen`, how many are encoded */
    int encoding;
    size_t hand;
    /* Early and other rows of the block that is being made. */
    Buffer keys, rows;
    size_t waiting;
    PyObject *names, *defaults; /* tuples; NULL if objects can't be read here */
    PyObject *type;
    PyObject *proper, *first, *early, *open;
} Table;

static int
numbers_add(Numbers *numbers, uint32_t number)
{
    if (numbers->count == numbers->room) {
        size_t room = numbers->room ? numbers->room * 2 : 64;
        uint32_t *more = PyMem_RawRealloc(numbers->numbers, room * sizeof(uint32_t));
        if (more == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        numbers->numbers = more;
        numbers->room = room;
    }
    numbers->numbers[numbers->count++] = number;
    return 0;
}

static inline int
same_key(PyObject *one, PyObject *other)
{
    if (one == other) {
        return 1;
    }
    if (Py_TYPE(one) != Py_TYPE(other)) {
        return 0;
    }
    if (PyUnicode_CheckExact(one)) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(one);
        int kind = (int)PyUnicode_KIND(one);
        return length == PyUnicode_GET_LENGTH(other) && kind == (int)PyUnicode_KIND(other)
               && memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)(length * kind)) == 0;
    }
    Py_ssize_t length = PyBytes_GET_SIZE(one);
    return length == PyBytes_GET_SIZE(other)
           && memcmp(PyBytes_AS_STRING(one), PyBytes_AS_STRING(other), (size_t)length) == 0;
}

static inline uint32_t
half(Py_hash_t hash)
{
    uint64_t bits = (uint64_t)hash;
    return (uint32_t)(bits ^ (bits >> 32));
}

/* The slot of an entry, or the free one where its search ended. `key` is exactly a str or bytes. */
static inline size_t
find_slot(Table *self, PyObject *key, Py_hash_t hash)
{
    uint32_t mine = half(hash);
    size_t at = mine & self->mask;
    for (;;) {
        Slot slot = self->slots[at];
        if (slot == 0) {
            return at;
        }
        if ((uint32_t)(slot >> 32) == mine) {
            Entry *entry = &self->entries[(uint32_t)slot - 1];
            if (entry->hash == hash && same_key(entry->key, key)) {
                return at;
            }
        }
        at = (at + 1) & self->mask;
    }
}

static inline Entry *
find(Table *self, PyObject *key, Py_hash_t hash)
{
    Slot slot = self->slots[find_slot(self, key, hash)];
    return slot ? &self->entries[(uint32_t)slot - 1] : NULL;
}

static void
place_slot(Slot *slots, size_t mask, Slot slot)
{
    size_t at = (size_t)(slot >> 32) & mask;
    while (slots[at]) {
        at = (at + 1) & mask;
    }
    slots[at] = slot;
}

/* Keep a third of the slots free. Entries are not looked at. */
static int
more_slots(Table *self)
{
    size_t count = 2 * (self->mask + 1);
    Slot *slots = PyMem_RawCalloc(count, sizeof(Slot));
    if (slots == NULL || count > (size_t)UINT32_MAX) {
        PyMem_RawFree(slots);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i <= self->mask; i++) {
        if (self->slots[i]) {
            place_slot(slots, count - 1, self->slots[i]);
        }
    }
    PyMem_RawFree(self->slots);
    self->slots = slots;
    self->mask = count - 1;
    return 0;
}

static void
all_slots_anew(Table *self)
{
    memset(self->slots, 0, (self->mask + 1) * sizeof(Slot));
    for (size_t i = 0; i < self->used; i++) {
        Entry *entry = &self->entries[i];
        if (entry->key) {
            place_slot(self->slots, self->mask, (Slot)half(entry->hash) << 32 | (i + 1));
        }
    }
}

/* Take an entry's slot away; what follows moves up, so that there are no traces of it. */
static void
free_slot(Table *self, size_t at)
{
    size_t free = at;
    for (;;) {
        at = (at + 1) & self->mask;
        Slot slot = self->slots[at];
        if (slot == 0) {
            break;
        }
        size_t wanted = (size_t)(slot >> 32) & self->mask;
        if (((at - wanted) & self->mask) >= ((at - free) & self->mask)) {
            self->slots[free] = slot;
            free = at;
        }
    }
    self->slots[free] = 0;
}

/* A new entry of a key that has none; takes references of its own. */
static Entry *
insert(Table *self, PyObject *key, Py_hash_t hash, PyObject *state, uint32_t epoch, uint32_t flags)
{
    if (3 * (self->count + 1) > 2 * (self->mask + 1) && more_slots(self) < 0) {
        return NULL;
    }
    size_t number;
    if (self->vacant) {
        number = self->vacant - 1;
        self->vacant = (size_t)(uintptr_t)self->entries[number].state;
    }
    else {
        if (self->used == self->room) {
            size_t room = self->room + (self->room >> 1) + 16;
            Entry *entries = PyMem_RawRealloc(self->entries, room * sizeof(Entry));
            if (entries == NULL) {
                PyErr_NoMemory();
                return NULL;
            }
            self->entries = entries;
            self->room = room;
        }
        number = self->used++;
    }
    Entry *entry = &self->entries[number];
    Py_INCREF(key);
    Py_INCREF(state);
    entry->hash = hash;
    entry->key = key;
    entry->state = state;
    entry->epoch = epoch;
    entry->flags = flags;
    place_slot(self->slots, self->mask, (Slot)half(hash) << 32 | (number + 1));
    self->count++;
    self->stored += (flags & STORED) != 0;
    return entry;
}

/* Make an entry vacant; its slot is not touched, and who calls gets its references. */
static void
vacate(Table *self, Entry *entry, PyObject **key, PyObject **state)
{
    *key = entry->key;
    *state = entry->state;
    self->stored -= entry->flags & STORED;
    entry->key = NULL;
    entry->state = (PyObject *)(uintptr_t)self->vacant;
    entry->flags = 0;
    entry->epoch = 0;
    self->vacant = (size_t)(entry - self->entries) + 1;
    self->count--;
}

/* ---- Encoding ----------------------------------------------------------------------------------- */

typedef struct {
    Py_ssize_t count;
    PyObject *first;
} Held;

static int
visit(PyObject *object, void *argument)
{
    Held *held = argument;
    if (held->count++ == 0) {
        held->first = object;
    }
    FETCH(object);
    return 0;
}

/* Whether `state` looks as if it had as many attributes as `names`, in itself (see layout.py). */
static inline int
looks_alike(Table *self, PyObject *state)
{
    if ((PyObject *)Py_TYPE(state) != self->type) {
        return 0;
    }
    traverseproc traverse = Py_TYPE(state)->tp_traverse;
    if (traverse == NULL) {
        return 0;
    }
    Held held = {0, NULL};
    traverse(state, visit, &held);
    Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    /* The values and the class; or the __dict__ and the class. */
    return held.count == count + 1 && !(count == 1 && PyDict_Check(held.first));
}

/* Put an entry behind the waiting rows. 1; 0 if it is not simple; -1 with an exception.
 *
 * Reading an attribute might run code, so nothing of the table may be held by address here. */
static int
put_entry(Table *self, PyObject *key, PyObject *state)
{
    size_t keys = self->keys.used, rows = self->rows.used;
    Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    PyObject *names = self->names, *defaults = self->defaults;
    if (!put_atom(&self->keys, key)) {
        goto odd;
    }
    if (count > 3) {
        if (buffer_room(&self->rows, 1) < 0) {
            goto odd;
        }
        put_byte(&self->rows, MARK);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyObject_GetAttr(state, PyTuple_GET_ITEM(names, i));
        if (value == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
                return -1;
            }
            PyErr_Clear();
            goto odd;
        }
        /* A value that is the class's own does not show that the object has one. */
        int simple = value != PyTuple_GET_ITEM(defaults, i) && put_atom(&self->rows, value);
        Py_DECREF(value);
        if (!simple) {
            goto odd;
        }
    }
    if (count > 1) {
        if (buffer_room(&self->rows, 1) < 0) {
            goto odd;
        }
        put_byte(&self->rows, count > 3 ? TUPLE : count == 3 ? TUPLE3 : TUPLE2);
    }
    self->waiting++;
    return 1;
odd:
    self->keys.used = keys;
    self->rows.used = rows;
    return 0;
}

/* The waiting rows as the pickle of (keys, rows, names, {}). */
static PyObject *
take_block(Table *self)
{
    Buffer tail = {0};
    Py_ssize_t count = PyTuple_GET_SIZE(self->names);
    if (buffer_room(&tail, 8) < 0) {
        return PyErr_NoMemory();
    }
    put_byte(&tail, APPENDS);
    put_byte(&tail, MARK);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!put_atom(&tail, PyTuple_GET_ITEM(self->names, i))) {
            buffer_free(&tail);
            return PyErr_NoMemory();
        }
    }
    if (buffer_room(&tail, 4) < 0) {
        buffer_free(&tail);
        return PyErr_NoMemory();
    }
    put_byte(&tail, TUPLE);
    put_byte(&tail, EMPTY_DICT);
    put_byte(&tail, TUPLE);
    put_byte(&tail, STOP);
    size_t length = 3 + self->keys.used + 3 + self->rows.used + tail.used;
    PyObject *block = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(PICKLE_HEAD + length));
    if (block == NULL) {
        buffer_free(&tail);
        return NULL;
    }
    char *at = PyBytes_AS_STRING(block);
    put_head((unsigned char *)at, length);
    at += PICKLE_HEAD;
    *at++ = MARK;
    *at++ = EMPTY_LIST;
    *at++ = MARK;
    memcpy(at, self->keys.data, self->keys.used);
    at += self->keys.used;
    *at++ = (char)APPENDS;
    *at++ = EMPTY_LIST;
    *at++ = MARK;
    memcpy(at, self->rows.data, self->rows.used);
    at += self->rows.used;
    memcpy(at, tail.data, tail.used);
    buffer_free(&tail);
    self->keys.used = self->rows.used = 0;
    self->waiting = 0;
    return block;
}

PyDoc_STRVAR(encode_doc,
"encode(limit) -> (payload, count, keys, states) or None\n\n"
"Encode up to `limit` of what is left of the frozen epoch; None if nothing is. The payload is a\n"
"block of `count` entries, or None. `keys` and `states` are of those that are not simple.");

#define AHEAD 32

static PyObject *
table_encode(Table *self, PyObject *argument)
{
    size_t limit = PyLong_AsSize_t(argument);
    if (limit == (size_t)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (self->cursor >= self->frozen.count && !self->waiting) {
        self->encoding = 0;
        Py_RETURN_NONE;
    }
    PyObject *keys = PyList_New(0), *states = PyList_New(0), *block = NULL;
    if (keys == NULL || states == NULL) {
        goto failed;
    }
    uint32_t epoch = self->now - 1;
    size_t taken = self->waiting;
    while (self->cursor < self->frozen.count && taken < limit) {
        uint32_t *numbers = self->frozen.numbers + self->cursor;
        char alike[AHEAD];
        size_t group = self->frozen.count - self->cursor;
        group = group > AHEAD ? AHEAD : group;
        /* One cache line that is missed after the other would be most of the time. */
        for (size_t i = 0; i < group; i++) {
            FETCH(&self->entries[numbers[i]]);
        }
        for (size_t i = 0; i < group; i++) {
            Entry *entry = &self->entries[numbers[i]];
            if (entry->epoch == epoch) {
                FETCH(entry->key);
                FETCH(entry->state);
                FETCH((char *)entry->state - 32);
            }
        }
        for (size_t i = 0; i < group; i++) {
            Entry *entry = &self->entries[numbers[i]];
            alike[i] = self->names && entry->epoch == epoch && looks_alike(self, entry->state);
        }
        for (size_t i = 0; i < group && self->cursor < self->frozen.count; i++) {
            Entry *entry = &self->entries[self->frozen.numbers[self->cursor++]];
            if (entry->epoch != epoch || entry->flags & ENCODED) {
                continue; /* it was encoded when it was touched again */
            }
            PyObject *key = entry->key, *state = entry->state;
            entry->flags |= ENCODED;
            taken++;
            Py_INCREF(key);
            Py_INCREF(state);
            int done = alike[i] ? put_entry(self, key, state) : 0;
            if (done == 0) {
                done = PyList_Append(keys, key) < 0 || PyList_Append(states, state) < 0 ? -1 : 0;
            }
            Py_DECREF(key);
            Py_DECREF(state);
            if (done < 0) {
                goto failed;
            }
        }
    }
    size_t count = self->waiting;
    if (count) {
        block = take_block(self);
        if (block == NULL) {
            goto failed;
        }
    }
    else {
        block = Py_None;
        Py_INCREF(block);
    }
    return Py_BuildValue("NnNN", block, (Py_ssize_t)count, keys, states);
failed:
    Py_XDECREF(keys);
    Py_XDECREF(states);
    return NULL;
}

PyDoc_STRVAR(lay_doc,
"lay(type, names, defaults)\n\n"
"Read objects of `type` by these names from now on; `defaults` are what the class itself has under\n"
"them. No names: read none.");

static PyObject *
table_lay(Table *self, PyObject *arguments)
{
    PyObject *type, *names, *defaults;
    if (!PyArg_ParseTuple(
            arguments, "OO!O!:lay", &type, &PyTuple_Type, &names, &PyTuple_Type, &defaults)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    if (PyTuple_GET_SIZE(defaults) != count) {
        PyErr_SetString(PyExc_ValueError, "as many defaults as names");
        return NULL;
    }
    Buffer check = {0};
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_CheckExact(name) || !put_atom(&check, name)) {
            buffer_free(&check);
            PyErr_SetString(PyExc_ValueError, "a name is a str");
            return NULL;
        }
    }
    buffer_free(&check);
    if (self->waiting && names != self->names) {
        PyErr_SetString(PyExc_RuntimeError, "other names while rows wait");
        return NULL;
    }
    PyObject *before[3] = {self->type, self->names, self->defaults};
    Py_INCREF(type);
    self->type = type;
    self->names = count ? names : NULL;
    self->defaults = count ? defaults : NULL;
    Py_XINCREF(self->names);
    Py_XINCREF(self->defaults);
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(before[i]);
    }
    Py_RETURN_NONE;
}

/* ---- Touching ----------------------------------------------------------------------------------- */

static PyObject *
touched_now(Table *self, Entry *entry)
{
    if (numbers_add(&self->touched, (uint32_t)(entry - self->entries)) < 0) {
        return NULL;
    }
    entry->epoch = self->now;
    entry->flags &= ~(ENCODED | SPARED);
    Py_INCREF(entry->state);
    return entry->state;
}

/* A look-up that is not the usual one. It runs Python code, which may do anything to the table: what
 * was found is looked for again afterwards. */
static PyObject *
touch_slowly(Table *self, PyObject *key, Py_hash_t hash)
{
    for (;;) {
        Entry *entry = find(self, key, hash);
        if (entry == NULL) {
            PyObject *state = PyObject_CallFunctionObjArgs(self->first, key, NULL);
            if (state == NULL) {
                return NULL;
            }
            if (find(self, key, hash) != NULL) { /* made meanwhile: there is one of a key */
                Py_DECREF(state);
                continue;
            }
            entry = insert(self, key, hash, state, 0, 0);
            Py_DECREF(state);
            return entry ? touched_now(self, entry) : NULL;
        }
        if (entry->epoch == self->now) {
            Py_INCREF(entry->state);
            return entry->state;
        }
        if (entry->flags & STORED) {
            PyObject *value = entry->state;
            Py_INCREF(value);
            PyObject *state = PyObject_CallFunction(
                self->open, "OIO", key, (unsigned int)(entry->flags >> FORM_SHIFT), value);
            if (state == NULL) {
                Py_DECREF(value);
                return NULL;
            }
            entry = find(self, key, hash);
            if (entry == NULL || !(entry->flags & STORED) || entry->state != value) {
                Py_DECREF(state);
                Py_DECREF(value);
                continue;
            }
            entry->state = state;
            entry->flags = 0;
            self->stored--;
            PyObject *found = touched_now(self, entry);
            Py_DECREF(value); /* the entry's */
            Py_DECREF(value);
            return found;
        }
        if (!self->encoding || entry->epoch != self->now - 1 || entry->flags & ENCODED) {
            return touched_now(self, entry);
        }
        /* Of the frozen epoch, and not encoded: it is now, for it is about to change. */
        PyObject *state = entry->state, *kept = entry->key;
        uint32_t now = self->now;
        Py_INCREF(state);
        Py_INCREF(kept);
        int done = self->names && looks_alike(self, state) ? put_entry(self, kept, state) : 0;
        if (done == 0) {
            PyObject *none = PyObject_CallFunctionObjArgs(self->early, kept, state, NULL);
            done = none ? 1 : -1;
            Py_XDECREF(none);
        }
        Py_DECREF(kept);
        if (done > 0) {
            entry = find(self, key, hash);
            if (entry == NULL || entry->state != state || self->now != now) {
                PyErr_SetString(
                    PyExc_RuntimeError, "an entry was replaced while it was being encoded");
                done = -1;
            }
            else if (entry->epoch != now) {
                entry->flags |= ENCODED;
            }
        }
        Py_DECREF(state);
        if (done < 0) {
            return NULL;
        }
    }
}

static inline int
is_exact(PyObject *key)
{
    return PyUnicode_CheckExact(key) || PyBytes_CheckExact(key);
}

static PyObject *
table_subscript(Table *self, PyObject *key)
{
    if (LIKELY(is_exact(key))) {
        Py_hash_t hash = PyObject_Hash(key);
        if (hash == -1) {
            return NULL;
        }
        Entry *entry = find(self, key, hash);
        if (LIKELY(entry != NULL)) {
            if (entry->epoch == self->now) {
                Py_INCREF(entry->state);
                return entry->state;
            }
            /* Known for long and not about to be encoded. */
            if (!(entry->flags & STORED) && !(self->encoding && entry->epoch == self->now - 1)) {
                return touched_now(self, entry);
            }
        }
        return touch_slowly(self, key, hash);
    }
    PyObject *proper = PyObject_CallFunctionObjArgs(self->proper, key, NULL);
    if (proper == NULL) {
        return NULL;
    }
    PyObject *found = NULL;
    if (!is_exact(proper)) {
        PyErr_SetString(PyExc_TypeError, "a proper key is exactly a str or bytes");
    }
    else {
        Py_hash_t hash = PyObject_Hash(proper);
        found = hash == -1 ? NULL : touch_slowly(self, proper, hash);
    }
    Py_DECREF(proper);
    return found;
}

/* The entry of a key if it was touched in this epoch. */
static Entry *
find_touched(Table *self, PyObject *key)
{
    if (!is_exact(key)) {
        return NULL;
    }
    Py_hash_t hash = PyObject_Hash(key);
    if (hash == -1) {
        PyErr_Clear();
        return NULL;
    }
    Entry *entry = find(self, key, hash);
    return entry && entry->epoch == self->now ? entry : NULL;
}

static int
table_contains(Table *self, PyObject *key)
{
    return find_touched(self, key) != NULL;
}

static PyObject *
table_get(Table *self, PyObject *arguments)
{
    PyObject *key, *otherwise = Py_None;
    if (!PyArg_ParseTuple(arguments, "O|O:get", &key, &otherwise)) {
        return NULL;
    }
    Entry *entry = find_touched(self, key);
    PyObject *found = entry ? entry->state : otherwise;
    Py_INCREF(found);
    return found;
}

static Py_ssize_t
table_length(Table *self)
{
    return (Py_ssize_t)self->touched.count;
}

static PyObject *
table_iter(Table *self)
{
    PyObject *keys = PyList_New(0);
    if (keys == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < self->touched.count; i++) {
        PyObject *key = self->entries[self->touched.numbers[i]].key;
        if (key && PyList_Append(keys, key) < 0) {
            Py_DECREF(keys);
            return NULL;
        }
    }
    PyObject *iterator = PyObject_GetIter(keys);
    Py_DECREF(keys);
    return iterator;
}

static PyObject *
table_last(Table *self, PyObject *Py_UNUSED(ignored))
{
    for (size_t i = self->touched.count; i > 0; i--) {
        Entry *entry = &self->entries[self->touched.numbers[i - 1]];
        if (entry->key && entry->epoch == self->now) {
            Py_INCREF(entry->state);
            return entry->state;
        }
    }
    Py_RETURN_NONE;
}

/* ---- Epochs --------------------------------------------------------------------------------------- */

PyDoc_STRVAR(freeze_doc,
"freeze() -> int\n\nThe epoch ends: what it touched is to be encoded. Its number.");

static PyObject *
table_freeze(Table *self, PyObject *Py_UNUSED(ignored))
{
    if (self->encoding) {
        PyErr_SetString(PyExc_RuntimeError, "the last epoch is not encoded yet");
        return NULL;
    }
    Numbers spare = self->frozen;
    spare.count = 0;
    self->frozen = self->touched;
    self->touched = spare;
    self->cursor = 0;
    self->encoding = 1;
    return PyLong_FromUnsignedLong(self->now++);
}

PyDoc_STRVAR(drop_doc,
"drop(epoch)\n\nForget all entries touched in that epoch or later, and begin a new one.");

static PyObject *
table_drop(Table *self, PyObject *argument)
{
    unsigned long epoch = PyLong_AsUnsignedLong(argument);
    if (epoch == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    size_t count = 0;
    for (size_t i = 0; i < self->used; i++) {
        Entry *entry = &self->entries[i];
        count += entry->key && !(entry->flags & STORED) && entry->epoch >= epoch;
    }
    PyObject **gone = PyMem_RawMalloc((2 * count + 1) * sizeof(PyObject *));
    if (gone == NULL) {
        return PyErr_NoMemory();
    }
    size_t at = 0;
    for (size_t i = 0; i < self->used; i++) {
        Entry *entry = &self->entries[i];
        if (entry->key && !(entry->flags & STORED) && entry->epoch >= epoch) {
            vacate(self, entry, &gone[at], &gone[at + 1]);
            at += 2;
        }
    }
    all_slots_anew(self);
    self->touched.count = self->frozen.count = self->cursor = 0;
    self->keys.used = self->rows.used = self->waiting = 0;
    self->encoding = 0;
    self->now++;
    /* Only now: this may run code. */
    for (size_t i = 0; i < at; i++) {
        Py_DECREF(gone[i]);
    }
    PyMem_RawFree(gone);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(restore_doc,
"restore(form, keys, values)\n\nTake entries of keys that have none, to be made objects by `open`.");

static PyObject *
table_restore(Table *self, PyObject *arguments)
{
    unsigned int form;
    PyObject *keys, *values;
    if (!PyArg_ParseTuple(
            arguments, "IO!O!:restore", &form, &PyList_Type, &keys, &PyList_Type, &values)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys) && i < PyList_GET_SIZE(values); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        if (i + 8 < PyList_GET_SIZE(keys) && is_exact(PyList_GET_ITEM(keys, i + 8))) {
            FETCH(&self->slots[half(PyObject_Hash(PyList_GET_ITEM(keys, i + 8))) & self->mask]);
        }
        if (!is_exact(key)) {
            PyErr_SetString(PyExc_TypeError, "a key is a str or bytes");
            return NULL;
        }
        Py_hash_t hash = PyObject_Hash(key);
        if (hash == -1) {
            return NULL;
        }
        if (find(self, key, hash) == NULL
            && insert(
                   self, key, hash, PyList_GET_ITEM(values, i), 0, STORED | form << FORM_SHIFT)
                   == NULL) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(evict_doc,
"evict(limit, unsynced, recent) -> (kept, dropped)\n\n"
"Look at up to `limit` entries in turn, and drop those last touched before the epoch `unsynced`;\n"
"one touched in `recent` or later is spared once. How many the last of them in a row were kept for\n"
"being unsynced, and how many were dropped.");

static PyObject *
table_evict(Table *self, PyObject *arguments)
{
    Py_ssize_t limit;
    unsigned int unsynced, recent;
    if (!PyArg_ParseTuple(arguments, "nII:evict", &limit, &unsynced, &recent)) {
        return NULL;
    }
    /* What is still to be encoded has to stay, whatever is said. */
    uint32_t least = self->now - (self->encoding != 0);
    unsynced = unsynced < least ? unsynced : least;
    PyObject *gone = PyList_New(0);
    if (gone == NULL) {
        return NULL;
    }
    Py_ssize_t kept = 0, dropped = 0;
    for (size_t looks = 0; limit > 0 && looks < self->used; looks++) {
        size_t number = self->hand < self->used ? self->hand : 0;
        self->hand = number + 1;
        Entry *entry = &self->entries[number];
        if (entry->key == NULL) {
            continue;
        }
        limit--;
        if (entry->epoch >= unsynced) {
            kept++;
            continue;
        }
        kept = 0;
        if (entry->epoch >= recent && !(entry->flags & SPARED)) {
            entry->flags |= SPARED;
            continue;
        }
        if (PyList_Append(gone, entry->state) < 0) {
            Py_DECREF(gone);
            return NULL;
        }
        PyObject *key, *state;
        free_slot(self, find_slot(self, entry->key, entry->hash));
        vacate(self, entry, &key, &state);
        Py_DECREF(key);
        Py_DECREF(state); /* `gone` has one: no code runs here */
        dropped++;
    }
    Py_DECREF(gone);
    return Py_BuildValue("nn", kept, dropped);
}

PyDoc_STRVAR(keys_doc,
"keys(start, limit) -> (keys, next)\n\n"
"The keys of up to `limit` entries, from the place `start` on; next is -1 at the end. An entry that\n"
"is there all the while is met once.");

static PyObject *
table_keys(Table *self, PyObject *arguments)
{
    Py_ssize_t start, limit;
    if (!PyArg_ParseTuple(arguments, "nn:keys", &start, &limit)) {
        return NULL;
    }
    PyObject *found = PyList_New(0);
    if (found == NULL) {
        return NULL;
    }
    size_t at = start < 0 ? self->used : (size_t)start;
    for (; at < self->used && PyList_GET_SIZE(found) < limit; at++) {
        if (self->entries[at].key && PyList_Append(found, self->entries[at].key) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return Py_BuildValue("Nn", found, at < self->used ? (Py_ssize_t)at : (Py_ssize_t)-1);
}

PyDoc_STRVAR(forget_doc,
"forget(keys) -> int\n\n"
"Drop entries, but for those touched in this epoch or still to be encoded; how many.");

static PyObject *
table_forget(Table *self, PyObject *keys)
{
    if (!PyList_CheckExact(keys)) {
        PyErr_SetString(PyExc_TypeError, "the keys are a list");
        return NULL;
    }
    uint32_t least = self->now - (self->encoding != 0);
    PyObject *gone = PyList_New(0);
    if (gone == NULL) {
        return NULL;
    }
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        Py_hash_t hash = is_exact(key) ? PyObject_Hash(key) : -1;
        if (hash == -1) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "a key is a str or bytes");
            }
            Py_DECREF(gone);
            return NULL;
        }
        size_t at = find_slot(self, key, hash);
        if (self->slots[at] == 0) {
            continue;
        }
        Entry *entry = &self->entries[(uint32_t)self->slots[at] - 1];
        if (!(entry->flags & STORED) && entry->epoch >= least) {
            continue;
        }
        if (PyList_Append(gone, entry->state) < 0) {
            Py_DECREF(gone);
            return NULL;
        }
        PyObject *mine, *state;
        free_slot(self, at);
        vacate(self, entry, &mine, &state);
        Py_DECREF(mine);
        Py_DECREF(state); /* `gone` has one: no code runs here */
        count++;
    }
    Py_DECREF(gone);
    return PyLong_FromSsize_t(count);
}

PyDoc_STRVAR(items_doc,
"items() -> list of (key, state, form)\n\n"
"All entries; the form is None, or that by which a stored one is to be made an object.");

static PyObject *
table_items(Table *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *found = PyList_New(0);
    if (found == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < self->used; i++) {
        Entry *entry = &self->entries[i];
        if (entry->key == NULL) {
            continue;
        }
        PyObject *item
            = entry->flags & STORED
                  ? Py_BuildValue(
                      "OOI", entry->key, entry->state, (unsigned int)(entry->flags >> FORM_SHIFT))
                  : Py_BuildValue("OOO", entry->key, entry->state, Py_None);
        if (item == NULL || PyList_Append(found, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(found);
            return NULL;
        }
        Py_DECREF(item);
    }
    return found;
}

/* ---- The type ------------------------------------------------------------------------------------- */

static int
table_traverse(Table *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->names);
    Py_VISIT(self->defaults);
    Py_VISIT(self->type);
    Py_VISIT(self->proper);
    Py_VISIT(self->first);
    Py_VISIT(self->early);
    Py_VISIT(self->open);
    for (size_t i = 0; i < self->used; i++) {
        if (self->entries[i].key) { /* a str or bytes, which refers to nothing */
            Py_VISIT(self->entries[i].state);
        }
    }
    return 0;
}

static int
table_clear(Table *self)
{
    Py_CLEAR(self->names);
    Py_CLEAR(self->defaults);
    Py_CLEAR(self->type);
    /* What may be called goes last: whoever touches an empty table meanwhile calls it. */
    Entry *entries = self->entries;
    size_t used = self->used;
    self->entries = NULL;
    self->used = self->room = self->count = self->stored = self->vacant = self->hand = 0;
    self->touched.count = self->frozen.count = self->cursor = 0;
    self->keys.used = self->rows.used = self->waiting = 0;
    self->encoding = 0;
    if (self->slots) {
        memset(self->slots, 0, (self->mask + 1) * sizeof(Slot));
    }
    for (size_t i = 0; i < used; i++) {
        if (entries[i].key) {
            Py_DECREF(entries[i].key);
            Py_DECREF(entries[i].state);
        }
    }
    PyMem_RawFree(entries);
    return 0;
}

static int
table_clear_all(Table *self)
{
    table_clear(self);
    return 0;
}

static void
table_dealloc(Table *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    table_clear(self);
    Py_CLEAR(self->proper);
    Py_CLEAR(self->first);
    Py_CLEAR(self->early);
    Py_CLEAR(self->open);
    PyMem_RawFree(self->slots);
    PyMem_RawFree(self->touched.numbers);
    PyMem_RawFree(self->frozen.numbers);
    buffer_free(&self->keys);
    buffer_free(&self->rows);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
table_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named))
{
    PyObject *proper, *first, *early, *open;
    if (!PyArg_ParseTuple(arguments, "OOOO:Table", &proper, &first, &early, &open)) {
        return NULL;
    }
    Slot *slots = PyMem_RawCalloc(64, sizeof(Slot));
    if (slots == NULL) {
        return PyErr_NoMemory();
    }
    Table *self = (Table *)type->tp_alloc(type, 0);
    if (self == NULL) {
        PyMem_RawFree(slots);
        return NULL;
    }
    self->slots = slots;
    self->mask = 63;
    self->now = 1; /* 0: touched in none */
    Py_INCREF(proper);
    Py_INCREF(first);
    Py_INCREF(early);
    Py_INCREF(open);
    self->proper = proper;
    self->first = first;
    self->early = early;
    self->open = open;
    return (PyObject *)self;
}

static PyObject *
get_count(Table *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->count);
}

static PyObject *
get_stored(Table *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->stored);
}

static PyObject *
get_now(Table *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->now);
}

static PyGetSetDef table_getset[] = {
    {"count", (getter)get_count, NULL, "How many entries there are.", NULL},
    {"stored", (getter)get_stored, NULL, "How many of them are no objects yet.", NULL},
    {"now", (getter)get_now, NULL, "The number of this epoch, of the table's own.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef table_methods[] = {
    {"drop", (PyCFunction)table_drop, METH_O, drop_doc},
    {"encode", (PyCFunction)table_encode, METH_O, encode_doc},
    {"evict", (PyCFunction)table_evict, METH_VARARGS, evict_doc},
    {"forget", (PyCFunction)table_forget, METH_O, forget_doc},
    {"freeze", (PyCFunction)table_freeze, METH_NOARGS, freeze_doc},
    {"get", (PyCFunction)table_get, METH_VARARGS, "The state of a key touched in this epoch."},
    {"items", (PyCFunction)table_items, METH_NOARGS, items_doc},
    {"keys", (PyCFunction)table_keys, METH_VARARGS, keys_doc},
    {"last", (PyCFunction)table_last, METH_NOARGS,
     "The state whose first touch in this epoch was the last; None if there is none."},
    {"lay", (PyCFunction)table_lay, METH_VARARGS, lay_doc},
    {"restore", (PyCFunction)table_restore, METH_VARARGS, restore_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(table_doc,
"Table(proper, first, early, open)\n\n"
"The entries at a place; `table[key]` touches one. As a container it has those touched in this\n"
"epoch. proper(key): a key that is not exactly a str or bytes as one that is. first(key): the state\n"
"of a key that has no entry. early(key, state): encode an entry that is not simple, now.\n"
"open(key, form, value): the state object of a stored entry.");

static PyType_Slot table_slots[] = {
    {Py_tp_doc, (void *)table_doc},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_traverse, table_traverse},
    {Py_tp_clear, table_clear_all},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_getset},
    {Py_tp_iter, table_iter},
    {Py_mp_subscript, table_subscript},
    {Py_mp_length, table_length},
    {Py_sq_contains, table_contains},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "wallaroo.state._native.Table",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = table_slots,
};

#include "_merge.h"

/* ---- The module ------------------------------------------------------------------------------------ */

static int
module_exec(PyObject *module)
{
    PyType_Spec *specs[] = {&table_spec, &merge_spec};
    for (size_t i = 0; i < 2; i++) {
        PyObject *type = PyType_FromSpec(specs[i]);
        if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0) {
            Py_XDECREF(type);
            return -1;
        }
        Py_DECREF(type);
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "wallaroo.state._native",
    .m_doc = "State tables in C.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&module_def);
}
