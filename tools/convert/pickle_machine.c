/* opcodes -> values on a stack -> one dict.
 *
 * No opcode makes, pushes or remembers more than one value, so that an array with one element for
 * every byte of the pickle never overflows, and nothing here recurses. */
#include "pickle_machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "source_tensor.h"
#include "status.h"

enum { PROTOCOL = 2, FROM_MARK = -1 };

static const char *const kind_names[] = {
    [NONE] = "None",         [BOOL] = "a bool",
    [INT] = "an int",        [FLOAT] = "a float",
    [STRING] = "a str",      [TUPLE] = "a tuple",
    [LIST] = "a list",       [DICT] = "a dict",
    [SET] = "a set",         [CALLABLE] = "a class or function",
    [STORAGE] = "a storage", [TENSOR] = "a tensor"};

__attribute__((format(printf, 2, 3))) static mvlm_status refuse(const struct machine *m,
                                                                const char *format, ...)
{
    char message[sizeof m->error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return source_file_fail(m->file, m->error, "data.pkl, byte %zu: %s", m->opcode_at, message);
}
#ifdef __clang_analyzer__ /* as in status.h */
#define refuse(...) (refuse(__VA_ARGS__), MVLM_BAD_MODEL)
#endif

/* ---- Bytes, stack, values --------------------------------------------------------------- */

static mvlm_status take_bytes(struct machine *m, size_t n, const uint8_t **bytes)
{
    if (n > m->n_bytes - m->at)
        return refuse(m, "ends within an opcode");
    *bytes = m->bytes + m->at;
    m->at += n;
    return MVLM_OK;
}

/* A little-endian number of 1, 2 or 4 bytes. */
static mvlm_status take_number(struct machine *m, int width, uint32_t *number)
{
    const uint8_t *bytes = NULL;
    TRY(take_bytes(m, (size_t)width, &bytes));
    *number = width == 1 ? bytes[0] : width == 2 ? load_u16(bytes) : load_u32(bytes);
    return MVLM_OK;
}

static mvlm_status push(struct machine *m, struct value value)
{
    m->values[m->n_values] = value;
    m->stack[m->n_stack++] = m->n_values++;
    return MVLM_OK;
}

/* Takes n values, or all above the last mark, which goes too; they stay readable at *taken until
 * the next push. */
static mvlm_status pop(struct machine *m, int n, const uint32_t **taken, uint32_t *n_taken)
{
    if (n == FROM_MARK && m->n_marks == 0)
        return refuse(m, "no mark on the stack");
    const uint32_t floor = m->n_marks ? m->marks[m->n_marks - 1] : 0;
    const uint32_t count = n == FROM_MARK ? m->n_stack - floor : (uint32_t)n;
    if (m->n_stack - floor < count)
        return refuse(m, "stack too short");
    m->n_marks -= n == FROM_MARK;
    m->n_stack -= count;
    *taken = m->stack + m->n_stack;
    *n_taken = count;
    return MVLM_OK;
}

/* The value on top, which stays there and must be of that kind. */
static mvlm_status top(struct machine *m, enum kind kind, struct value **value)
{
    const uint32_t floor = m->n_marks ? m->marks[m->n_marks - 1] : 0;
    if (m->n_stack == floor)
        return refuse(m, "stack too short");
    *value = &m->values[m->stack[m->n_stack - 1]];
    if ((*value)->kind != kind)
        return refuse(m, "%s where %s is expected", kind_name((*value)->kind), kind_name(kind));
    return MVLM_OK;
}

const struct value *machine_item(const struct machine *m, const struct value *tuple, uint32_t i)
{
    return &m->values[m->items[tuple->first + i]];
}

static bool is_text(const struct value *value, const char *text)
{
    return value->kind == STRING && value->n == strlen(text) &&
           memcmp(value->text, text, value->n) == 0;
}

/* ---- Opcodes; `how` is the table's number ----------------------------------------------- */

static mvlm_status op_proto(struct machine *m, int how)
{
    uint32_t protocol;
    TRY(take_number(m, how, &protocol));
    return protocol == PROTOCOL ? MVLM_OK
                                : refuse(m, "pickle protocol %u, expected %d", protocol, PROTOCOL);
}

static mvlm_status op_mark(struct machine *m, int how)
{
    (void)how;
    m->marks[m->n_marks++] = m->n_stack;
    return MVLM_OK;
}

static mvlm_status op_empty(struct machine *m, int how)
{
    return push(m, (struct value){.kind = (enum kind)how});
}

static mvlm_status op_bool(struct machine *m, int how)
{
    return push(m, (struct value){.kind = BOOL, .integer = how});
}

static mvlm_status op_int(struct machine *m, int how)
{
    uint32_t number;
    TRY(take_number(m, how, &number));
    /* Only the widest one is signed. */
    return push(
        m, (struct value){.kind = INT, .integer = how == 4 ? (int64_t)(int32_t)number : number});
}

static mvlm_status op_long(struct machine *m, int how)
{
    uint32_t n = 0;
    const uint8_t *bytes = NULL;
    TRY(take_number(m, how, &n));
    if (n > 8)
        return refuse(m, "integer of %u bytes, at most 8", n);
    TRY(take_bytes(m, n, &bytes));
    uint64_t number = 0;
    for (uint32_t i = 0; i < n; i++)
        number |= (uint64_t)bytes[i] << 8 * i;
    if (n && bytes[n - 1] & 0x80) /* negative */
        number |= ~(UINT64_MAX >> (64 - 8 * n));
    return push(m, (struct value){.kind = INT, .integer = (int64_t)number});
}

static mvlm_status op_float(struct machine *m, int how)
{
    const uint8_t *bytes = NULL;
    TRY(take_bytes(m, (size_t)how, &bytes));
    return push(m, (struct value){.kind = FLOAT}); /* no float means anything here */
}

static mvlm_status op_text(struct machine *m, int how)
{
    uint32_t n = 0;
    const uint8_t *bytes = NULL;
    TRY(take_number(m, how, &n));
    TRY(take_bytes(m, n, &bytes));
    return push(m, (struct value){.kind = STRING, .n = n, .text = (const char *)bytes});
}

static mvlm_status op_get(struct machine *m, int how)
{
    uint32_t index;
    TRY(take_number(m, how, &index));
    if (index >= m->n_memo)
        return refuse(m, "memo %u wanted, has %u", index, m->n_memo);
    m->stack[m->n_stack++] = m->memo[index];
    return MVLM_OK;
}

static mvlm_status op_put(struct machine *m, int how)
{
    uint32_t index;
    TRY(take_number(m, how, &index));
    if (m->n_stack == (m->n_marks ? m->marks[m->n_marks - 1] : 0))
        return refuse(m, "stack too short");
    if (index > m->n_memo)
        return refuse(m, "memo %u follows %u", index, m->n_memo);
    m->memo[index] = m->stack[m->n_stack - 1];
    m->n_memo += index == m->n_memo;
    return MVLM_OK;
}

static mvlm_status op_tuple(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    TRY(pop(m, how, &taken, &n));
    const struct value tuple = {.kind = TUPLE, .n = n, .first = m->n_items};
    memcpy(m->items + m->n_items, taken, n * sizeof *taken);
    m->n_items += n;
    return push(m, tuple);
}

/* What a list holds means nothing here. */
static mvlm_status op_append(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    struct value *list = NULL;
    TRY(pop(m, how, &taken, &n));
    return top(m, LIST, &list);
}

static mvlm_status op_set_items(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    struct value *dict = NULL;
    TRY(pop(m, how, &taken, &n));
    TRY(top(m, DICT, &dict));
    if (n % 2)
        return refuse(m, "key without a value");
    for (uint32_t i = 0; i < n; i += 2) {
        m->pairs[m->n_pairs] = (struct pair){.key = taken[i], .value = taken[i + 1]};
        if (dict->n)
            m->pairs[dict->pair[1]].next = m->n_pairs;
        else
            dict->pair[0] = m->n_pairs;
        dict->pair[1] = m->n_pairs++;
        dict->n++;
    }
    return MVLM_OK;
}

static mvlm_status take_line(struct machine *m, struct pickle_text *line)
{
    const uint8_t *const start = m->bytes + m->at;
    const uint8_t *const end = memchr(start, '\n', m->n_bytes - m->at);
    if (!end)
        return refuse(m, "ends within an opcode");
    *line = (struct pickle_text){(const char *)start, (size_t)(end - start)};
    m->at += line->n + 1;
    return MVLM_OK;
}

static mvlm_status op_global(struct machine *m, int how)
{
    static const struct {
        const char *module, *name;
        enum callable callable;
    } known[] = {{"collections", "OrderedDict", ORDERED_DICT},
                 {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR},
                 {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER}};
    struct pickle_text module = {0}, name = {0};
    (void)how;
    TRY(take_line(m, &module));
    TRY(take_line(m, &name));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (module.n == strlen(known[i].module) && name.n == strlen(known[i].name) &&
            memcmp(module.bytes, known[i].module, module.n) == 0 &&
            memcmp(name.bytes, known[i].name, name.n) == 0)
            return push(m, (struct value){.kind = CALLABLE, .callable = known[i].callable});
    enum dtype dtype;
    if (module.n == strlen("torch") && memcmp(module.bytes, "torch", module.n) == 0 &&
        dtype_from_storage(name.bytes, name.n, &dtype))
        return push(m, (struct value){.kind = CALLABLE, .n = dtype, .callable = STORAGE_TYPE});
    char module_text[QUOTE_SIZE], name_text[QUOTE_SIZE];
    return refuse(m, "wants %s.%s, which no checkpoint needs; loading it could run code",
                  quote(module_text, module.bytes, module.n), quote(name_text, name.bytes, name.n));
}

/* _rebuild_parameter(tensor, requires_grad, hooks) is its tensor. */
static mvlm_status rebuild_parameter(struct machine *m, const struct value *arguments)
{
    if (arguments->n != 3 || machine_item(m, arguments, 0)->kind != TENSOR)
        return refuse(m, "_rebuild_parameter without its three arguments");
    return push(m, *machine_item(m, arguments, 0));
}

/* REDUCE and NEWOBJ: callable and tuple of arguments -> value. */
static mvlm_status op_reduce(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    TRY(pop(m, how, &taken, &n));
    const struct value callable = m->values[taken[0]], arguments = m->values[taken[1]];
    if (callable.kind != CALLABLE || arguments.kind != TUPLE)
        return refuse(m, "a call of %s with %s", kind_name(callable.kind),
                      kind_name(arguments.kind));
    switch (callable.callable) {
    case ORDERED_DICT:
        if (arguments.n == 0)
            return push(m, (struct value){.kind = DICT});
        return refuse(m, "OrderedDict with %u arguments, expected none", arguments.n);
    case REBUILD_TENSOR:
        return push(m, (struct value){.kind = TENSOR, .n = arguments.n, .first = arguments.first});
    case REBUILD_PARAMETER:
        return rebuild_parameter(m, &arguments);
    case STORAGE_TYPE:
        break;
    }
    return refuse(m, "a call of a storage type");
}

/* Attributes of a dict: torch writes _metadata, the versions of modules, which is not needed. */
static mvlm_status op_build(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    struct value *dict = NULL;
    TRY(pop(m, how, &taken, &n));
    const struct value state = m->values[taken[0]];
    TRY(top(m, DICT, &dict));
    if (state.kind != DICT)
        return refuse(m, "BUILD with %s, expected a dict", kind_name(state.kind));
    uint32_t at = state.pair[0];
    for (uint32_t i = 0; i < state.n; i++, at = m->pairs[at].next)
        if (!is_text(&m->values[m->pairs[at].key], "_metadata"))
            return refuse(m, "BUILD sets something else than _metadata");
    return MVLM_OK;
}

/* ("storage", type, key, location, elements) */
static mvlm_status op_persistent(struct machine *m, int how)
{
    const uint32_t *taken = NULL;
    uint32_t n = 0;
    TRY(pop(m, how, &taken, &n));
    const struct value id = m->values[taken[0]];
    if (id.kind != TUPLE || id.n != 5 || !is_text(machine_item(m, &id, 0), "storage") ||
        machine_item(m, &id, 1)->kind != CALLABLE ||
        machine_item(m, &id, 1)->callable != STORAGE_TYPE ||
        machine_item(m, &id, 2)->kind != STRING || machine_item(m, &id, 3)->kind != STRING ||
        machine_item(m, &id, 4)->kind != INT || machine_item(m, &id, 4)->integer < 0)
        return refuse(m, "persistent id is not (\"storage\", type, key, location, elements)");
    return push(m, (struct value){.kind = STORAGE, .n = id.n, .first = id.first});
}

/* STOP is machine_run's. */
static const struct {
    mvlm_status (*run)(struct machine *m, int how);
    int how;
} opcodes[256] = {
    [0x80] = {op_proto, 1},            /* PROTO */
    ['('] = {op_mark, 0},              /* MARK */
    [')'] = {op_tuple, 0},             /* EMPTY_TUPLE */
    [0x85] = {op_tuple, 1},            /* TUPLE1 */
    [0x86] = {op_tuple, 2},            /* TUPLE2 */
    [0x87] = {op_tuple, 3},            /* TUPLE3 */
    ['t'] = {op_tuple, FROM_MARK},     /* TUPLE */
    [']'] = {op_empty, LIST},          /* EMPTY_LIST */
    ['}'] = {op_empty, DICT},          /* EMPTY_DICT */
    [0x8f] = {op_empty, SET},          /* EMPTY_SET */
    ['N'] = {op_empty, NONE},          /* NONE */
    [0x88] = {op_bool, true},          /* NEWTRUE */
    [0x89] = {op_bool, false},         /* NEWFALSE */
    ['K'] = {op_int, 1},               /* BININT1 */
    ['M'] = {op_int, 2},               /* BININT2 */
    ['J'] = {op_int, 4},               /* BININT */
    [0x8a] = {op_long, 1},             /* LONG1 */
    ['G'] = {op_float, 8},             /* BINFLOAT */
    ['U'] = {op_text, 1},              /* SHORT_BINSTRING */
    ['X'] = {op_text, 4},              /* BINUNICODE */
    ['h'] = {op_get, 1},               /* BINGET */
    ['j'] = {op_get, 4},               /* LONG_BINGET */
    ['q'] = {op_put, 1},               /* BINPUT */
    ['r'] = {op_put, 4},               /* LONG_BINPUT */
    ['a'] = {op_append, 1},            /* APPEND */
    ['e'] = {op_append, FROM_MARK},    /* APPENDS */
    ['s'] = {op_set_items, 2},         /* SETITEM */
    ['u'] = {op_set_items, FROM_MARK}, /* SETITEMS */
    ['c'] = {op_global, 0},            /* GLOBAL */
    ['R'] = {op_reduce, 2},            /* REDUCE */
    [0x81] = {op_reduce, 2},           /* NEWOBJ */
    ['b'] = {op_build, 1},             /* BUILD */
    ['Q'] = {op_persistent, 1},        /* BINPERSID */
};

/* The other opcodes of protocols 0 to 5, refused by name. */
/* clang-format off */
static const char *const refused[256] = {
    ['0'] = "POP", ['1'] = "POP_MARK", ['2'] = "DUP", ['F'] = "FLOAT", ['I'] = "INT",
    ['L'] = "LONG", ['S'] = "STRING", ['T'] = "BINSTRING", ['V'] = "UNICODE", ['P'] = "PERSID",
    ['d'] = "DICT", ['g'] = "GET", ['i'] = "INST", ['l'] = "LIST", ['o'] = "OBJ", ['p'] = "PUT",
    [0x82] = "EXT1", [0x83] = "EXT2", [0x84] = "EXT4", [0x8b] = "LONG4", ['B'] = "BINBYTES",
    ['C'] = "SHORT_BINBYTES", [0x8c] = "SHORT_BINUNICODE", [0x8d] = "BINUNICODE8",
    [0x8e] = "BINBYTES8", [0x90] = "ADDITEMS", [0x91] = "FROZENSET", [0x92] = "NEWOBJ_EX",
    [0x93] = "STACK_GLOBAL", [0x94] = "MEMOIZE", [0x95] = "FRAME", [0x96] = "BYTEARRAY8",
    [0x97] = "NEXT_BUFFER", [0x98] = "READONLY_BUFFER"
};
/* clang-format on */

mvlm_status machine_run(struct machine *m, const struct value **root)
{
    while (m->at < m->n_bytes) {
        m->opcode_at = m->at;
        const uint8_t opcode = m->bytes[m->at++];
        if (opcode == '.') {
            if (m->n_stack != 1 || m->n_marks != 0)
                return refuse(m, "%u values at the end, expected one", m->n_stack);
            if (m->at != m->n_bytes)
                return refuse(m, "%zu bytes behind the end", m->n_bytes - m->at);
            struct value *dict = NULL;
            TRY(top(m, DICT, &dict));
            *root = dict;
            return MVLM_OK;
        }
        if (!opcodes[opcode].run)
            return refuse(m, "opcode %s (0x%02x), which no checkpoint needs",
                          refused[opcode] ? refused[opcode] : "unknown", opcode);
        TRY(opcodes[opcode].run(m, opcodes[opcode].how));
    }
    return refuse(m, "ends without STOP");
}

mvlm_status machine_init(struct machine *m, const struct source_file *file, const uint8_t *bytes,
                         size_t n_bytes, mvlm_error *error)
{
    const size_t n = n_bytes ? n_bytes : 1;
    *m = (struct machine){.file = file,
                          .error = error,
                          .bytes = bytes,
                          .n_bytes = n_bytes,
                          .values = calloc(n, sizeof *m->values),
                          .stack = calloc(n, sizeof *m->stack),
                          .marks = calloc(n, sizeof *m->marks),
                          .memo = calloc(n, sizeof *m->memo),
                          .items = calloc(n, sizeof *m->items),
                          .pairs = calloc(n, sizeof *m->pairs)};
    if (m->values && m->stack && m->marks && m->memo && m->items && m->pairs)
        return MVLM_OK;
    return fail_no_memory(error, "values of data.pkl", n * sizeof *m->values);
}

void machine_free(struct machine *m)
{
    free(m->values);
    free(m->stack);
    free(m->marks);
    free(m->memo);
    free(m->items);
    free(m->pairs);
}

const char *kind_name(enum kind kind)
{
    return kind_names[kind];
}
