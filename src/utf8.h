/* UTF-8: checking, and decoding as it streams in. */
#ifndef SRC_UTF8_H
#define SRC_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the first character of valid UTF-8, 1 to 4. */
size_t utf8_length(const char *text);

/* The first character of valid UTF-8, and its length. */
uint32_t utf8_character(const char *text, size_t *length);

/* Is all of it UTF-8? If not, *at is where the first wrong byte stands. */
bool utf8_valid(const char *text, size_t n_bytes, size_t *at);

/* Bytes in, valid UTF-8 out: what is none becomes U+FFFD, once for each maximal part of a
 * character, as Python's bytes.decode(errors="replace") does (Unicode's recommended practice). */
struct utf8_stream {
    unsigned char pending[4]; /* the beginning of a character */
    size_t n_pending;
};

/* Takes one byte; writes at most UTF8_PUSHED bytes to `out` and returns their number. */
enum { UTF8_PUSHED = 6 };
size_t utf8_push(struct utf8_stream *stream, unsigned char byte, char *out);

/* The end: a half character becomes U+FFFD. At most 3 bytes. */
size_t utf8_finish(struct utf8_stream *stream, char *out);

/* Is the character that begins at `text` white space to Python's str.strip? Its length goes to
 * *length. */
bool utf8_is_space(const char *text, size_t n_bytes, size_t *length);

/* The length of the text without such white space at its end. */
size_t utf8_trimmed(const char *text, size_t n_bytes);

#endif
