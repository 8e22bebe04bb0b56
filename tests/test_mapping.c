/* A model file that is cut, replaced or read from a failing disk while it is in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conversation.h"
#include "golden.h"
#include "mobilevlm.h"
#include "program.h"
#include "tiny.h"

static char path[512];
static off_t n_bytes;

static void make_model(void)
{
    struct description description;
    tiny_describe(&description);
    snprintf(path, sizeof path, "%s/model.bin", test_folder);
    unlink(path);
    tiny_write(path, &description, TENSOR_F32, 1);
    size_t n;
    free(file_load(path, &n));
    n_bytes = (off_t)n;
}

static mvlm_model *open_it(void)
{
    mvlm_model *model;
    mvlm_error error = {0};
    if (mvlm_model_open(path, NULL, &model, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return model;
}

static mvlm_session *session_of(mvlm_model *model, int n_threads)
{
    const mvlm_session_options options = {.n_threads = n_threads};
    mvlm_session *session;
    assert_int_equal(mvlm_session_open(model, &options, &session, NULL), MVLM_OK);
    return session;
}

static const mvlm_turn turn = {.question = "a cat"};
static const mvlm_question question = {.turns = &turn, .n_turns = 1, .max_tokens = 40};

static void expect_lost(mvlm_status status, const mvlm_error *error)
{
    assert_int_equal(status, MVLM_BAD_MODEL);
    assert_int_equal(error->status, MVLM_BAD_MODEL);
    assert_non_null(strstr(error->message, path));
    assert_non_null(strstr(error->message, "cannot be read: the file was cut while in use"));
}

/* Wherever it is cut and with however many threads, the answer ends with an error that says so; so do all calls that
 * follow, and another model is untouched. */
static void cut_while_answering(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        mvlm_error error = {0};
        mvlm_piece piece;
        make_model();
        const off_t to =
            trial % 4 ? n_bytes * (trial % 4) / 4 : n_bytes - 1; /* within the last page */
        mvlm_model *model = open_it();
        mvlm_session *session = session_of(model, trial < 6 ? 1 : 3);
        assert_int_equal(mvlm_begin(session, &question, NULL), MVLM_OK);
        assert_int_equal(mvlm_next(session, &piece, NULL), MVLM_OK);
        assert_int_equal(truncate(path, to), 0);
        mvlm_status status = MVLM_OK;
        for (int i = 0; i < 40 && status == MVLM_OK && piece.finish == MVLM_UNFINISHED; i++)
            status = mvlm_next(session, &piece, &error);
        expect_lost(status, &error);
        expect_lost(mvlm_begin(session, &question, &error), &error);
        size_t n;
        int32_t ids[8];
        expect_lost(mvlm_tokenize(model, "a", 1, 0, ids, 8, &n, &error), &error);
        expect_lost(mvlm_detokenize(model, ids, 1, NULL, 0, &n, &error), &error);
        expect_lost(mvlm_question_rows(model, &question, &n, &error), &error);
        expect_lost(mvlm_model_verify(model, NULL, NULL, &error), &error);
        mvlm_field field;
        mvlm_tensor tensor;
        for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
            assert_non_null(field.key);
        for (size_t i = 0; mvlm_model_tensor(model, i, &tensor); i++)
            assert_non_null(tensor.type);
        mvlm_session_close(session);
        mvlm_model_close(model);
    }
    make_model();
    mvlm_model *whole = open_it();
    mvlm_session *session = session_of(whole, 1);
    assert_int_equal(mvlm_ask(session, &question, NULL, NULL, NULL), MVLM_OK);
    mvlm_session_close(session);
    mvlm_model_close(whole);
}

static void cut_before_verify(void **state)
{
    (void)state;
    mvlm_error error = {0};
    make_model();
    mvlm_model *model = open_it();
    assert_int_equal(truncate(path, n_bytes / 2), 0);
    expect_lost(mvlm_model_verify(model, NULL, NULL, &error), &error);
    mvlm_model_close(model);
}

/* What was made of zeros does not stay in the folder of pictures' rows. */
static void a_cut_tower_is_not_kept(void **state)
{
    (void)state;
    char folder[600], *bmp;
    size_t n;
    mvlm_error error = {0};
    make_model();
    snprintf(folder, sizeof folder, "%s/cache", test_folder);
    bmp = file_load(SOURCE_DIR "/tests/golden/images/alpha.png", &n);
    const mvlm_picture picture = {"a", bmp, n};
    mvlm_question about = question;
    about.pictures = &picture;
    about.n_pictures = 1;
    mvlm_model *model = open_it();
    const mvlm_session_options options = {.n_threads = 1, .cache_folder = folder};
    mvlm_session *session;
    assert_int_equal(mvlm_session_open(model, &options, &session, NULL), MVLM_OK);
    assert_int_equal(truncate(path, 0), 0);
    expect_lost(mvlm_ask(session, &about, NULL, NULL, &error), &error);
    mvlm_session_close(session);
    mvlm_model_close(model);
    assert_int_equal(rmdir(folder), 0); /* it is empty */
    free(bmp);
}

/* Another file under its name is another file: this one is answered from to the end. */
static void replaced_while_answering(void **state)
{
    (void)state;
    char other[600], *before = NULL, *after = NULL;
    size_t n_before = 0, n_after = 0;
    make_model();
    mvlm_model *model = open_it();
    mvlm_session *session = session_of(model, 2);
    for (int i = 0; i < 2; i++) {
        char **text = i ? &after : &before;
        FILE *stream = open_memstream(text, i ? &n_after : &n_before);
        mvlm_piece piece = {.finish = MVLM_UNFINISHED};
        assert_int_equal(mvlm_begin(session, &question, NULL), MVLM_OK);
        for (int step = 0; piece.finish == MVLM_UNFINISHED; step++) {
            if (i == 1 && step == 1) {
                struct description description;
                tiny_describe(&description);
                snprintf(other, sizeof other, "%s/other.bin", test_folder);
                tiny_write(other, &description, TENSOR_F32, 2);
                assert_int_equal(rename(other, path), 0);
            }
            assert_int_equal(mvlm_next(session, &piece, NULL), MVLM_OK);
            fwrite(piece.text, 1, piece.n_bytes, stream);
        }
        fclose(stream);
    }
    assert_true(n_before > 0);
    assert_string_equal(before, after);
    free(before);
    free(after);
    mvlm_session_close(session);
    mvlm_model_close(model);
}

/* ---- Others' faults --------------------------------------------------------------------- */

static sigjmp_buf escape;
static volatile sig_atomic_t n_caught;

static void on_fault(int number)
{
    (void)number;
    n_caught++;
    siglongjmp(escape, 1);
}

/* Reads behind the end of a file that is no model. */
static void read_a_lost_page(void)
{
    char name[600];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    snprintf(name, sizeof name, "%s/other", test_folder);
    const int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && ftruncate(file, (off_t)page) == 0);
    volatile const char *bytes = mmap(NULL, page, PROT_READ, MAP_SHARED, file, 0);
    assert_true(bytes != MAP_FAILED && ftruncate(file, 0) == 0);
    if (sigsetjmp(escape, 1) == 0)
        fail_msg("%d was read from a page that is not there", bytes[0]);
    munmap((void *)(uintptr_t)bytes, page);
    close(file);
}

static void other_handlers_are_untouched(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = on_fault}, before, now;
    make_model();
    assert_int_equal(sigaction(SIGBUS, &mine, &before), 0);
    n_caught = 0;
    mvlm_model *one = open_it(), *two = open_it();
    read_a_lost_page();
    assert_int_equal(n_caught, 1);
    mvlm_model_close(one);
    read_a_lost_page();
    assert_int_equal(n_caught, 2);
    mvlm_model_close(two);
    assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
    assert_ptr_equal(now.sa_handler, on_fault);
    read_a_lost_page();
    assert_int_equal(n_caught, 3);
    assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
}

/* Who installed a handler while a model was open keeps it. */
static void a_later_handler_stays(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = on_fault}, before, now;
    make_model();
    mvlm_model *model = open_it();
    assert_int_equal(sigaction(SIGBUS, &mine, &before), 0);
    mvlm_model_close(model);
    assert_int_equal(sigaction(SIGBUS, NULL, &now), 0);
    assert_ptr_equal(now.sa_handler, on_fault);
    assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
    signal(SIGBUS, SIG_DFL);
}

static void expect_a_fault_elsewhere_to_end_the_process(void)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        alarm(10);
        read_a_lost_page();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

/* A handler of somebody's over ours, and ours put back by him: a fault elsewhere still ends the process. */
static void handlers_do_not_go_round(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = on_fault}, ours;
    make_model();
    signal(SIGBUS, SIG_DFL); /* not cmocka's */
    mvlm_model *model = open_it();
    assert_int_equal(sigaction(SIGBUS, &mine, &ours), 0);
    mvlm_model_close(model);
    assert_int_equal(sigaction(SIGBUS, &ours, NULL), 0);
    model = open_it();
    expect_a_fault_elsewhere_to_end_the_process();
    mvlm_model_close(model);
    signal(SIGBUS, SIG_DFL);
}

static struct sigaction under_chaining;

static void on_chained_fault(int number, siginfo_t *info, void *context)
{
    n_caught++;
    under_chaining.sa_sigaction(number, info, context);
}

/* A crash reporter that calls whom it found, which was ours, and a model that is opened after it: its faults reach ours
 * through it, and others end the process. */
static void chained_handlers_do_not_go_round(void **state)
{
    (void)state;
    struct sigaction reporter = {.sa_sigaction = on_chained_fault, .sa_flags = SA_SIGINFO};
    mvlm_error error;
    make_model();
    signal(SIGBUS, SIG_DFL); /* not cmocka's */
    mvlm_model *model = open_it();
    assert_int_equal(sigaction(SIGBUS, &reporter, &under_chaining), 0);
    mvlm_model_close(model);
    model = open_it();
    expect_a_fault_elsewhere_to_end_the_process();
    n_caught = 0;
    assert_int_equal(truncate(path, 4096), 0);
    expect_lost(mvlm_model_verify(model, NULL, NULL, &error), &error);
    assert_int_equal(n_caught, 1);
    mvlm_model_close(model);
    signal(SIGBUS, SIG_DFL);
}

/* ---- The program ------------------------------------------------------------------------ */

/* Cut while it runs: told as a model file's fault, whatever was printed by then. */
static void the_program_tells(void **state)
{
    (void)state;
    struct program_result result;
    make_model();
    const char *const argv[] = {
        "/bin/sh",
        "-c",
        "mkfifo \"$2/in\"; \"$0\" chat -m \"$1\" -t 2 -n 20 <\"$2/in\" & exec 3>\"$2/in\"; "
        "echo a cat >&3; sleep 0.3; truncate -s 4096 \"$1\"; echo a dog >&3; exec 3>&-; wait $!",
        MOBILEVLM_PROGRAM,
        path,
        test_folder,
        NULL};
    program_run(&result, argv, NULL, 0, NULL);
    assert_int_equal(result.code, 3);
    assert_non_null(strstr(result.err, "cannot be read: the file was cut while in use"));
    program_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_while_answering),
        cmocka_unit_test(cut_before_verify),
        cmocka_unit_test(a_cut_tower_is_not_kept),
        cmocka_unit_test(replaced_while_answering),
        cmocka_unit_test(other_handlers_are_untouched),
        cmocka_unit_test(a_later_handler_stays),
        cmocka_unit_test(handlers_do_not_go_round),
        cmocka_unit_test(chained_handlers_do_not_go_round),
        cmocka_unit_test(the_program_tells),
    };
    return cmocka_run_group_tests(tests, open_test_folder, close_test_folder);
}
