/* The directory of a safetensors file (model-facts.md 9.1). */
#ifndef CONVERT_SAFETENSORS_H
#define CONVERT_SAFETENSORS_H

#include "source_tensor.h"

/* Appends the file's tensors to `list`, with `file_index` as their file. Every range has been
 * checked: inside the file, as long as shape and type say, together covering the data without
 * overlap or hole. On error the list holds tensors that are not to be used. */
mvlm_status safetensors_read(const struct source_file *file, int file_index,
                             struct tensor_list *list, mvlm_error *error);

#endif
