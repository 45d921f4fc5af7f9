/* test_err.c - codes, sentences, and the two macros. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "tests/check.h"

static void test_set_keeps_the_sentence(void **state)
{
    (void)state;
    assert_int_equal(FAIL(ERR_DATA, "line %d of %s", 7, "a.ini"), ERR_DATA);
    assert_string_equal(err_text(), "line 7 of a.ini");
}

/* Whatever bytes are quoted: one line, and nothing that a terminal obeys. */
static void test_a_sentence_is_one_line(void **state)
{
    (void)state;
    (void)FAIL(ERR_DATA, "key %s", "a\nb\x1b[2J\x7f\xc3\xa9");
    assert_string_equal(err_text(), "key a?b?[2J?\xc3\xa9");
    (void)err_prefix(ERR_DATA, "%s", "x\ny");
    assert_string_equal(err_text(), "x?y: key a?b?[2J?\xc3\xa9");
}

static void test_prefix(void **state)
{
    (void)state;
    (void)FAIL(ERR_DATA, "no key");
    assert_int_equal(err_prefix(ERR_CONFIG, "%s", "a.ini"), ERR_CONFIG);
    assert_string_equal(err_text(), "a.ini: no key");
    assert_int_equal(err_prefix(ERR_CONFIG, "start"), ERR_CONFIG);
    assert_string_equal(err_text(), "start: a.ini: no key");
}

/* A sentence or a prefix of any length is cut at 511 bytes. */
static void test_long_sentences_are_cut(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)FAIL(ERR_DATA, "%s", text);
    assert_int_equal(strlen(err_text()), 511);
    (void)err_prefix(ERR_DATA, "file");
    assert_int_equal(strlen(err_text()), 511);
    assert_memory_equal(err_text(), "file: xxx", 9);
    (void)err_prefix(ERR_DATA, "%s", text);
    assert_int_equal(strlen(err_text()), 511);
}

static err_t tried(err_t first, int *n_calls)
{
    err_t e = OK;
    TRY(first);
    ++*n_calls;
out:
    return e;
}

static void test_try_leaves_by_out(void **state)
{
    (void)state;
    int n_calls = 0;
    assert_int_equal(tried(ERR_LIMIT, &n_calls), ERR_LIMIT);
    assert_int_equal(n_calls, 0);
    assert_int_equal(tried(OK, &n_calls), OK);
    assert_int_equal(n_calls, 1);
}

static void test_exit_status(void **state)
{
    (void)state;
    static const int known[][2] = {
        {OK, 0},         {ERR_USAGE, 2},   {ERR_GAVE_UP, 3},   {ERR_DATA, 65},  {ERR_NOINPUT, 66},
        {ERR_NONE, 69},  {ERR_BUG, 70},    {ERR_DEVICE, 70},   {ERR_WRITE, 73}, {ERR_FULL, 73},
        {ERR_NOMEM, 75}, {ERR_CONFIG, 78}, {ERR_RUNNING, 100},
    };
    for (size_t i = 0; i < COUNT(known); i++)
        assert_int_equal(err_exit_status((err_t)known[i][0]), known[i][1]);
    for (int code = 1; code < ERR_CODES; code++) assert_true(err_exit_status((err_t)code) > 0);
}

/* MUST in a child: it ends by SIGABRT and says where. */
static void test_must_aborts(void **state)
{
    (void)state;
    int fd[2], status = 0;
    char text[256] = {0};
    assert_int_equal(pipe(fd), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fd[1], 2);
        signal(SIGABRT, SIG_DFL);
        const int two = 2;
        MUST(two == 3);
        _exit(0);
    }
    close(fd[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(fd[0], text, sizeof text - 1) > 0);
    close(fd[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "what=\"two == 3\""));
    assert_non_null(strstr(text, "test_err.c:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_keeps_the_sentence),
        cmocka_unit_test(test_a_sentence_is_one_line),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_long_sentences_are_cut),
        cmocka_unit_test(test_try_leaves_by_out),
        cmocka_unit_test(test_exit_status),
        cmocka_unit_test(test_must_aborts),
    };
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
