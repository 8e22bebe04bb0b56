#include "utf8.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

size_t utf8_length(const char *text)
{
    const unsigned char lead = (unsigned char)*text;
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

uint32_t utf8_character(const char *text, size_t *length)
{
    static const unsigned char lead_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    *length = utf8_length(text);
    uint32_t character = (unsigned char)*text & lead_bits[*length];
    for (size_t i = 1; i < *length; i++)
        character = character << 6 | ((unsigned char)text[i] & 0x3f);
    return character;
}

/* How many bytes a character has that begins so; 0 for a byte that begins none. */
static size_t length_of_lead(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* May `byte` follow `n` bytes that begin a character? The second byte's range excludes overlong
 * forms, surrogates and what lies beyond U+10FFFF. */
static bool continues(const unsigned char *begun, size_t n, unsigned char byte)
{
    unsigned char least = 0x80, most = 0xbf;
    if (n == 1 && begun[0] == 0xe0)
        least = 0xa0;
    if (n == 1 && begun[0] == 0xed)
        most = 0x9f;
    if (n == 1 && begun[0] == 0xf0)
        least = 0x90;
    if (n == 1 && begun[0] == 0xf4)
        most = 0x8f;
    return byte >= least && byte <= most;
}

bool utf8_valid(const char *text, size_t n_bytes, size_t *at)
{
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t i = 0; i < n_bytes;) {
        const size_t length = length_of_lead(bytes[i]);
        *at = i;
        if (length == 0 || length > n_bytes - i)
            return false;
        for (size_t n = 1; n < length; n++)
            if (!continues(bytes + i, n, bytes[i + n]))
                return false;
        i += length;
    }
    return true;
}

static size_t put(char *out, const void *bytes, size_t n)
{
    memcpy(out, bytes, n);
    return n;
}

/* U+FFFD for what is pending, which is no character. */
static size_t give_up(struct utf8_stream *stream, char *out)
{
    const size_t n = stream->n_pending ? put(out, replacement, 3) : 0;
    stream->n_pending = 0;
    return n;
}

size_t utf8_push(struct utf8_stream *stream, unsigned char byte, char *out)
{
    size_t n = 0;
    if (stream->n_pending && !continues(stream->pending, stream->n_pending, byte))
        n += give_up(stream, out);
    if (stream->n_pending == 0 && length_of_lead(byte) == 0)
        return n + put(out + n, replacement, 3);
    stream->pending[stream->n_pending++] = byte;
    if (stream->n_pending == length_of_lead(stream->pending[0])) {
        n += put(out + n, stream->pending, stream->n_pending);
        stream->n_pending = 0;
    }
    return n;
}

size_t utf8_finish(struct utf8_stream *stream, char *out)
{
    return give_up(stream, out);
}

bool utf8_is_space(const char *text, size_t n_bytes, size_t *length)
{
    static const struct {
        uint32_t first, last;
    } spaces[] = {{0x09, 0x0d},     {0x1c, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
                  {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                  {0x205f, 0x205f}, {0x3000, 0x3000}};
    if (utf8_length(text) > n_bytes)
        return false;
    const uint32_t character = utf8_character(text, length);
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (character >= spaces[i].first && character <= spaces[i].last)
            return true;
    return false;
}

size_t utf8_trimmed(const char *text, size_t n_bytes)
{
    while (n_bytes > 0) {
        size_t start = n_bytes - 1, length;
        while (start > 0 && ((unsigned char)text[start] & 0xc0) == 0x80)
            start--;
        if (!utf8_is_space(text + start, n_bytes - start, &length))
            break;
        n_bytes = start;
    }
    return n_bytes;
}
