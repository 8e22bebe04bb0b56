/* mobilevlm: the command line. The sampling loop is driven from here. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "manual.h"
#include "trace.h"

/* ---- run and trace ---------------------------------------------------------------------- */

/* The answer, piece by piece: to standard output, or kept for --json. */
static mvlm_status answer(struct ask *ask, struct trace *trace, mvlm_finish *finish,
                          mvlm_error *error)
{
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    mvlm_status status = MVLM_OK;
    while (status == MVLM_OK && piece.finish == MVLM_UNFINISHED) {
        pace(ask->values);
        status = mvlm_next(ask->session, &piece, error);
        if (status == MVLM_OK && trace && piece.id >= 0 && piece.finish != MVLM_STOP)
            status = trace_id(trace, piece.id, error);
        if (status == MVLM_OK && ask->values->json)
            status = ask_keep(ask, piece.text, piece.n_bytes, error);
        else if (status == MVLM_OK)
            status = put_out(piece.text, piece.n_bytes, error);
    }
    *finish = piece.finish;
    if (status == MVLM_OK && ask->values->json)
        return ask_print_json(ask, piece.finish, error);
    if (status == MVLM_OK)
        return put_out("\n", 1, error);
    return status;
}

/* Picture and question to the likeliest of the choices. */
static mvlm_status choose(struct ask *ask, mvlm_error *error)
{
    mvlm_status status = choices_ask(&ask->choices, ask->session, 0, &ask->question, error);
    progress_clear(&ask->bar);
    if (status != MVLM_OK)
        return status;
    const char *best = choices_best(&ask->choices);
    if (ask->values->json) {
        status = ask_keep(ask, best, strlen(best), error);
        return status == MVLM_OK ? ask_print_json(ask, MVLM_STOP, error) : status;
    }
    status = put_out(best, strlen(best), error);
    return status == MVLM_OK ? put_out("\n", 1, error) : status;
}

/* Picture and question to the printed answer, traced or not. */
static mvlm_status ask_freely(struct ask *ask, struct trace *trace, mvlm_error *error)
{
    mvlm_finish finish;
    mvlm_status status = mvlm_begin(ask->session, &ask->question, error);
    progress_clear(&ask->bar);
    if (status == MVLM_OK && ask->question.until == MVLM_TO_END)
        status = answer(ask, trace, &finish, error);
    return status;
}

static mvlm_status ask_question(struct ask *ask, struct trace *trace, mvlm_error *error)
{
    catch_signals(ask->session);
    const mvlm_status status = ask->choices.n ? choose(ask, error) : ask_freely(ask, trace, error);
    catch_signals(NULL);
    if (status == MVLM_OK && ask->values->verbose)
        ask_print_details(ask);
    return status;
}

static mvlm_status run_run(const struct values *values, mvlm_error *error)
{
    struct ask ask;
    mvlm_status status = ask_open(&ask, values, error);
    if (status == MVLM_OK)
        status = ask_question(&ask, NULL, error);
    ask_close(&ask);
    return status;
}

static mvlm_status run_trace(const struct values *values, mvlm_error *error)
{
    struct ask ask;
    struct trace trace;
    mvlm_status status = ask_open(&ask, values, error);
    if (status == MVLM_OK)
        status = trace_start(&trace, values->output, &ask.question, error);
    if (status == MVLM_OK) {
        status = ask_question(&ask, &trace, error);
        status = trace_finish(&trace, ask.session, status, error);
    }
    ask_close(&ask);
    return status;
}

/* ---- The tables ------------------------------------------------------------------------- */

enum {
    RUN = 1,
    INFO = 2,
    VERIFY = 4,
    TOKENIZE = 8,
    PERPLEXITY = 16,
    TRACE = 32,
    BENCH = 64,
    BATCH = 128,
    CHAT = 256,
    HELP = 512,
    ALL = 511,
    ASK = RUN | TRACE | BATCH | CHAT /* what asks questions */
};

static const char *const kv_names[] = {"auto", "f32", "f16", "q8", NULL}; /* as mvlm_kv_type */
static const char *const stage_names[] = {"end",       "pixels", "vision",
                                          "projector", "logits", NULL}; /* as mvlm_stage */
static const char *const bench_names[] = {"md", "json", "jsonl", "csv",
                                          NULL}; /* as enum bench_output */

#define V(member) offsetof(struct values, member)
static const struct option options[] = {
    {"-m --model", OPTION_TEXT, V(model), "FILE", 0, 0, NULL, ALL, "the model file"},
    {"-i --image", OPTION_LIST, V(images), "FILE", 0, 0, NULL, RUN | TRACE | CHAT,
     "a picture (JPEG, PNG, BMP); repeatable; - is standard input"},
    {"-i --image", OPTION_LIST, V(images), "FILE", 0, 0, NULL, BENCH,
     "a picture (JPEG, PNG, BMP; default: noise)"},
    {"-p --prompt", OPTION_TEXT, V(prompt), "TEXT", 0, 0, NULL, RUN | TRACE | BATCH,
     "the question; <image> marks where the next picture stands"},
    {"-f --file", OPTION_TEXT, V(file), "FILE", 0, 0, NULL, RUN | TRACE | BATCH | PERPLEXITY,
     "the question (or the text to score) from a file"},
    {"--system", OPTION_TEXT, V(system), "TEXT", 0, 0, NULL, ASK,
     "replaces the template's system text"},
    {"--raw", OPTION_FLAG, V(raw), NULL, 0, 0, NULL, RUN | TRACE | BATCH | TOKENIZE,
     "the prompt is the whole text: no template, special tokens are read"},
    {"-n --max-tokens --predict --n-predict", OPTION_INTEGER, V(max_tokens), "N", 1, 1048576, NULL,
     ASK, "length of the answer (default 256)"},
    {"--temp", OPTION_REAL, V(temperature), "T", 0, 1000, NULL, ASK,
     "temperature; 0, the default, is greedy"},
    {"--top-k", OPTION_INTEGER, V(top_k), "K", 0, 2147483647, NULL, ASK,
     "draw from the K likeliest (default 40; 0: off)"},
    {"--top-p", OPTION_REAL, V(top_p), "P", 0, 1, NULL, ASK,
     "draw from the likeliest that make up P (default 0.95; 1: off)"},
    {"--min-p", OPTION_REAL, V(min_p), "P", 0, 1, NULL, ASK,
     "leave out what is less likely than P times the likeliest (default 0.05)"},
    {"--repeat-penalty", OPTION_REAL, V(repeat_penalty), "R", 1e-3, 1000, NULL, ASK,
     "makes the last 64 ids less likely (default 1: off)"},
    {"-s --seed", OPTION_INTEGER, V(seed), "N", -1, 9007199254740991.0, NULL, ASK,
     "of the draws (default random, printed with -v)"},
    {"--stop", OPTION_LIST, V(stops), "TEXT", 0, 0, NULL, ASK,
     "the answer ends before it; repeatable"},
    {"--choices", OPTION_TEXT, V(choices), "A,B,C", 0, 0, NULL, RUN | BATCH,
     "no free text: the likeliest of these answers (with --json the probability of each)"},
    {"--cache", OPTION_TEXT, V(cache), "FOLDER", 0, 0, NULL, RUN | BATCH | CHAT,
     "what the model makes of pictures is kept there: one seen before costs no encoding"},
    {"--cache-size", OPTION_BYTES, V(cache_bytes), "BYTES", 1, 1e18, NULL, RUN | BATCH | CHAT,
     "of that folder at most (default 1G): what was not used for longest goes"},
    {"-c --ctx-size", OPTION_INTEGER, V(context), "N", 0, 1048576, NULL, ASK | INFO | PERPLEXITY,
     "positions in the cache (default: as needed, at most what the model was trained for)"},
    {"--kv-type -ctk -ctv", OPTION_NAME, V(kv_type), "q8|f16|f32", 0, 0, kv_names,
     ASK | INFO | PERPLEXITY | BENCH,
     "type of the key/value cache (default auto: f32 for f32 files, else q8)"},
    {"-t --threads", OPTION_INTEGER, V(threads), "N", 1, 256, NULL, ASK | INFO | PERPLEXITY,
     "default: one a big core that the process may use"},
    {"--cores", OPTION_TEXT, V(cores), "big|all|LIST", 0, 0, NULL, ASK | INFO | PERPLEXITY | BENCH,
     "where threads run (default: the big cores, or all for more threads than those); a list: "
     "0,2-4"},
    {"-C --cpu-mask", OPTION_TEXT, V(core_mask), "MASK", 0, 0, NULL,
     ASK | INFO | PERPLEXITY | BENCH,
     "cores as a mask in hexadecimal, 0xf0 for 4 to 7; adds to -Cr"},
    {"-Cr --cpu-range", OPTION_TEXT, V(core_range), "LO-HI", 0, 0, NULL,
     ASK | INFO | PERPLEXITY | BENCH, "cores as a range, 4- and -7 with an open end; adds to -C"},
    {"--max-rss", OPTION_BYTES, V(max_rss), "BYTES", 1, 1e18, NULL, ASK | PERPLEXITY | BENCH,
     "refuse before allocating what needs more; K, M and G are understood"},
    {"--max-pixels", OPTION_INTEGER, V(max_pixels), "N", 1, 1e12, NULL, ASK | BENCH,
     "refuse larger pictures before decoding (default 100000000; fewer where --max-rss asks for "
     "it)"},
    {"--isa", OPTION_TEXT, V(isa), "NAME", 0, 0, NULL, ALL,
     "highest instruction set to use: c; avx2, avxvnni, avx512vnni; neon, dotprod, i8mm "
     "(default: the best there is)"},
    {"-o --output", OPTION_TEXT, V(output), "FOLDER", 0, 0, NULL, TRACE, "where the arrays go"},
    {"--until", OPTION_NAME, V(until), "STAGE", 0, 0, stage_names, TRACE,
     "stop early: pixels, vision, projector or logits"},
    {"--bos", OPTION_FLAG, V(bos), NULL, 0, 0, NULL, TOKENIZE,
     "put the beginning-of-sequence id first"},
    {"--jsonl", OPTION_FLAG, V(jsonl), NULL, 0, 0, NULL, TOKENIZE,
     "each line is {\"text\": ...} (or, with --decode, an array of ids)"},
    {"--decode", OPTION_FLAG, V(decode), NULL, 0, 0, NULL, TOKENIZE, "ids to text"},
    {"--window", OPTION_INTEGER, V(window), "N", 2, 1048576, NULL, PERPLEXITY,
     "ids in a window (default 256)"},
    {"--windows", OPTION_INTEGER, V(windows), "N", 1, 1e12, NULL, PERPLEXITY,
     "at most so many (default: all)"},
    {"-p --n-prompt", OPTION_LIST, V(n_prompt), "LIST", 0, 0, NULL, BENCH,
     "lengths of prompts (default 176); lists and ranges: 128,176 1-4 1-8+2 1-8*2; 0: none"},
    {"-n --n-gen", OPTION_LIST, V(n_gen), "LIST", 0, 0, NULL, BENCH,
     "lengths of answers (default 64)"},
    {"-d --n-depth", OPTION_LIST, V(n_depth), "LIST", 0, 0, NULL, BENCH,
     "positions read before (default: 0 for prompts, 0,512 for answers)"},
    {"--n-picture", OPTION_LIST, V(n_picture), "LIST", 0, 0, NULL, BENCH,
     "rows of a picture that are read with full attention and with composite (default: none; "
     "144,576,2304 of a model with composite attention)"},
    {"-t --threads", OPTION_LIST, V(n_threads), "LIST", 0, 0, NULL, BENCH,
     "default: one a big core that the process may use"},
    {"-r --repetitions", OPTION_INTEGER, V(repetitions), "N", 1, 10000, NULL, BENCH,
     "of each test, after one that does not count (default 5)"},
    {"-o --output", OPTION_NAME, V(bench_output), "md|json|jsonl|csv", 0, 0, bench_names, BENCH,
     "how results are printed (default md)"},
    {"--limits", OPTION_FLAG, V(limits), NULL, 0, 0, NULL, BENCH,
     "measure between repetitions what this machine can do at best, and print the share of it"},
    {"--sustain", OPTION_TEXT, V(sustain), "TIME", 0, 0, NULL, BENCH,
     "go on for 30s, 10m or 1h, with a record of each test every 10 seconds"},
    {"--max-temp", OPTION_REAL, V(max_celsius), "C", 1, 150, NULL, ASK,
     "pause between tokens while the machine is hotter, in degrees Celsius"},
    {"--max-temp", OPTION_REAL, V(max_celsius), "C", 1, 150, NULL, BENCH,
     "wait before a repetition until the machine is no hotter, in degrees Celsius"},
    {"-o --output", OPTION_TEXT, V(output), "FILE", 0, 0, NULL, BATCH,
     "records are appended to it (default: standard output)"},
    {"--jsonl-in", OPTION_TEXT, V(jsonl_in), "FILE", 0, 0, NULL, BATCH,
     "items are lines {\"id\", \"image\", \"prompt\", \"max_tokens\"}; -: answered as they come"},
    {"-R --recursive", OPTION_FLAG, V(recurse), NULL, 0, 0, NULL, BATCH,
     "folders within folders too"},
    {"-0 --null", OPTION_FLAG, V(nul_list), NULL, 0, 0, NULL, BATCH,
     "names in lists end with NUL, not with a newline"},
    {"--resume", OPTION_FLAG, V(resume), NULL, 0, 0, NULL, BATCH,
     "leave out what the output holds already"},
    {"--retry-failed", OPTION_FLAG, V(retry_failed), NULL, 0, 0, NULL, BATCH,
     "with --resume: but do again what failed"},
    {"--force", OPTION_FLAG, V(force), NULL, 0, 0, NULL, BATCH,
     "add to an output that holds records, of other models or options too"},
    {"--sidecar", OPTION_TEXT, V(sidecar), "EXT", 0, 0, NULL, BATCH,
     "also write each answer's text beside its picture, photo.EXT"},
    {"--sidecar-dir", OPTION_TEXT, V(sidecar_dir), "FOLDER", 0, 0, NULL, BATCH,
     "sidecars go there instead"},
    {"--shard", OPTION_TEXT, V(shard), "I/N", 0, 0, NULL, BATCH,
     "only part I, from 0 to N - 1, of the items"},
    {"--merge", OPTION_TEXT, V(merge), "OUT", 0, 0, NULL, BATCH,
     "join the records in the files INPUT... into OUT; nothing is answered"},
    {"--list", OPTION_TEXT, V(list), "FILE", 0, 0, NULL, BATCH,
     "with --merge: every name in it must have a record"},
    {"--parallel", OPTION_INTEGER, V(parallel), "N", 1, 64, NULL, BATCH,
     "answers under way together (default: up to 8, as memory allows)"},
    {"--max-errors", OPTION_INTEGER, V(max_errors), "N", 1, 1e12, NULL, BATCH,
     "stop after so many failures"},
    {"--timeout-per-item", OPTION_REAL, V(item_seconds), "SECONDS", 1e-6, 1e9, NULL, BATCH,
     "an item that takes longer fails"},
    {"--deadline", OPTION_REAL, V(deadline), "SECONDS", 1e-6, 1e9, NULL, BATCH,
     "begin nothing after so long"},
    {"--progress-json", OPTION_FLAG, V(progress_json), NULL, 0, 0, NULL, BATCH,
     "a line a second on standard error"},
    {"--json", OPTION_FLAG, V(json), NULL, 0, 0, NULL, RUN | TRACE | INFO | PERPLEXITY,
     "one JSON object instead of text"},
    {"-v --verbose", OPTION_FLAG, V(verbose), NULL, 0, 0, NULL, ALL,
     "timings, memory and seed on standard error"},
    {"-q --quiet", OPTION_FLAG, V(quiet), NULL, 0, 0, NULL, ALL,
     "nothing but errors on standard error"},
    {"-h --help", OPTION_FLAG, V(help), NULL, 0, 0, NULL, ALL | HELP, "this text"},
    {"--version", OPTION_FLAG, V(version), NULL, 0, 0, NULL, ALL | HELP, "the version"},
};
#undef V

static const struct command commands[] = {
    {"run", RUN, "-m model.bin [-i photo.jpg]... -p TEXT",
     "the answer to a question about pictures, streamed",
     "mobilevlm -m model.bin -i photo.jpg -p \"what is this?\""},
    {"info", INFO, "-m model.bin [--json]", "what the file holds, and the memory that it will need",
     "mobilevlm info -m model.bin"},
    {"verify", VERIFY, "-m model.bin", "every digest and every bound of the file",
     "mobilevlm verify -m model.bin"},
    {"tokenize", TOKENIZE, "-m model.bin [--decode] [--jsonl] <text",
     "text to ids and back, on standard input",
     "echo \"what is this?\" | mobilevlm tokenize -m model.bin"},
    {"perplexity", PERPLEXITY, "-m model.bin -f text.txt", "how well a text is predicted",
     "mobilevlm perplexity -m model.bin -f text.txt --windows 20"},
    {"trace", TRACE, "-m model.bin [-i photo.jpg]... -p TEXT -o folder",
     "every stage's numbers, as .npy files",
     "mobilevlm trace -m model.bin -i photo.jpg -p \"what is this?\" -o numbers"},
    {"bench", BENCH, "-m model.bin [-i photo.jpg] [-p LIST] [-n LIST] [-d LIST] [-t LIST]",
     "speed, memory and heat, stage by stage",
     "mobilevlm bench -m model.bin -i photo.jpg --limits"},
    {"batch", BATCH, "-m model.bin -p TEXT INPUT... [-o out.jsonl]",
     "one question about many pictures: files, folders, @list, - (a list)",
     "mobilevlm batch -m model.bin -p \"Describe the picture.\" photos -o captions.jsonl --resume"},
    {"chat", CHAT, "-m model.bin [-i photo.jpg]...",
     "a conversation about pictures, in the terminal or through pipes",
     "mobilevlm chat -m model.bin -i photo.jpg"},
    {"help", HELP, "[COMMAND]", "this text, or a command's", "mobilevlm help run"},
};

/* In the order of `commands`. */
static mvlm_status (*const runners[])(const struct values *, mvlm_error *) = {
    run_run,   run_info,  run_verify, run_tokenize, run_perplexity,
    run_trace, run_bench, run_batch,  run_chat,
};

static const struct program program = {
    "mobilevlm",
    "MOBILEVLM_",
    "pictures and a question in, text out, on the CPU",
    "Exit codes: 0 done, 1 some items of a batch failed, 2 usage, 3 model file, 4 picture, 5 "
    "memory, 6 processor, 7 out of time, 8 output, 130 and 143 stopped by a "
    "signal, 141 nobody reads the output any more.\n",
    commands,
    sizeof commands / sizeof *commands,
    options,
    sizeof options / sizeof *options};

/* ---- main ------------------------------------------------------------------------------- */

/* help COMMAND, or help man|bash|zsh: what cmake --install puts into place. */
static mvlm_status print_help_for(const struct text_list *words, mvlm_error *error)
{
    if (words->n == 1 && print_manual(&program, words->items[0], stdout))
        return MVLM_OK;
    if (words->n == 0) {
        print_help(&program, stdout);
        return MVLM_OK;
    }
    for (size_t i = 0; i < program.n_commands; i++)
        if (strcmp(program.commands[i].name, words->items[0]) == 0) {
            print_command_help(&program, &program.commands[i], stdout);
            return MVLM_OK;
        }
    return cli_fail(error, MVLM_USAGE, "no command \"%.60s\"; see mobilevlm --help",
                    words->items[0]);
}

static mvlm_status run_command(int argc, char **argv, const struct command *command, int first,
                               struct values *values, struct text_list *words, mvlm_error *error)
{
    mvlm_status status = parse_options(&program, command, argc, argv, first, values, words, error);
    if (status != MVLM_OK)
        return status;
    if (values->version) {
        printf("mobilevlm %s\n", MVLM_VERSION);
        return MVLM_OK;
    }
    if (command->bit == HELP)
        return print_help_for(words, error);
    if (values->help && first == 2)
        print_command_help(&program, command, stdout);
    else if (values->help)
        print_help(&program, stdout);
    if (values->help)
        return MVLM_OK;
    values->words = words;
    if (words->n && command->bit != BATCH)
        return cli_fail(error, MVLM_USAGE, "unexpected word \"%.60s\"; see mobilevlm --help",
                        words->items[0]);
    if (command->bit & (ASK | PERPLEXITY | INFO))
        status = take_cores(values, (size_t)values->threads, error);
    return status == MVLM_OK ? runners[command - commands](values, error) : status;
}

/* Standard output is flushed here, so that a full disk does not go unnoticed. */
static int finish(mvlm_status status, mvlm_error *error)
{
    if (fflush(stdout) != 0 && status == MVLM_OK)
        status = cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    if (status == MVLM_CANCELLED && stopped_by)
        return 128 + stopped_by;
    if (status != MVLM_OK && *error->message)
        report_error(&program, error);
    return (int)status;
}

int main(int argc, char **argv)
{
    struct values values = {.max_tokens = 256,
                            .top_k = 40,
                            .top_p = 0.95,
                            .min_p = 0.05,
                            .repeat_penalty = 1.0,
                            .seed = -1,
                            .max_pixels = 100000000,
                            .window = 256,
                            .repetitions = 5};
    struct text_list words = {0};
    mvlm_error error = {0};
    int first;
    hold_standard_files();
    signal(SIGXFSZ, SIG_IGN); /* a file that may grow no further is reported by write itself */
    const struct command *command = find_command(&program, argc, argv, &first, &error);
    mvlm_status status = MVLM_USAGE;
    if (argc < 2)
        status = cli_fail(&error, MVLM_USAGE, "nothing to do; see mobilevlm --help");
    else if (command)
        status = run_command(argc, argv, command, first, &values, &words, &error);
    const int code = finish(status, &error);
    free_options(&program, &values, &words);
    return code;
}
