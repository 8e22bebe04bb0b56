/* The tensors of a file written by torch.save: a zip archive with a pickle in it
 * (model-facts.md 9.2). */
#ifndef CONVERT_TORCH_BIN_H
#define CONVERT_TORCH_BIN_H

#include "source_tensor.h"

/* Appends the file's tensors to `list`, with `file_index` as their file. Each has been checked: its
 * storage is there with the length that its type and count need, its elements lie within it, and it
 * has no more elements than the storage. On error the list holds tensors that are not to be used.
 */
mvlm_status torch_bin_read(const struct source_file *file, int file_index, struct tensor_list *list,
                           mvlm_error *error);

#endif
