/* mobilevlm-convert: a Hugging Face folder -> model.bin. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../src/cli/manual.h"
#include "../../src/cli/options.h"
#include "../../src/cli/terminal.h"
#include "convert.h"
#include "schema.h"

static volatile sig_atomic_t stopped_by; /* the signal; 0: none */

static void on_signal(int number)
{
    stopped_by = number;
}

struct values {
    const char *output, *lora, *random, *manual;
    int64_t seed;                     /* -1: not given */
    int type, vision_type, head_type; /* -1: not given */
    int attention;                    /* 1: composite */
    double rope_scale, norm_balance;
    int64_t calibration; /* -1: not given */
    int64_t threads;
    bool force, quiet, help, version;
};

static const char *const type_names[] = {"f32", "f16", "q8", "q4", NULL};
static const char *const attention_names[] = {"full", "composite", NULL};
static const char *const vision_type_names[] = {"f32", "f16", "q8", NULL};
/* What --type means for the tower and projector, the decoder's layers, the embeddings and lm_head:
 * only the decoder's layers are large enough for four bits to be worth what they cost. */
static const struct tensor_types types[] = {{TENSOR_F32, TENSOR_F32, TENSOR_F32},
                                            {TENSOR_F16, TENSOR_F16, TENSOR_F16},
                                            {TENSOR_Q8, TENSOR_Q8, TENSOR_Q8},
                                            {TENSOR_Q8, TENSOR_Q4, TENSOR_Q8}};

static struct tensor_types types_of(const struct values *values)
{
    struct tensor_types chosen = types[values->type];
    if (values->vision_type >= 0)
        chosen.vision = (enum tensor_type)values->vision_type; /* names stand in the types' order */
    if (values->head_type >= 0)
        chosen.head = (enum tensor_type)values->head_type;
    return chosen;
}

#define AT(member) offsetof(struct values, member)
static const struct option options[] = {
    {"-o --output", OPTION_TEXT, AT(output), "FILE", 0, 0, NULL, 1, "the model file to write"},
    {"--type", OPTION_NAME, AT(type), "f32|f16|q8|q4", 0, 0, type_names, 1,
     "of weight matrices (default q4: 4 bits in the decoder's layers, 8 in all others); norms, "
     "biases and small tensors are f32"},
    {"--vision-type", OPTION_NAME, AT(vision_type), "f32|f16|q8", 0, 0, vision_type_names, 1,
     "of the tower's and projector's matrices, whatever --type says"},
    {"--head-type", OPTION_NAME, AT(head_type), "f32|f16|q8|q4", 0, 0, type_names, 1,
     "of the embeddings and lm_head, whatever --type says (a table of q4 is stored as q8)"},
    {"--norm-balance", OPTION_REAL, AT(norm_balance), "A", 0, 1, NULL, 1,
     "how far a norm's large channels move into quantized matrices behind it: 0 not at all, 1 "
     "wholly (default 1)"},
    {"--calibrate", OPTION_INTEGER, AT(calibration), "N", 0, 1e9, NULL, 1,
     "tokens of its own text that the model reads before its weights are rounded to q4, so that "
     "errors fall where they matter least; 0: round each to the nearest (default 1024)"},
    {"--lora", OPTION_TEXT, AT(lora), "DIR", 0, 0, NULL, 1,
     "merge a LoRA adapter's folder: adapter_model.bin or .safetensors, adapter_config.json, "
     "non_lora_trainables.bin"},
    {"--rope-scale", OPTION_REAL, AT(rope_scale), "S", 1, 1000, NULL, 1,
     "divide positions by S, so that S times as many fit: 4 makes 8192 of 2048"},
    {"--attention", OPTION_NAME, AT(attention), "full|composite", 0, 0, attention_names, 1,
     "composite: a picture's rows attend each to itself alone (EE-MLLM); full: as published"},
    {"--random", OPTION_TEXT, AT(random), "NAME", 0, 0, NULL, 1,
     "full-size random weights instead of a checkpoint's, for benchmarks; NAME is a published "
     "model's shape, such as v2-1.7b"},
    {"--seed", OPTION_INTEGER, AT(seed), "N", 0, 1e15, NULL, 1, "of --random (default 0)"},
    {"-t --threads", OPTION_INTEGER, AT(threads), "N", 1, 256, NULL, 1, "default: one a core"},
    {"--force", OPTION_FLAG, AT(force), NULL, 0, 0, NULL, 1, "overwrite the model file"},
    {"-q --quiet", OPTION_FLAG, AT(quiet), NULL, 0, 0, NULL, 1, "nothing but errors"},
    {"--manual", OPTION_TEXT, AT(manual), "man|bash|zsh", 0, 0, NULL, 1,
     "print the manual page, or a shell's completions"},
    {"-h --help", OPTION_FLAG, AT(help), NULL, 0, 0, NULL, 1, "this text"},
    {"--version", OPTION_FLAG, AT(version), NULL, 0, 0, NULL, 1, "the version"},
};
#undef AT
static const struct command command = {"convert", 1, "CHECKPOINT -o model.bin [--type q4]",
                                       "a Hugging Face folder becomes one weight file",
                                       "mobilevlm-convert MobileVLM_V2-1.7B -o model.bin"};
static const struct program program = {
    "mobilevlm-convert",
    "MOBILEVLM_CONVERT_",
    "a Hugging Face folder becomes one weight file, without Python",
    "Exit codes: 0 done, 2 usage, 3 checkpoint, 5 memory, 8 output cannot be written, 130 and 143 "
    "stopped by a signal.\n",
    &command,
    1,
    options,
    sizeof options / sizeof *options};

static void show_progress(void *user, double share)
{
    progress_show(user, "converting", share);
}

static void print_report(const struct convert_report *report, const char *path)
{
    fprintf(stderr, "%s: %zu tensors, %.1f MB, digest %s\n", path, report->n_tensors,
            (double)report->n_bytes / 1e6, report->digest);
    if (report->n_ignored)
        fprintf(stderr,
                "%zu tensors of the adapter are of the vision tower, which stays as it is\n",
                report->n_ignored);
    if (report->n_losses)
        fprintf(stderr, "%-36s %-5s %7s %10s %10s\n", "relative error", "type", "tensors", "mean",
                "worst");
    for (size_t i = 0; i < report->n_losses; i++) {
        const struct convert_loss *loss = &report->losses[i];
        fprintf(stderr, "%-36s %-5s %7zu %10.2e %10.2e\n", loss->pattern,
                tensor_type_name(loss->type), loss->n_tensors, loss->sum / (double)loss->n_tensors,
                loss->worst);
    }
}

static void catch_signals(void)
{
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    action.sa_handler = SIG_IGN; /* a full disk or a limit is reported by write itself */
    sigaction(SIGXFSZ, &action, NULL);
}

static mvlm_status run(const struct values *values, const struct text_list *words,
                       mvlm_error *error)
{
    struct convert_report report;
    struct progress_bar bar;
    if (values->random && words->n)
        return cli_fail(error, MVLM_USAGE,
                        "--random %.40s and a checkpoint folder exclude each other",
                        values->random);
    if (!values->random && values->seed >= 0)
        return cli_fail(error, MVLM_USAGE, "--seed is of --random, which is not there");
    if (!values->random && words->n != 1)
        return cli_fail(error, MVLM_USAGE,
                        "%zu checkpoint folders named, expected one; see %s --help", words->n,
                        program.name);
    if (values->random && values->calibration > 0)
        return cli_fail(error, MVLM_USAGE,
                        "--calibrate is for a checkpoint: random weights write nothing sensible");
    if (values->random && values->lora)
        return cli_fail(error, MVLM_USAGE,
                        "--lora is for a checkpoint: random weights have no base");
    if (!values->output)
        return cli_fail(error, MVLM_USAGE, "no model file named: -o FILE");
    progress_start(&bar, values->quiet);
    const struct convert_options how = {
        .types = types_of(values),
        .norm_balance = values->norm_balance,
        .calibration = values->calibration >= 0 ? (size_t)values->calibration : CONVERT_CALIBRATION,
        .lora = values->lora,
        .config = {.rope_scale = values->rope_scale, .composite_attention = values->attention == 1},
        .random = values->random,
        .seed = values->seed > 0 ? (uint64_t)values->seed : 0,
        .force = values->force,
        .n_threads = (int)values->threads,
        .stop = &stopped_by,
        .progress = show_progress,
        .progress_user = &bar};
    catch_signals();
    const mvlm_status status =
        convert(values->random ? NULL : words->items[0], values->output, &how, &report, error);
    progress_clear(&bar);
    if (status == MVLM_OK && !values->quiet)
        print_report(&report, values->output);
    return status;
}

int main(int argc, char **argv)
{
    struct values values = {.type = TENSOR_Q4,
                            .vision_type = -1,
                            .head_type = -1,
                            .seed = -1,
                            .calibration = -1,
                            .norm_balance = CONVERT_NORM_BALANCE};
    struct text_list words = {0};
    mvlm_error error = {0};
    hold_standard_files();
    mvlm_status status = parse_options(&program, &command, argc, argv, 1, &values, &words, &error);
    if (status == MVLM_OK && values.help)
        print_help(&program, stdout);
    else if (status == MVLM_OK && values.version)
        printf("mobilevlm-convert %s\n", MVLM_VERSION);
    else if (status == MVLM_OK && values.manual && !print_manual(&program, values.manual, stdout))
        status = cli_fail(&error, MVLM_USAGE, "--manual: \"%.60s\" is none of man, bash, zsh",
                          values.manual);
    else if (status == MVLM_OK && !values.manual)
        status = run(&values, &words, &error);
    free_options(&program, &values, &words);
    if (fflush(stdout) != 0 && status == MVLM_OK)
        status = cli_fail(&error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    if (status == MVLM_CANCELLED && stopped_by)
        return 128 + stopped_by;
    if (status != MVLM_OK)
        report_error(&program, &error);
    return (int)status;
}
