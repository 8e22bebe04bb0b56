/* batch --merge. */
#ifndef CLI_BATCH_MERGE_H
#define CLI_BATCH_MERGE_H

#include "cli.h"

/* Joins the records of the files that are words into --merge's: of each id one, the last answer. With
 * --list every item of it must have a record (SOME_FAILED). MVLM_USAGE for an id that two files answer,
 * and unless --force for records of several models or options. The output is written whole or not at
 * all. */
mvlm_status merge_records(const struct values *values, mvlm_error *error);

#endif
