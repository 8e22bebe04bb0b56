/* Pillow's bicubic resizing, bit by bit. */
#ifndef SRC_RESIZE_H
#define SRC_RESIZE_H

#include <stdint.h>

#include "image.h"

/* What happens along one edge. Padding lies before and after the picture and takes no memory. */
struct resize_axis {
    int64_t n_in;   /* pixels along the edge, padding included */
    int64_t offset; /* where among them the picture begins */
    int64_t n_real; /* pixels of the picture */
    int64_t n_out;  /* pixels after resizing */
    int64_t first;  /* the first of them that is wanted; as many as the square has follow */
};

/* Resizes the padded picture to x.n_out by y.n_out and writes a square of `side` out of it:
 * square[(y * side + x) * 3 + channel]. With `columns_first` the vertical pass comes before the horizontal
 * one, and memory is taken for a copy of the picture; else memory does not depend on the picture's area.
 * MVLM_NO_MEMORY, or MVLM_BAD_PICTURE for an edge that shrinks more than a millionfold. */
mvlm_status picture_resize(const struct kernels *kernels, const struct picture *picture,
                           const struct resize_axis *x, const struct resize_axis *y,
                           const uint8_t pad_colour[3], bool columns_first, int side,
                           uint8_t *square, mvlm_error *error);

#endif
