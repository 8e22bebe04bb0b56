/* Bytes of tokens -> the answer's text: UTF-8 as Python reads it, white space, stop texts, and
 * nothing given out that is later taken back. TEST_SEED=... repeats a run. */
#include "../src/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "support/guard.h"
#include "support/seed.h"

/* ---- UTF-8 ------------------------------------------------------------------------------ */

/* Decodes as one stream; returns the length. */
static size_t decode(const char *bytes, size_t n, char *out)
{
    struct utf8_stream stream = {.n_pending = 0};
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t more = utf8_push(&stream, (unsigned char)bytes[i], out + length);
        assert_in_range(more, 0, 6);
        length += more;
    }
    const size_t more = utf8_finish(&stream, out + length);
    assert_in_range(more, 0, 3);
    return length + more;
}

#define R "\xef\xbf\xbd"

static void utf8_examples(void **state)
{
    (void)state;
    static const char *const examples[][2] = {
        {"", ""},
        {"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z", "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z"},
        {"\x80", R},
        {"\xc3", R},
        {"\xc3(", R "("},
        {"\xe2\x82", R},
        {"\xe2\x82\xc3\xa9", R "\xc3\xa9"},
        {"\xf0\x9f\x98", R},
        {"\xf0\x9f\x98\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80"},
        {"\xc0\x80", R R},             /* overlong */
        {"\xe0\x9f\xbf", R R R},       /* overlong: the second byte is already wrong */
        {"\xed\xa0\x80", R R R},       /* a surrogate */
        {"\xf4\x90\x80\x80", R R R R}, /* beyond U+10FFFF */
        {"\xf5\xff", R R},
        {"\xf0\x90\x41\x80", R "A" R},
        {"\xef\xbf\xbd\xef\xbb\xbf", R "\xef\xbb\xbf"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        char out[64];
        const size_t n = decode(examples[i][0], strlen(examples[i][0]), out);
        assert_int_equal(n, strlen(examples[i][1]));
        assert_memory_equal(out, examples[i][1], n);
    }
}

/* CRC-32 over all sequences of `length` bytes out of an alphabet, in lexical order: of what
 * decoding gives, a byte 0xff behind each; and of where the first wrong byte stands, 0xee for none.
 */
static void check_digests(const unsigned char *alphabet, size_t n_alphabet, size_t length,
                          uint32_t decoded, uint32_t validity)
{
    size_t n_sequences = 1;
    uLong decoded_crc = crc32(0, NULL, 0), validity_crc = decoded_crc;
    for (size_t i = 0; i < length; i++)
        n_sequences *= n_alphabet;
    for (size_t sequence = 0; sequence < n_sequences; sequence++) {
        char bytes[4], out[16];
        size_t at = 0;
        for (size_t i = length, rest = sequence; i-- > 0; rest /= n_alphabet)
            bytes[i] = (char)alphabet[rest % n_alphabet];
        const size_t n = decode(bytes, length, out);
        out[n] = (char)0xff;
        decoded_crc = crc32(decoded_crc, (const Bytef *)out, (uInt)n + 1);
        const Bytef valid = utf8_valid(bytes, length, &at) ? 0xee : (Bytef)at;
        validity_crc = crc32(validity_crc, &valid, 1);
    }
    assert_int_equal(decoded_crc, decoded);
    assert_int_equal(validity_crc, validity);
}

/* The digests are of Python 3.11's bytes.decode("utf-8", errors="replace") and of
 * UnicodeDecodeError.start. */
static void utf8_equals_python(void **state)
{
    (void)state;
    static const unsigned char borders[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                            0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                            0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    unsigned char all[256];
    for (size_t i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    check_digests(all, 256, 1, 0x3b053ce4, 0xc443e244);
    check_digests(all, 256, 2, 0xb5c1e44a, 0xf30ad7e5);
    check_digests(borders, sizeof borders, 3, 0xb92e2d81, 0xd7182fbd);
    check_digests(borders, sizeof borders, 4, 0xbbe1c41c, 0x3b3a8790);
}

static size_t encode(uint32_t character, char *out)
{
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    const size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1; character >>= 6)
        out[i] = (char)(0x80 | (character & 0x3f));
    out[0] = (char)(leads[length] | character);
    return length;
}

/* All that str.isspace calls so, which is what str.strip takes off: Python 3.11. */
static bool is_space(uint32_t character)
{
    static const uint32_t spaces[] = {
        0x09,   0x0a,   0x0b,   0x0c,   0x0d,   0x1c,   0x1d,   0x1e,   0x1f,   0x20,
        0x85,   0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006,
        0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (spaces[i] == character)
            return true;
    return false;
}

static void every_character(void **state)
{
    (void)state;
    for (uint32_t character = 0; character < 0x110000; character++) {
        char text[4];
        size_t length = 0, at = 0;
        const size_t n = encode(character, text);
        const bool surrogate = character >= 0xd800 && character < 0xe000;
        if (utf8_valid(text, n, &at) == surrogate || (surrogate && at != 0))
            fail_msg("U+%04X: validity", (unsigned)character);
        if (surrogate)
            continue;
        if (utf8_length(text) != n || utf8_is_space(text, n, &length) != is_space(character) ||
            length != n)
            fail_msg("U+%04X: length or space", (unsigned)character);
        if (n > 1 && utf8_is_space(text, n - 1, &length))
            fail_msg("U+%04X: space though cut", (unsigned)character);
    }
}

static void valid_says_where(void **state)
{
    (void)state;
    size_t at;
    assert_true(utf8_valid("", 0, &at));
    assert_false(utf8_valid("abc\xc3\xa9\xff", 6, &at));
    assert_int_equal(at, 5);
    assert_false(utf8_valid("ab\xe2\x82", 4, &at)); /* cut short */
    assert_int_equal(at, 2);
    assert_true(utf8_valid("a\0b", 3, &at));
}

/* ---- The answer ------------------------------------------------------------------------- */

enum { MOST_TEXT = 600 };

/* An answer whose memory ends at a guard page. */
struct fixture {
    struct guard guard;
    struct answer answer;
    char given[MOST_TEXT]; /* all that was given out */
    size_t n_given;
};

static int open_fixture(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof fixture);
    guard_open(&fixture.guard, 4096);
    seed_restart(NULL);
    *state = &fixture;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    guard_close(&f->guard);
    return 0;
}

static void start(struct fixture *f, size_t n_bytes, const char *const *stops, size_t n_stops)
{
    struct arena arena = {0};
    answer_layout(&f->answer, &arena, n_bytes);
    arena.block = guard_place(&f->guard, GUARD_BACK, arena.most);
    arena.used = 0;
    answer_layout(&f->answer, &arena, n_bytes);
    answer_start(&f->answer, stops, n_stops);
    f->n_given = 0;
}

static void take(struct fixture *f, bool last)
{
    size_t n, at, length;
    const char *text = answer_take(&f->answer, last, &n);
    assert_true(f->n_given + n < sizeof f->given);
    assert_true(utf8_valid(text, n, &at)); /* never half a character */
    memcpy(f->given + f->n_given, text, n);
    f->n_given += n;
    assert_false(n && f->n_given == n && utf8_is_space(f->given, n, &length));
    assert_true(guard_intact(&f->guard));
}

static void assert_given(const struct fixture *f, const char *expected, size_t n)
{
    if (f->n_given != n || memcmp(f->given, expected, n) != 0)
        fail_msg("\"%.*s\" was given, expected \"%.*s\"; TEST_SEED=%llu", (int)f->n_given, f->given,
                 (int)n, expected, seed_value());
}

/* Pushes bytes [begin, end) as one token; false once a stop text ended the answer. */
static bool push(struct fixture *f, const char *bytes, size_t begin, size_t end)
{
    const bool ended = answer_push(&f->answer, bytes + begin, end - begin);
    take(f, ended);
    return !ended;
}

/* The definition: decode, drop white space at the beginning, end before the stop text that is
 * complete first (the longest such), drop white space at the end. */
static size_t define(const char *bytes, size_t n, const char *const *stops, size_t n_stops,
                     char *out)
{
    char text[MOST_TEXT];
    size_t begin = 0, length, end = decode(bytes, n, text), cut = end;
    while (begin < end && utf8_is_space(text + begin, end - begin, &length))
        begin += length;
    for (size_t complete = begin; complete <= end && cut == end; complete++)
        for (size_t i = 0; i < n_stops; i++) {
            const size_t stop = strlen(stops[i]);
            if (stop && stop <= complete - begin &&
                memcmp(text + complete - stop, stops[i], stop) == 0)
                cut = complete - stop < cut ? complete - stop : cut;
        }
    for (size_t at = begin, kept = begin; at <= cut;
         at += length) { /* `kept`: behind the last that is no space */
        length = 1;
        if (at == cut)
            cut = kept;
        else if (!utf8_is_space(text + at, cut - at, &length))
            kept = at + length;
    }
    memcpy(out, text + begin, cut - begin);
    return cut - begin;
}

/* Splits everywhere, or at random places. */
static void check_splits(struct fixture *f, const char *bytes, size_t n, const char *const *stops,
                         size_t n_stops)
{
    char expected[MOST_TEXT];
    const size_t n_expected = define(bytes, n, stops, n_stops, expected);
    for (size_t split = 0; split <= n + 3; split++) {
        start(f, n, stops, n_stops);
        bool more = true;
        if (split <= n) {
            more = push(f, bytes, 0, split) && push(f, bytes, split, n);
        } else
            for (size_t at = 0, end; at < n && more; at = end) {
                end = at + 1 + random_bits() % (split - n);
                end = end < n ? end : n;
                more = push(f, bytes, at, end);
            }
        if (more)
            take(f, true);
        assert_given(f, expected, n_expected);
    }
}

static void random_texts(void **state)
{
    static const char *const pieces[] = {
        "a",        "b",        "c",        "ab",       "abc",
        " ",        "\n",       "  ",       "\xc2\xa0", "\xe3\x80\x80",
        "\x1c",     "\xc3\xa9", "\xc3",     "\xa9",     "\xf0\x9f\x98\x80",
        "\xf0\x9f", "\xff",     "\xe2\x80", "\xa8",     "END",
        "E",        "N"};
    static const char *const stops[] = {"ab",   "abc", "bcb", "END",      "a b",
                                        "\n\n", " ",   "c\n", "\xc3\xa9", "\xf0\x9f\x98\200a",
                                        R,      "",    "aa",  "bab",      "cabab"};
    enum { N_PIECES = sizeof pieces / sizeof *pieces, N_STOPS = sizeof stops / sizeof *stops };
    for (size_t trial = 0; trial < 3000; trial++) {
        char bytes[128];
        const char *chosen[4];
        size_t n = 0;
        const size_t n_pieces = random_bits() % 16, n_stops = trial % 5;
        for (size_t i = 0; i < n_pieces; i++) {
            const char *piece = pieces[random_bits() % (trial % 2 ? N_PIECES : 6)];
            memcpy(bytes + n, piece, strlen(piece));
            n += strlen(piece);
        }
        for (size_t i = 0; i < n_stops; i++)
            chosen[i] = stops[random_bits() % N_STOPS];
        check_splits(*state, bytes, n, chosen, n_stops);
    }
}

static void stop_examples(void **state)
{
    static const struct {
        const char *text, *stops[3], *expected;
    } examples[] = {
        {"  one two  ", {NULL}, "one two"},
        {"one STOP two", {"STOP"}, "one"},
        {"STOP two", {"STOP"}, ""},
        {" \n STOP two", {"STOP"}, ""},
        {"one ST", {"STOP"}, "one ST"}, /* a beginning that is not gone on with */
        {"one STSTOP", {"STOP"}, "one ST"},
        {"xabcy", {"ab", "abc"}, "x"},
        {"xabcy", {"abc", "ab"}, "x"},
        {"xabyabc", {"abc"}, "xaby"},
        {"one two three", {"three", "two"}, "one"}, /* the earliest */
        {"xabcde", {"abcde", "bcd"}, "xa"},         /* complete first */
        {"xaabaaab", {"aaab"}, "xaab"},
        {"a\xe2\x80\x83", {NULL}, "a"}, /* white space of several bytes */
        {"one\n\ntwo", {"\n\n"}, "one"},
        {"one", {""}, "one"}, /* an empty stop text never ends anything */
        {"\xc3\xa9t\xc3\xa9", {"t\xc3\xa9"}, "\xc3\xa9"},
        {"a\xc3", {NULL}, "a" R},
        {" \t\r\n", {NULL}, ""},
        {"", {"x"}, ""},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        char expected[MOST_TEXT];
        size_t n_stops = 0;
        while (n_stops < 3 && examples[i].stops[n_stops])
            n_stops++;
        const size_t n = strlen(examples[i].text);
        assert_int_equal(define(examples[i].text, n, examples[i].stops, n_stops, expected),
                         strlen(examples[i].expected));
        assert_memory_equal(expected, examples[i].expected, strlen(examples[i].expected));
        check_splits(*state, examples[i].text, n, examples[i].stops, n_stops);
    }
}

/* Nothing is held back that cannot be taken back: after each byte, what has been given is all but
 * trailing white space, half a character, and the beginning of a stop text. */
static void gives_at_once(void **state)
{
    static const struct {
        const char *text, *stop;
        const char *given[14]; /* after each byte */
    } examples[] = {
        {" ab  c\n", "", {"", "a", "ab", "ab", "ab", "ab  c", "ab  c"}},
        {"\xc3\xa9\xe2\x82\xac",
         "",
         {"", "\xc3\xa9", "\xc3\xa9", "\xc3\xa9", "\xc3\xa9\xe2\x82\xac"}},
        {"\xf0\x9fz", "", {"", "", R "z"}},
        {"xSTaSTSTOPz",
         "STOP",
         {"x", "x", "x", "xSTa", "xSTa", "xSTa", "xSTaST", "xSTaST", "xSTaST", "xSTaST"}},
        {"a - b", " --", {"a", "a", "a", "a -", "a - b"}},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const char *stops[] = {examples[i].stop};
        const size_t n = strlen(examples[i].text);
        start(f, n, stops, 1);
        bool more = true;
        for (size_t at = 0; at < n && more; at++) {
            more = push(f, examples[i].text, at, at + 1);
            assert_given(f, examples[i].given[at], strlen(examples[i].given[at]));
        }
    }
}

/* The largest text that bytes can become fits: each wrong byte takes three, and a character cut
 * short one more. */
static void memory_suffices(void **state)
{
    struct fixture *f = *state;
    char bytes[190];
    for (size_t n = 0; n <= sizeof bytes; n++) {
        memset(bytes, 0xff, n);
        if (n)
            bytes[n - 1] = (char)0xe2;
        start(f, n, NULL, 0);
        push(f, bytes, 0, n);
        take(f, true);
        assert_int_equal(f->n_given, 3 * n);
    }
}

static void start_forgets(void **state)
{
    struct fixture *f = *state;
    const char *const stops[] = {"x"};
    start(f, 64, stops, 1);
    assert_false(push(f, "abx\xe2\x82", 0, 5));
    answer_start(&f->answer, NULL, 0);
    f->n_given = 0;
    assert_true(push(f, "\xacxy", 0, 3)); /* no half character from before, no stop */
    take(f, true);
    assert_given(f, R "xy", 5);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_examples),
        cmocka_unit_test(utf8_equals_python),
        cmocka_unit_test(every_character),
        cmocka_unit_test(valid_says_where),
        TEST(random_texts),
        TEST(stop_examples),
        TEST(gives_at_once),
        TEST(memory_suffices),
        TEST(start_forgets),
    };
    seed_choose();
    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
