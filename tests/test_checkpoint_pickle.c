/* Pickles that must be refused: names and opcodes that could run code, broken machines, and tensors
 * that reach beyond their storages. */
#include "../tools/convert/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint_builder.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define BIN          "pytorch_model.bin"

#define ORDERED_DICT "ccollections\nOrderedDict\n)R"
#define STORAGE                                                                                    \
    "(U\7storagectorch\nFloatStorage\nU\1"                                                         \
    "0U\3"                                                                                         \
    "cpuK\6tQ"
#define REBUILD      "ctorch._utils\n_rebuild_tensor_v2\n"
#define PICKLE(text) "\x80\x02" text, sizeof("\x80\x02" text) - 1

struct refused {
    const char *pickle;
    size_t n;
    const char *part; /* of the message */
};

static void check_pickles(const char *folder, const struct refused *cases, size_t n_cases)
{
    static const float numbers[6];
    const struct built_storage storage = {DTYPE_F32, numbers, 6};
    for (size_t i = 0; i < n_cases; i++) {
        build_archive(folder, BIN, cases[i].pickle, cases[i].n, &storage, 1, 0);
        check_refused(folder, cases[i].part);
    }
}

static void names_and_opcodes_that_run_code(void **state)
{
    static const struct refused cases[] = {
        {PICKLE("cos\nsystem\nU\2lsR."), "byte 2: wants os.system, which no checkpoint needs"},
        {PICKLE("cposix\nsystem\nU\2ls\x85R."), "wants posix.system"},
        {PICKLE("c__builtin__\neval\nU\2ls\x85R."), "wants __builtin__.eval"},
        {PICKLE("cbuiltins\nexec\n."), "wants builtins.exec"},
        {PICKLE("ctorch\nload\n."), "wants torch.load"},
        {PICKLE("ctorch\nFloatStorages\n."), "wants torch.FloatStorages"},
        {PICKLE("ctorch\nUntypedStorage\n."), "wants torch.UntypedStorage"},
        {PICKLE("ctorch._utils\n_rebuild_tensor\n."), "wants torch._utils._rebuild_tensor,"},
        {PICKLE("ccollections\nOrderedDict\0\n."), "wants collections.OrderedDict?"},
        {PICKLE("c\x1b[2J\n\r\n."), "wants ?[2J.?"},
        {PICKLE("(S'ls'\nios\nsystem\n."), "opcode STRING (0x53)"},
        {PICKLE("(ios\nsystem\n."), "opcode INST (0x69)"},
        {PICKLE("(o."), "opcode OBJ (0x6f)"},
        {PICKLE("\x8c\2os\x8c\6system\x93."), "opcode SHORT_BINUNICODE (0x8c)"},
        {PICKLE("U\2osU\6system\x93."), "byte 14: opcode STACK_GLOBAL (0x93)"},
        {PICKLE("\x82\1."), "opcode EXT1 (0x82)"},
        {PICKLE("}}}\x92."), "opcode NEWOBJ_EX (0x92)"},
        {PICKLE("P1\n."), "opcode PERSID (0x50)"},
        {PICKLE("\xff."), "opcode unknown (0xff)"},
    };
    check_pickles(*state, cases, COUNT(cases));
}

static void broken_machines(void **state)
{
    static const struct refused cases[] = {
        {PICKLE(""), "ends without STOP"},
        {PICKLE("}"), "ends without STOP"},
        {PICKLE("."), "0 values at the end"},
        {PICKLE("}}."), "2 values at the end"},
        {PICKLE("}(."), "1 values at the end"},
        {PICKLE("}.}"), "1 bytes behind the end"},
        {PICKLE("N."), "None where a dict is expected"},
        {PICKLE("]."), "a list where a dict is expected"},
        {"\x80\x04}.", 4, "byte 0: pickle protocol 4, expected 2"},
        {PICKLE("\x80"), "ends within an opcode"},
        {PICKLE("J\1\2\3"), "ends within an opcode"},
        {PICKLE("X\xff\xff\xff\xff"
                "ab"),
         "ends within an opcode"},
        {PICKLE("U\3ab"), "ends within an opcode"},
        {PICKLE("G1234567"), "ends within an opcode"},
        {PICKLE("\x8a\4ab"), "ends within an opcode"},
        {PICKLE("\x8a\11"
                "123456789."),
         "integer of 9 bytes, at most 8"},
        {PICKLE("ccollections\nOrderedDict"), "ends within an opcode"},
        {PICKLE("ccollections"), "ends within an opcode"},
        {PICKLE("t."), "no mark on the stack"},
        {PICKLE("u."), "no mark on the stack"},
        {PICKLE("\x86."), "stack too short"},
        {PICKLE("}(\x85."), "stack too short"},
        {PICKLE("}(R."), "stack too short"},
        {PICKLE("(a."), "stack too short"},
        {PICKLE("(u."), "stack too short"},
        {PICKLE("q\0."), "stack too short"},
        {PICKLE("}(q\0."), "stack too short"},
        {PICKLE("h\0."), "memo 0 wanted, has 0"},
        {PICKLE("}q\0j\1\0\0\0."), "memo 1 wanted, has 1"},
        {PICKLE("}r\xff\xff\xff\xff."), "memo 4294967295 follows 0"},
        {PICKLE("}q\2."), "memo 2 follows 0"},
        {PICKLE("}Na."), "a dict where a list is expected"},
        {PICKLE("]NNs."), "a list where a dict is expected"},
        {PICKLE("}(Nu."), "key without a value"},
    };
    check_pickles(*state, cases, COUNT(cases));
}

static void wrong_calls_and_storages(void **state)
{
    static const struct refused cases[] = {
        {PICKLE("NNR."), "a call of None with None"},
        {PICKLE("ccollections\nOrderedDict\n]R."), "with a list"},
        {PICKLE("ccollections\nOrderedDict\n]\x85R."), "OrderedDict with 1 arguments"},
        {PICKLE("ctorch\nFloatStorage\n)R."), "a call of a storage type"},
        {PICKLE("ctorch._utils\n_rebuild_parameter\n)R."), "_rebuild_parameter without"},
        {PICKLE("ctorch._utils\n_rebuild_parameter\nN\x89}\x87R."), "_rebuild_parameter without"},
        {PICKLE("NQ."), "persistent id is not"},
        {PICKLE("(U\7storageNU\1"
                "0U\3"
                "cpuK\6tQ."),
         "persistent id is not"},
        {PICKLE("(U\7storagectorch\nFloatStorage\nU\1"
                "0U\3"
                "cpuJ\xff\xff\xff\xfftQ."),
         "persistent id is not"},
        {PICKLE("(U\6modulectorch\nFloatStorage\nU\1"
                "0U\3"
                "cpuK\6tQ."),
         "persistent id is not"},
    };
    check_pickles(*state, cases, COUNT(cases));
}

static void wrong_entries_and_tensors(void **state)
{
    static const struct refused cases[] = {
        {PICKLE("}Nb."), "BUILD with None"},
        {PICKLE("]}b."), "a list where a dict is expected"},
        {PICKLE("}}U\7__class}sb."), "BUILD sets something else than _metadata"},
        {PICKLE("}}K\1}sb."), "BUILD sets something else than _metadata"},
        {PICKLE("}U\4stepK\7s."), "'step' is an int, expected a tensor"},
        {PICKLE("}U\1xNs."), "'x' is None, expected a tensor"},
        {PICKLE("}U\1xU\1ys."), "'x' is a str, expected a tensor"},
        {PICKLE("}U\5model" ORDERED_DICT "s."), "'model' is a dict, expected a tensor"},
        {PICKLE("}q\0U\4selfh\0s."), "'self' is a dict, expected a tensor"},
        {PICKLE("}U\1x" STORAGE "s."), "'x' is a storage, expected a tensor"},
        {PICKLE("}K\1K\2s."), "entry 0 of the state dict: key is an int"},
        {PICKLE("}U\1x" REBUILD ")Rs."), "'x': 0 arguments, expected 6 or 7"},
        {PICKLE("}U\1x" REBUILD "(NK\0))\x89}tRs."), "'x': hooks, metadata or wrong kinds"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0)))}tRs."), "'x': hooks, metadata or wrong kinds"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0))\x89}K\1NstRs."), "'x': hooks, metadata or"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0))\x89}}U\3neg\x88stRs."),
         "'x': hooks, metadata or"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "N))\x89}tRs."), "'x': offset, shape and stride"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0N)\x89}tRs."), "'x': offset, shape and stride"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0K\1\x85)\x89}tRs."),
         "'x': offset, shape and stride"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0\x88\x85K\1\x85\x89}tRs."), "'x': offset, shape"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t)\x89}tRs."),
         "'x': 9 dimensions, at most 8"},
        {PICKLE("}U\1x" REBUILD "(" STORAGE "K\0))\x89}tRq\0sU\1xh\0s."), "tensor 'x' is also in"},
        {PICKLE("}U\0" REBUILD "(" STORAGE "K\0))\x89}tRs."), "tensor '': name of 0 bytes"},
        {PICKLE("}U\2x\n" REBUILD "(" STORAGE "K\0))\x89}tRs."), "'x?': name with a control"},
    };
    check_pickles(*state, cases, COUNT(cases));
}

/* A million opcodes that nest, or that double: neither stack nor memory may grow with them. */
static void test_pickle_depth(void **state)
{
    static const struct {
        const char *unit;
        size_t n;
        const char *part;
    } cases[] = {
        {"(", 1, "ends without STOP"},      {"}", 1, "ends without STOP"},
        {"\x85", 1, "ends without STOP"},   {"Nq\0h\0\x86q\0", 8, "ends without STOP"},
        {"U\1x}s", 5, "ends without STOP"},
    };
    const char *const folder = *state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct bytes pickle = {0};
        bytes_add(&pickle, "\x80\x02}", 3);
        for (size_t k = 0; k < 1000000; k++)
            bytes_add(&pickle, cases[i].unit, cases[i].n);
        build_archive(folder, BIN, pickle.data, pickle.n, NULL, 0, 0);
        check_refused(folder, cases[i].part);
        bytes_free(&pickle);
    }
}

static void test_views(void **state)
{
    enum { HUGE_SIDE = 1 << 30 };
    static const struct {
        struct built_view view;
        uint64_t count; /* that the pickle claims; the record has 6 floats */
        const char *part;
    } cases[] = {
        {{.n_dims = 1, .shape = {6}, .stride = {1}},
         5,
         "record data/0 of 24 bytes, expected 5 x 4"},
        {{.n_dims = 1, .shape = {7}, .stride = {1}},
         7,
         "record data/0 of 24 bytes, expected 7 x 4"},
        {{.n_dims = 1, .shape = {1}, .stride = {1}}, 1ull << 62, "record data/0 of 24 bytes"},
        {{.n_dims = 1, .shape = {1}, .stride = {1}, .storage = 1}, 6, "no record data/1"},
        {{.n_dims = 1, .shape = {7}, .stride = {1}}, 6, "7 elements at 0, storage has 6"},
        {{.offset = 1, .n_dims = 1, .shape = {6}, .stride = {1}}, 6, "strides reach beyond"},
        {{.offset = 6}, 6, "strides reach beyond"},
        {{.offset = 7, .n_dims = 1, .shape = {0}, .stride = {1}}, 6, "0 elements at 7"},
        {{.offset = INT64_MAX}, 6, "1 elements at 9223372036854775807"},
        {{.offset = -1}, 6, "not integers of 0 or more"},
        {{.n_dims = 1, .shape = {-1}, .stride = {1}}, 6, "not integers of 0 or more"},
        {{.n_dims = 1, .shape = {2}, .stride = {-1}}, 6, "not integers of 0 or more"},
        {{.n_dims = 2, .shape = {2, 3}, .stride = {4, 1}}, 6, "strides reach beyond"},
        {{.n_dims = 2, .shape = {3, 2}, .stride = {INT64_MAX, 1}}, 6, "strides reach beyond"},
        {{.offset = 5, .n_dims = 2, .shape = {2, 2}, .stride = {INT64_MAX, 1}},
         6,
         "strides reach beyond"},
        {{.n_dims = 1, .shape = {INT64_MAX}, .stride = {0}}, 6, "elements at 0, storage has 6"},
        {{.n_dims = 3, .shape = {HUGE_SIDE, HUGE_SIDE, HUGE_SIDE}}, 6, "shape too large"},
        {{.n_dims = 1, .shape = {100}, .stride = {0}}, 6, "100 elements at 0, storage has 6"},
    };
    const char *const folder = *state;
    static const float numbers[6];
    const struct built_storage record = {DTYPE_F32, numbers, 6};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct built_view view = cases[i].view;
        const struct built_storage claims[] = {{DTYPE_F32, NULL, cases[i].count},
                                               {DTYPE_F32, NULL, cases[i].count}};
        struct bytes pickle = {0};
        view.name = "x";
        build_pickle(&pickle, &view, 1, claims, 0);
        build_archive(folder, BIN, pickle.data, pickle.n, &record, 1, 0);
        check_refused(folder, cases[i].part);
        bytes_free(&pickle);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(names_and_opcodes_that_run_code),
                                       TEST(broken_machines),
                                       TEST(wrong_calls_and_storages),
                                       TEST(wrong_entries_and_tensors),
                                       TEST(test_pickle_depth),
                                       TEST(test_views)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
