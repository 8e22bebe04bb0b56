/* mobilevlm-convert: a Hugging Face folder -> model.bin. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../src/cli/options.h"
#include "../../src/cli/terminal.h"
#include "convert.h"

static volatile sig_atomic_t stopped_by; /* the signal; 0: none */

static void on_signal(int number)
{
    stopped_by = number;
}

struct values {
    const char *output;
    int type;
    int64_t threads;
    bool force, quiet, help, version;
};

static const char *const type_names[] = {"f32", "f16", NULL};
static const enum tensor_type types[] = {TENSOR_F32, TENSOR_F16};

#define AT(member) offsetof(struct values, member)
static const struct option options[] = {
    {"-o --output", OPTION_TEXT, AT(output), "FILE", 0, 0, NULL, 1, "the model file to write"},
    {"--type", OPTION_NAME, AT(type), "f32|f16", 0, 0, type_names, 1,
     "of weight matrices (default f16); norms, biases and small tensors are f32"},
    {"-t --threads", OPTION_INTEGER, AT(threads), "N", 1, 256, NULL, 1, "default: one a core"},
    {"--force", OPTION_FLAG, AT(force), NULL, 0, 0, NULL, 1, "overwrite the model file"},
    {"-q --quiet", OPTION_FLAG, AT(quiet), NULL, 0, 0, NULL, 1, "nothing but errors"},
    {"-h --help", OPTION_FLAG, AT(help), NULL, 0, 0, NULL, 1, "this text"},
    {"--version", OPTION_FLAG, AT(version), NULL, 0, 0, NULL, 1, "the version"},
};
#undef AT
static const struct command command = {"convert", 1, "CHECKPOINT -o model.bin [--type f16]",
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

static void show_progress(void *user, uint64_t done, uint64_t total)
{
    progress_show(user, "converting", (double)done / (double)total);
}

static void print_report(const struct convert_report *report, const char *path)
{
    fprintf(stderr, "%s: %zu tensors, %.1f MB, digest %s\n", path, report->n_tensors,
            (double)report->n_bytes / 1e6, report->digest);
    if (report->n_losses)
        fprintf(stderr, "%-36s %-5s %7s %10s %10s\n", "relative error", "type", "tensors", "mean",
                "worst");
    for (size_t i = 0; i < report->n_losses; i++) {
        const struct convert_loss *loss = &report->losses[i];
        fprintf(stderr, "%-36s %-5s %7zu %10.2e %10.2e\n", loss->pattern, "f16", loss->n_tensors,
                loss->sum / (double)loss->n_tensors, loss->worst);
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
    if (words->n != 1)
        return cli_fail(error, MVLM_USAGE,
                        "%zu checkpoint folders named, expected one; see %s --help", words->n,
                        program.name);
    if (!values->output)
        return cli_fail(error, MVLM_USAGE, "no model file named: -o FILE");
    progress_start(&bar, values->quiet);
    const struct convert_options how = {.type = types[values->type],
                                        .force = values->force,
                                        .n_threads = (int)values->threads,
                                        .stop = &stopped_by,
                                        .progress = show_progress,
                                        .progress_user = &bar};
    catch_signals();
    const mvlm_status status = convert(words->items[0], values->output, &how, &report, error);
    progress_clear(&bar);
    if (status == MVLM_OK && !values->quiet)
        print_report(&report, values->output);
    return status;
}

int main(int argc, char **argv)
{
    struct values values = {.type = 1};
    struct text_list words = {0};
    mvlm_error error = {0};
    hold_standard_files();
    mvlm_status status = parse_options(&program, &command, argc, argv, 1, &values, &words, &error);
    if (status == MVLM_OK && values.help)
        print_help(&program, stdout);
    else if (status == MVLM_OK && values.version)
        printf("mobilevlm-convert %s\n", MVLM_VERSION);
    else if (status == MVLM_OK)
        status = run(&values, &words, &error);
    free_options(&program, &values, &words);
    if (fflush(stdout) != 0 && status == MVLM_OK)
        status = cli_fail(&error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    if (status == MVLM_CANCELLED && stopped_by)
        return 128 + stopped_by;
    if (status != MVLM_OK)
        print_error(&program, &error);
    return (int)status;
}
